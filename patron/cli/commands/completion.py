"""``patron completion``: shell completion."""

from __future__ import annotations

import click

__all__ = ["command"]

# A .zshrc may not have set completion up before; in an autoloaded file the first line says what it is for.
_ZSH_FIRST = "#compdef patron\n"
_ZSH_SETS_UP = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"


@click.command(
    short_help="Print the completion script of SHELL.",
    epilog="""\b
Examples:
  patron completion bash >> ~/.bashrc
  patron completion zsh >> ~/.zshrc
  patron completion fish > ~/.config/fish/completions/patron.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete the commands and options of patron."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # the choices above are the ones that click has
    script = found(ctx.find_root().command, {}, "patron", "_PATRON_COMPLETE").source()
    click.echo(script.replace(_ZSH_FIRST, f"{_ZSH_FIRST}\n{_ZSH_SETS_UP}", 1) if shell == "zsh" else script)
