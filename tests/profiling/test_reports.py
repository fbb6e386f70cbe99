"""Profiles can be read: as text, as folded stacks, and as a flame graph in one page."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess

import pytest

from patron.profiling import Frame, Kind, Profile, flame, report

CPU = (Kind("samples", "count"), Kind("cpu", "nanoseconds"))
MAIN, BUSY = Frame("shop.main", "/srv/shop.py", 12, 10), Frame("shop.busy", "/srv/shop.py", 34, 30)
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\n\u202e;x"


def profile(*samples):
    made = Profile(CPU, 1_700_000_000_000_000_000, 2_000_000_000, comments=["service shop"])
    for stack, thread, value in samples:
        made.add(stack, [value // 10_000_000, value], thread=thread)
    return made


def test_the_text_has_the_functions_by_what_they_take():
    made = profile(([BUSY, BUSY, MAIN], "a", 1_500_000_000), ([MAIN], "a", 500_000_000))
    text = "".join(report.text(made))
    assert text.startswith("cpu: 2.00 s in 2.00 s, 200 samples\n")
    assert "service shop\n" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["1.50", "s", "75.00%", "75.00%", "1.50", "s", "75.00%", "shop.busy", "/srv/shop.py"] in rows
    assert ["500.00", "ms", "25.00%", "100.00%", "2.00", "s", "100.00%", "shop.main", "/srv/shop.py"] in rows
    assert "shop.busy  /srv/shop.py:34" in text


def test_a_profile_of_nothing_is_readable_too():
    text = "".join(report.text(profile()))
    assert text.startswith("cpu: 0 ns in 2.00 s, 0 samples")
    assert "".join(report.collapsed(profile())) == ""
    assert "cpu: 0 ns" in flame.page(profile(), "shop", "n")


def test_a_long_profile_is_cut():
    made = profile(*[([Frame(f"f{n}", "", 1, 1)] * 50, "a", 10**7) for n in range(60)])
    text = "".join(report.text(made))
    assert "... and 20 more functions\n" in text
    assert text.count("... 20 more\n") == 10


def test_folded_stacks_have_one_line_each():
    made = profile(([BUSY, MAIN], "a", 3), ([Frame("new line\n;semi"), MAIN], "b;c", 4), ([MAIN], "a", 0))
    assert list(report.collapsed(made)) == ["a;shop.main;shop.busy 3\n", "b,c;shop.main;new line�,semi 4\n"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "bytes", "0 B"),
        (1023, "bytes", "1023 B"),
        (1536, "bytes", "1.50 KiB"),
        (3 * 2**30, "bytes", "3.00 GiB"),
        (1_500_000, "nanoseconds", "1.50 ms"),
        (7, "count", "7"),
    ],
)
def test_numbers_have_units(value, unit, text):
    assert report.readable(value, unit) == text


# ------------------------------------------------------------------ the flame graph


class Page(html.parser.HTMLParser):
    """The elements of a page, and what stands in its scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts = [], {}
        self._inside = None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self._inside = dict(attributes).get("type", "code")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside:
            self.scripts[self._inside] = data


def tree(page):
    """The nodes as nested lists."""
    nodes = json.loads(Page(page).scripts["application/json"])["nodes"]
    nested = [[name, place, value, []] for name, place, value, _ in nodes]
    for node, (_, _, _, parent) in zip(nested[1:], nodes[1:], strict=True):
        nested[parent][3].append(node)
    return nested[0]


def test_the_flame_graph_nests_the_calls_below_their_threads():
    made = profile(([BUSY, MAIN], "a", 30), ([MAIN], "a", 10), ([MAIN], "b", 2))
    root = tree(flame.page(made, "shop", "n"))
    assert root[:3] == ["all", "", 42]
    assert [(name, value) for name, _, value, _ in root[3]] == [("a", 40), ("b", 2)]
    main = root[3][0][3][0]
    assert main[:3] == ["shop.main", "/srv/shop.py:10", 40]
    assert main[3] == [["shop.busy", "/srv/shop.py:30", 30, []]]


def test_no_name_can_break_out_of_the_page():
    made = profile(([Frame(HOSTILE, HOSTILE, 1, 1)], HOSTILE, 5))
    page = flame.page(made, HOSTILE, "abc")
    plain = flame.page(profile(([BUSY], "a", 5)), "shop", "abc")
    assert [tag for tag, _ in Page(page).tags] == [tag for tag, _ in Page(plain).tags]
    assert tree(page)[3][0][3][0][0] == report.one_line(HOSTILE)
    assert "\u202e" not in page


def test_the_page_needs_nothing_from_elsewhere():
    page = flame.page(profile(([BUSY], "a", 5)), "shop", "abc")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)
    assert all(not {"src", "href"} & set(attributes) for _, attributes in Page(page).tags)
    styled = [attributes.get("nonce") for tag, attributes in Page(page).tags if tag in ("style", "script")]
    assert styled == ["abc", None, "abc"]  # the data is no code
    assert "innerHTML" not in page


def test_a_stack_of_a_thousand_calls_is_drawn():
    made = profile(([Frame(f"f{n}") for n in range(1001)], "deep", 5))
    nodes = json.loads(Page(flame.page(made, "shop", "n")).scripts["application/json"])["nodes"]
    assert nodes[-1] == ["f0", "", 5, 1001]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, to run the page's script")
def test_the_script_of_the_page_draws_zooms_and_searches(tmp_path):
    made = profile(([BUSY, MAIN], "a", 30_000_000), ([MAIN], "b", 10_000_000))
    page = Page(flame.page(made, "shop", "n"))
    stub = """
        const elements = {};
        class Element {
          constructor() { this.style = {}; this.children = []; this.classes = new Set();
            this.classList = {add: name => this.classes.add(name)}; this.value = ""; this.textContent = ""; }
          replaceChildren(...children) { this.children = children; }
        }
        const document = {getElementById: id => elements[id] ??= new Element(), createElement: () => new Element()};
        document.getElementById("data").textContent = process.argv[2];
    """
    check = """
        const drawn = () => elements.graph.children.map(box => box.textContent + " " + box.style.width);
        const said = [drawn()];
        elements.graph.children.find(box => box.textContent === "shop.busy").onclick();
        said.push(drawn());
        elements.graph.children[0].onclick();
        elements.search.value = "BUSY";
        elements.search.oninput();
        said.push([elements.found.textContent, elements.graph.children.filter(b => b.classes.has("found")).length]);
        elements.graph.children[0].onmouseenter();
        said.push(elements.detail.textContent);
        console.log(JSON.stringify(said));
    """
    script = tmp_path / "page.js"
    script.write_text(stub + page.scripts["code"].replace('"use strict";', "") + check)
    command = ["node", script, page.scripts["application/json"]]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    first, zoomed, found, detail = json.loads(ran.stdout)
    assert sorted(first) == ["a 75%", "all 100%", "b 25%", "shop.busy 75%", "shop.main 25%", "shop.main 75%"]
    assert zoomed == ["all 100%", "a 100%", "shop.main 100%", "shop.busy 100%"]
    assert found == ["75.00% of what is shown", 1]
    assert detail.startswith("all  \n40.00 ms, 100.00% of all")
