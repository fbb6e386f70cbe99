"""Where a mistake is that a settings class has found: at the key, or the value, that its message names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

from patron.config.document import Node, join
from patron.config.problems import Place

__all__ = ["placed"]


def placed(text: str, node: Node, path: str, known: Set[str]) -> tuple[Place, str, str]:
    """
    The place and the path of what *text* is about, and what it says of it.

    *text* was said of *node*, at *path*, whose keys are *known*; where it names none of them and no value, it
    stays there.
    """
    given = node.value if isinstance(node.value, dict) else {}
    text = _without_label(text, path)
    key, rest = _about(text, known)
    if not key and (word := re.match(r"\w+(?= )", text)) and word[0] in known & given.keys():
        key, rest = word[0], text[word.end() + 1 :]
    if key:
        return (given.get(key) or node).place, join(path, key), rest
    return (*_of_quoted(text, node, path), text)


def _about(text: str, known: Set[str]) -> tuple[str, str]:
    """The key that a message such as ``retry: attempts is 0: use ...`` is about, and what it says of it."""
    label, colon, rest = text.partition(": ")
    if colon and label in known:
        return label, rest
    if colon and re.fullmatch(r"\w+( \w+)?", label) and (inner := _about(rest, known))[0]:
        return inner  # the label names the whole, and may have a word in it that is also a key
    before, verb, _ = text.partition(" is ")
    for match in re.finditer(r"\w+", before if verb else ""):
        if match[0] in known and len(before.split()) <= 3:
            return match[0], text[match.end() :].lstrip(" :")
    return "", text


def _without_label(text: str, path: str) -> str:
    """*text* without the name of the settings in front of it: *path* says the same, and the place of a route more."""
    label, colon, rest = text.partition(": ")
    same = label.replace(" ", "_") == path.rpartition(".")[2] or re.fullmatch(r"route \S* \S*", label)
    return rest if colon and same else text


def _of_quoted(text: str, node: Node, path: str) -> tuple[Place, str]:
    """The only value inside of *node* that *text* quotes; *node* itself, if there is none or several."""
    quoted = re.search(r"'([^']*)'", text)
    found = list(_standing(quoted[1], node, path)) if quoted else []
    return found[0] if len(found) == 1 else (node.place, path)


def _standing(word: str, node: Node, path: str) -> Iterator[tuple[Place, str]]:
    """Where *word* stands inside of *node*, as a key or as a value."""
    if isinstance(node.value, dict):
        for key, inner in node.value.items():
            if key == word:
                yield (node.keys or {}).get(key, inner.place), join(path, key)
            yield from _standing(word, inner, join(path, key))
    elif isinstance(node.value, list):
        for number, inner in enumerate(node.value):
            yield from _standing(word, inner, join(path, number))
    elif node.text == word:
        yield node.place, path
