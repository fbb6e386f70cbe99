"""``${VARIABLE}``, ``${VARIABLE:-default}`` and ``${file:/path}`` inside the values of a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from patron.config.secrets import looks_secret
from patron.errors import ConfigError

__all__ = ["Filled", "fill"]

_LARGEST_SECRET = 1 << 20
_TOKEN = re.compile(r"\$\$|\$\{(?P<inside>[^}]*)\}|\$\{")
_VARIABLE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Filled:
    """A text with its references filled in, what they were, and whether one of them was a secret file."""

    text: str
    references: tuple[str, ...] = ()
    secret: bool = False


def fill(text: str, environ: Mapping[str, str]) -> Filled:
    """
    *text* with every reference replaced; ``$$`` is a dollar sign.

    Raises:
        ConfigError: a variable is not set and has no default, a file cannot be read, or the form is unknown.
    """
    if "$" not in text:
        return Filled(text)
    references: list[str] = []

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match["inside"] is None:
            raise ConfigError(
                f"{text!r} opens '${{' and does not close it; a dollar sign itself is written '$$'"
            )
        references.append(match[0])
        return _value(match["inside"], environ)

    filled = _TOKEN.sub(replace, text)
    return Filled(filled, tuple(references), any(map(_is_secret, references)))


def _is_secret(reference: str) -> bool:
    return reference.startswith("${file:") or looks_secret(reference.partition(":-")[0])


def _value(inside: str, environ: Mapping[str, str]) -> str:
    if inside.startswith("file:"):
        return _secret(Path(inside.removeprefix("file:")))
    match = _VARIABLE.fullmatch(inside)
    if match is None:
        raise ConfigError(
            f"'${{{inside}}}' is not understood: write ${{NAME}}, ${{NAME:-default}} or ${{file:/path}}"
        )
    return _variable(match["name"], match["default"], environ)


def _variable(name: str, default: str | None, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "")
    if value:
        return value
    if default is None:
        raise ConfigError(
            f"the environment variable {name} is not set: set it, or write ${{{name}:-default}}"
        )
    return default.removeprefix(":-")


def _secret(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_SECRET:
            raise ConfigError(f"the file {path} is larger than {_LARGEST_SECRET} bytes")
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"the file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the file {path} is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")
