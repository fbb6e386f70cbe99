"""Names that a configuration mentions: the nearest known one, and what ``module:attribute`` stands for."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from patron.errors import ConfigError

__all__ = ["REFERENCE", "did_you_mean", "importable_from", "nearest", "raised_at", "resolve"]

REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name among *known* that *word* was probably meant to be, or None; *cutoff* is how near it must be."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to a message; empty when nothing is near."""
    match = nearest(word, known)
    return f" (did you mean {match!r}?)" if match else ""


def resolve(reference: str) -> Any:
    """
    What ``module:attribute`` names; it imports the module.

    Raises:
        ConfigError: it is not of that form, the module does not import, or it has no such attribute.
    """
    if not REFERENCE.fullmatch(reference):
        raise ConfigError(
            f"{reference!r} is not of the form 'module:attribute', for example 'shop.api:create'"
        )
    module, _, attribute = reference.partition(":")
    return _attribute(_module(module), attribute, reference)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(_import_failed(name, error)) from error
        raise ConfigError(
            f"there is no module {name!r}{did_you_mean(name, _modules_beside(name))}"
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A module of the user may do anything when imported, call sys.exit() too.
        raise ConfigError(_import_failed(name, error)) from error


def _attribute(module: Any, attribute: str, reference: str) -> Any:
    found = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            hint = did_you_mean(part, (name for name in dir(found) if not name.startswith("_")))
            raise ConfigError(f"{reference!r}: {_called(found)} has no attribute {part!r}{hint}") from None
    return found


def _called(value: Any) -> str:
    name = getattr(value, "__name__", type(value).__name__)
    return f"module {name!r}" if isinstance(value, type(sys)) else repr(name)


def _import_failed(name: str, error: BaseException) -> str:
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"module {name!r} does not import: {what}{raised_at(error)}"


def raised_at(error: BaseException) -> str:
    """Where in somebody's code *error* was raised, to append to a message; empty when that is not known."""
    if isinstance(error, SyntaxError):
        return ""
    own = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if "importlib" not in f.filename and f.filename != __file__
    ]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _modules_beside(name: str) -> Iterator[str]:
    """The names of the modules in the package, or on the path, where *name* was looked for."""
    parent, dot, _ = name.rpartition(".")
    package = sys.modules.get(parent)
    where: Sequence[str] | None = list(getattr(package, "__path__", [])) if dot else sys.path[:1]
    return (f"{parent}{dot}{module.name}" for module in pkgutil.iter_modules(where))


def importable_from(directory: Path) -> None:
    """Let the modules beside the configuration file be imported first, then those of the working directory."""
    first = [str(directory.resolve()), os.getcwd()]
    sys.path[:] = [*dict.fromkeys(first), *(place for place in sys.path if place not in first)]
