"""Flame graphs: one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from patron.profiling.model import Profile
from patron.profiling.report import one_line, readable

__all__ = ["page"]


def page(profile: Profile, title: str, nonce: str) -> str:
    """
    *profile* as a flame graph: zoom by a click, search, tool tips.

    Args:
        title: what stands above it.
        nonce: of the style and the script, for a ``Content-Security-Policy`` that allows no other.
    """
    kind = profile.kinds[-1]
    data = {"unit": kind.unit, "nodes": _nodes(profile)}
    return _PAGE.format(
        title=html.escape(one_line(title)),
        total=html.escape(f"{kind.type}: {readable(profile.total(), kind.unit)}"),
        nonce=html.escape(nonce),
        style=_STYLE,
        script=_SCRIPT,
        # In a script element only "<" could end it.
        data=json.dumps(data).replace("<", "\\u003c"),
    )


def _nodes(profile: Profile) -> list[tuple[str, str, int, int]]:
    """Name, place, value and number of the parent of each node, the threads' names outermost."""
    root: list[Any] = ["all", "", 0, {}]
    for (stack, pairs), values in profile.samples.items():
        labels = dict(pairs)
        outer = [(f"worker {labels['worker']}", "")] if "worker" in labels else []
        outer += [(labels["thread"], "thread")] if "thread" in labels else []
        calls = [
            (frame.function, f"{frame.file}:{frame.start}" if frame.file else "") for frame in reversed(stack)
        ]
        _add(root, [*outer, *calls], values[-1])
    return list(_numbered(root))


def _add(node: list[Any], path: list[tuple[str, str]], value: int) -> None:
    node[2] += value
    for key in path:
        node = node[3].setdefault(key, [one_line(key[0]), one_line(key[1]), 0, {}])
        node[2] += value


def _numbered(root: list[Any]) -> Iterator[tuple[str, str, int, int]]:
    """The nodes, parents first, the largest first. Flat: stacks are deeper than JSON may be nested."""
    left: deque[tuple[list[Any], int]] = deque([(root, -1)])
    number = 0
    while left:
        (name, place, value, children), parent = left.popleft()
        yield name, place, value, parent
        left += [(child, number) for child in sorted(children.values(), key=lambda child: -child[2])]
        number += 1


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style nonce="{nonce}">{style}</style></head>
<body><header><h1>{title}</h1><p>{total}. Click a call to zoom in, "all" to zoom out.
<label>Search <input id="search" type="search" autocomplete="off"></label> <span id="found"></span></p></header>
<main id="graph"></main><footer id="detail"></footer>
<script type="application/json" id="data">{data}</script>
<script nonce="{nonce}">{script}</script></body></html>
"""

_STYLE = """
:root { color-scheme: light dark; font: 13px system-ui, sans-serif; }
body { margin: 0 8px 3em; }
h1 { font-size: 1.2em; margin: .5em 0 0; overflow-wrap: anywhere; }
#graph { position: relative; }
#graph div { position: absolute; height: 17px; box-sizing: border-box; overflow: hidden; white-space: nowrap;
  line-height: 17px; padding: 0 2px; font-size: 11px; cursor: pointer; color: #111; border-radius: 2px;
  border-right: 1px solid Canvas; border-bottom: 1px solid Canvas; }
#graph div:hover { filter: brightness(1.15); }
#graph div.found { background: #c050e0 !important; color: #fff; }
#graph div.outer { opacity: .55; }
footer { position: fixed; bottom: 0; left: 0; right: 0; padding: 4px 8px; min-height: 1.4em; background: Canvas;
  border-top: 1px solid GrayText; overflow-wrap: anywhere; }
"""

_SCRIPT = r"""
"use strict";
const {unit, nodes} = JSON.parse(document.getElementById("data").textContent);
const graph = document.getElementById("graph"), detail = document.getElementById("detail");
const search = document.getElementById("search"), found = document.getElementById("found");
const parents = new Map(), all = nodes.map(([name, place, value]) => [name, place, value, []]);
all.forEach((node, number) => {
  if (number === 0) return;
  const parent = all[nodes[number][3]];
  parent[3].push(node);
  parents.set(node, parent);
});
const root = all[0];
let zoomed = root;

function amount(value) {
  const steps = {nanoseconds: [[1e9, "s"], [1e6, "ms"], [1e3, "us"], [1, "ns"]],
    bytes: [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [1024, "KiB"], [1, "B"]]}[unit];
  if (!steps) return String(value);
  const [factor, name] = steps.find(step => value >= step[0]) || steps[steps.length - 1];
  return (value / factor).toFixed(factor > 1 ? 2 : 0) + " " + name;
}
function percent(value, whole) { return (whole ? 100 * value / whole : 0).toFixed(2) + "%"; }
function colour(name) {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return `hsl(${hash % 55} ${70 + hash % 20}% ${62 + hash % 12}%)`;
}
function told(node) {
  const own = node[2] - node[3].reduce((sum, child) => sum + child[2], 0);
  return `${node[0]}  ${node[1]}\n${amount(node[2])}, ${percent(node[2], root[2])} of all` +
    `, ${percent(node[2], zoomed[2])} of what is shown; itself ${amount(own)}`;
}
function matches(node) {
  const word = search.value.toLowerCase();
  return word !== "" && (node[0] + " " + node[1]).toLowerCase().includes(word);
}
function box(node, depth, left, width, outer) {
  const element = document.createElement("div");
  element.textContent = node[0];
  element.title = told(node);
  element.style.left = left + "%";
  element.style.width = width + "%";
  element.style.top = depth * 18 + "px";
  element.style.background = colour(node[0]);
  if (outer) element.className = "outer";
  if (matches(node)) element.classList.add("found");
  element.onclick = () => { zoomed = node; draw(); };
  element.onmouseenter = () => { detail.textContent = told(node); };
  return element;
}
function draw() {
  const outer = [], boxes = [];
  for (let node = parents.get(zoomed); node; node = parents.get(node)) outer.unshift(node);
  outer.forEach((node, depth) => boxes.push(box(node, depth, 0, 100, true)));
  let deepest = 0;
  for (const left = [[zoomed, outer.length, 0, 100]]; left.length;) {
    const [node, depth, from, width] = left.pop();
    if (width < 0.05) continue;
    deepest = Math.max(deepest, depth);
    boxes.push(box(node, depth, from, width, false));
    let at = from;
    for (const child of node[3]) {
      const part = node[2] ? width * child[2] / node[2] : 0;
      left.push([child, depth + 1, at, part]);
      at += part;
    }
  }
  graph.replaceChildren(...boxes);
  graph.style.height = (deepest + 1) * 18 + "px";
  count();
}
function count() {
  let sum = 0;
  if (search.value) for (const left = [zoomed]; left.length;) {
    const node = left.pop();
    if (matches(node)) sum += node[2]; else left.push(...node[3]);
  }
  found.textContent = search.value ? `${percent(sum, zoomed[2])} of what is shown` : "";
}
search.oninput = draw;
draw();
"""
