"""Reads YAML into nodes that know where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from patron.config.interpolation import fill
from patron.config.problems import Place, Problems
from patron.config.scalars import Scalar, scalar
from patron.errors import ConfigError

__all__ = ["Node", "join", "parse", "read"]

_LARGEST_FILE = 1 << 20
_MOST_VALUES = 50_000
_DEEPEST = 64

# The parser of libyaml where it is there; both are safe: only events are used, nothing is constructed.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True, eq=False)
class Node:
    """
    One value of the file.

    *text* is the literal text of a scalar, which counts where text is expected and the value came
    from a variable. A *broken* one was reported already and has no value. *size* counts the values
    inside, aliases expanded; *keys* has the places of the keys of a mapping.
    """

    value: Scalar | dict[str, Node] | list[Node]
    place: Place
    text: str | None = None
    references: tuple[str, ...] = ()
    secret: bool = False
    broken: bool = False
    size: int = 1
    keys: Mapping[str, Place] | None = None

    @property
    def spoken(self) -> bool:
        """Whether the value came from outside of the file, where nothing can be quoted."""
        return bool(self.references) or not self.place.line

    @property
    def origin(self) -> str:
        """Where the value came from, for people."""
        via = f" via {', '.join(self.references)}" if self.references else ""
        where = f"{self.place.origin}:{self.place.line}" if self.place.line else self.place.origin
        return where + via


def read(path: Path, environ: Mapping[str, str], problems: Problems) -> Node:
    """
    The configuration file *path*.

    Raises:
        ConfigError: it cannot be read, is too large or is not YAML with a mapping on top.
    """
    return parse(_text(path), str(path), environ, problems)


def parse(text: str, name: str, environ: Mapping[str, str], problems: Problems) -> Node:
    """The configuration in *text*; *name* stands for the file in messages. Raises as `read`."""
    try:
        node = _Reader(text, name, environ, problems).document()
    except yaml.reader.ReaderError as error:
        raise ConfigError(_unprintable(text, name) or _syntax(error, name)) from None
    except yaml.YAMLError as error:
        raise ConfigError(_syntax(error, name)) from None
    if node is None or node.value is None:
        raise ConfigError(f"{name}: the file is empty: it needs at least a 'name'")
    if not isinstance(node.value, dict):
        raise ConfigError(
            f"{node.place}: the top level must be a mapping with keys such as 'name', not a list or a word"
        )
    return node


def join(path: str, key: str | int) -> str:
    """The dotted path of *key* inside *path*."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _text(path: Path) -> str:
    if path.suffix == ".py":
        raise ConfigError(
            f"{path} is Python and no configuration: name the service in it, as {path.stem}:service"
        )
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(
            f"{path}: the configuration cannot be read: {error.strerror}: "
            "give a file, or a service in code as module:service"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read: {error.strerror}") from None
    if len(data) > _LARGEST_FILE:
        raise ConfigError(f"{path}: the configuration is larger than {_LARGEST_FILE} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: the file is not UTF-8: byte 0x{data[error.start]:02x}: save it as UTF-8"
        ) from None


class _Reader:
    """Turns the parser's events into nodes; one document, one use."""

    def __init__(self, text: str, name: str, environ: Mapping[str, str], problems: Problems) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self._name = name
        self._environ = environ
        self._problems = problems
        self._anchors: dict[str, Node] = {}

    def document(self) -> Node | None:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                node = self._node(next(self._events), "", 0)
                self._no_second_document()
                return node
        return None

    def _no_second_document(self) -> None:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                raise ConfigError(
                    f"{self._place(event)}: a second document starts here ('---'): one file holds one service"
                )

    def _node(self, event: Any, path: str, depth: int) -> Node:
        if depth > _DEEPEST:
            raise ConfigError(f"{self._place(event)}: values are nested more than {_DEEPEST} deep")
        node = self._make(event, path, depth)
        if node.size > _MOST_VALUES:
            raise ConfigError(
                f"{self._place(event)}: {path or 'the file'} expands to more than {_MOST_VALUES} values"
            )
        if event.anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._anchors[event.anchor] = node
        return node

    def _make(self, event: Any, path: str, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, path, depth)
        return self._scalar(event, path)

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise ConfigError(
                f"{self._place(event)}: the alias *{event.anchor} has no finished anchor before it"
            )
        return self._anchors[event.anchor]

    def _sequence(self, event: Any, path: str, depth: int) -> Node:
        self._plain_tag(event, path, "seq")
        items: list[Node] = []
        while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(inner, join(path, len(items)), depth + 1))
        return Node(items, self._place(event), size=1 + sum(item.size for item in items))

    def _mapping(self, event: Any, path: str, depth: int) -> Node:
        self._plain_tag(event, path, "map")
        values: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        merged: dict[str, Node] = {}
        while not isinstance(key_event := next(self._events), yaml.MappingEndEvent):
            key = self._key(key_event, path)
            node = self._node(next(self._events), join(path, key), depth + 1)
            if key == "<<" and not key_event.style:
                merged = self._merge(node, merged)
            elif key in values:
                self._problems.add(
                    self._place(key_event),
                    join(path, key),
                    f"the key is given twice, first in line {keys[key].line}",
                )
            else:
                values[key], keys[key] = node, self._place(key_event)
        values = {**merged, **values} if merged else values
        return Node(values, self._place(event), size=1 + sum(v.size for v in values.values()), keys=keys)

    def _key(self, event: Any, path: str) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise ConfigError(f"{self._place(event)}: {path or 'the file'} has a key that is not a word")
        return str(event.value)

    def _merge(self, node: Node, merged: dict[str, Node]) -> dict[str, Node]:
        """What ``<<`` brings; an earlier one wins."""
        parts = node.value if isinstance(node.value, list) else [node]
        for part in parts:
            if not isinstance(part.value, dict):
                raise ConfigError(f"{node.place}: '<<' merges mappings, not {part.text!r}")
            merged = {**part.value, **merged}
        return merged

    def _scalar(self, event: Any, path: str) -> Node:
        place = self._place(event)
        self._plain_tag(event, path, "str")
        try:
            filled = fill(event.value, self._environ)
        except ConfigError as error:
            self._problems.add(place, path, str(error))
            return Node(None, place, broken=True)
        if filled.secret:
            self._problems.hide(filled.text)
        value = scalar(filled.text) if not event.style and event.tag is None else filled.text
        return Node(value, place, filled.text, filled.references, filled.secret)

    def _plain_tag(self, event: Any, path: str, kind: str) -> None:
        if event.tag not in (None, "!", f"tag:yaml.org,2002:{kind}"):
            self._problems.add(
                self._place(event), path, f"the tag {event.tag} is not supported: write the plain value"
            )

    def _place(self, event: Any) -> Place:
        return Place(self._name, event.start_mark.line + 1, event.start_mark.column + 1)


def _syntax(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    what = " ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None)))) or str(
        error
    )
    return f"{where}: this is not YAML: {what}{_hint(what)}"


def _unprintable(text: str, name: str) -> str:
    """The first character that YAML does not allow; the parsers count its position each in its own way."""
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if found is None:
        return ""
    line = text.count("\n", 0, found.start()) + 1
    return (
        f"{name}:{line}: this is not YAML: the character U+{ord(found[0]):04X} must not stand in it: leave it out, "
        'or write it as an escape in double quotes ("\\x07")'
    )


def _hint(what: str) -> str:
    if "cannot start any token" in what:
        return " (YAML indents with spaces, not tabs; quote a value that starts with @, ` or %)"
    if "mapping values are not allowed" in what:
        return " (quote a value that contains ': ', and check the indentation)"
    if "did not find expected ',' or" in what:
        return " (inside { } and [ ], put ${...} in quotes)"
    return ""
