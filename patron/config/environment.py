"""The ``PATRON_*`` variables, which win over the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from patron.config.document import Node, join
from patron.config.layout import sections
from patron.config.names import nearest
from patron.config.problems import Place, Problems
from patron.config.scalars import scalar
from patron.config.shapes import Either, Shape, kind
from patron.http.settings import status_list

__all__ = ["NOT_SETTINGS", "overlay", "variables"]

#: Variables that steer Patron and are no keys of the file.
NOT_SETTINGS: Mapping[str, str] = {
    "PATRON_CONFIG": "the file, for the commands that are not given one and for patron.gunicorn",
    "PATRON_DEBUG": "1: the command line shows the traceback of a bug",
}

_OF_TESTS = "PATRON_TEST_"
"""What begins so tells the tests what there is (``PATRON_TEST_REQUIRE``), and is nobody's mistake."""

# The names that the original gave; they stand for the regular ones.
_ORIGINAL = {
    "http.port": "PATRON_HTTP_DEFAULT_PORT",
    "trace.agent_host": "PATRON_JAEGER_AGENT_HOST",
    "trace.agent_port": "PATRON_JAEGER_AGENT_PORT",
    "trace.sampler_type": "PATRON_JAEGER_SAMPLER_TYPE",
    "trace.sampler_param": "PATRON_JAEGER_SAMPLER_PARAM",
}
# Lists that a variable can say, too, and what reads its text.
_LISTS: Mapping[str, tuple[str, Callable[[str], tuple[str, ...]]]] = {
    "PATRON_HTTP_STATUS_ERROR_LOGGING": ("http.log_bodies", status_list)
}
# A service is named where its code is, not where it is started.
_FILE_ONLY = frozenset(("name", "version"))


def variables(shape: Shape) -> dict[str, str]:
    """Each variable with the dotted path of the key that it sets: single values outside of lists, and `_LISTS`."""
    named = {**_ORIGINAL, **_named_by_sections()}
    paths = (path for path in _paths(shape, "") if path not in _FILE_ONLY)
    single = {named.get(path) or _regular(path): path for path in paths}
    return {**single, **{variable: path for variable, (path, _) in _LISTS.items()}}


def _regular(path: str) -> str:
    return f"PATRON_{path.upper().replace('.', '_')}"


def _named_by_sections() -> dict[str, str]:
    return {join(section.name, key): variable for section in sections() for variable, key in section.env}


def _paths(shape: Shape, prefix: str) -> Iterator[str]:
    for field in shape.fields:
        path = join(prefix, field.name)
        asked = kind(field.type)
        if asked is None and not _is_free(field.type):
            yield path
        elif isinstance(asked, Shape) and not isinstance(field.type, Either):
            yield from _paths(asked, path)


def _is_free(annotation: object) -> bool:
    return "Mapping" in str(annotation) or "dict" in str(annotation) or "Any" in str(annotation)


def overlay(root: Node, environ: Mapping[str, str], shape: Shape, problems: Problems) -> None:
    """Put the variables of *environ* over what *root* says; an empty one counts as absent."""
    known = variables(shape)
    for variable in sorted(name for name in environ if name.startswith("PATRON_")):
        path, text = known.get(variable), environ[variable].strip()
        if path is None and variable not in NOT_SETTINGS and not variable.startswith(_OF_TESTS):
            message = f"Patron has no such variable{_hint(variable, known)}; it is ignored"
            problems.warn(Place(variable), variable, message)
        elif path is not None and text:
            _put(root, path.split("."), _node(variable, path, text, problems))


def _node(variable: str, path: str, text: str, problems: Problems) -> Node:
    place = Place(variable)
    if variable not in _LISTS:
        return Node(scalar(text), place, text)
    try:
        return Node([Node(item, place, item) for item in _LISTS[variable][1](text)], place)
    except ValueError as error:
        problems.add(place, path, str(error))
        return Node(None, place, broken=True)


def _hint(variable: str, known: Mapping[str, str]) -> str:
    """Which one was probably meant: looked for by the regular names of the keys too."""
    candidates = {_regular(path): name for name, path in known.items()}
    candidates |= {name: name for name in (*known, *NOT_SETTINGS)}
    # Without what all of them begin with, or any two names would be near to each other.
    short = {name.removeprefix("PATRON_"): meant for name, meant in candidates.items()}
    match = nearest(variable.removeprefix("PATRON_"), short, cutoff=0.75)
    return f" (did you mean {short[match]!r}?)" if match else ""


def _put(node: Node, keys: list[str], value: Node) -> None:
    for key in keys[:-1]:
        if not isinstance(node.value, dict):
            return
        inner = node.value.get(key)
        if inner is None or inner.value is None:
            inner = node.value[key] = Node({}, value.place)
        node = inner
    if isinstance(node.value, dict):
        node.value[keys[-1]] = value
