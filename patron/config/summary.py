"""What a service amounts to: its components, its routes, and what they run on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from patron.component import Component
from patron.config.secrets import without_password
from patron.consumer import ConsumerSettings
from patron.service import Service
from patron.sources.sqlite import SqliteSource, sqlite_version

_ADDRESSES = ("brokers", "url", "endpoint_url", "path")
_WAL_RESET = "; older than the fix of the WAL-reset bug, which Patron's way of checkpointing avoids"

__all__ = ["components", "lines", "routes"]


def lines(service: Service) -> Iterator[str]:
    """A few lines for a person."""
    own = service.http
    served = [row for row in routes(service) if row["kind"] != "admin"]
    yield f"service     {service.name} {service.version}, {_count(service.process.workers, 'worker')}"
    threads = _count(own.threads, "thread")
    yield f"http        {own.host}:{own.port}, {threads}, {_count(len(served), 'route')}"
    for row in components(service):
        yield f"component   {row['name']} ({', '.join(_about(row))})"
    if service.resources:
        yield f"resources   {', '.join(service.resources)}"
    for sqlite in _sqlites(service):
        yield f"sqlite      {sqlite}"


def _about(row: Mapping[str, Any]) -> Iterator[str]:
    yield row["type"]
    if row["reads"]:
        yield f"reads {row['reads']}" + (f" at {row['at']}" if row["at"] else "")
        yield f"dead letters {row['dead_letters'] or 'none'}"


def components(service: Service) -> list[dict[str, Any]]:
    """One row for each component, HTTP's first."""
    own = {
        "name": "http",
        "type": "Http",
        "reads": None,
        "at": None,
        "dead_letters": None,
        "restart": "never",
    }
    return [own, *(_component(component, service.restart) for component in service.components)]


def _component(component: Component, restart: Mapping[str, Any]) -> dict[str, Any]:
    policy = "on-failure" if component.name in restart else "never"
    source, settings = getattr(component, "source", None), getattr(component, "settings", None)
    letters = settings.dead_letter_topic(component.name) if isinstance(settings, ConsumerSettings) else None
    return {
        "name": component.name,
        "type": type(component).__name__,
        "reads": f"{source.system}:{source.target}" if source is not None else None,
        "at": _address(source),
        "dead_letters": letters,
        "restart": policy,
    }


def _address(source: Any) -> str | None:
    """Where the broker of *source* is, by the names that sources have for it, without passwords."""
    found = next((value for name in _ADDRESSES if (value := getattr(source, name, None))), None)
    if found is None:
        return None
    return without_password(str(found) if isinstance(found, (str, Path)) else ",".join(map(str, found)))


def routes(service: Service) -> list[dict[str, Any]]:
    """One row for each route, the admin routes among them."""
    return [asdict(info) for info in service.served()]


def _sqlites(service: Service) -> Iterator[str]:
    """Which SQLite runs, for each driver that a source uses."""
    sources = (getattr(component, "source", None) for component in service.components)
    for driver in sorted({source.driver for source in sources if isinstance(source, SqliteSource)}):
        version = sqlite_version(driver)
        yield f"{version.version} ({version.driver}){'' if version.fixed else _WAL_RESET}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
