"""``patron version``: which Patron this is."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(epilog="\b\nExample:\n  patron version")
def command() -> None:
    """Print the version of Patron and of what it runs on."""
    import platform
    from importlib import metadata

    from patron._version import VERSION

    parts = [f"{name} {metadata.version(name)}" for name in ("gunicorn", "flask")]
    click.echo(f"patron {VERSION} (Python {platform.python_version()}, {', '.join(parts)})")
