"""What the documentation shows runs as it stands, and what it points to is there."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import requests
import yaml

from patron.testing import Running, until

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def by_name(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=by_name)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a configuration file puts its directory there
    for block in blocks(page, "yaml")[:1]:
        Path("config.yaml").write_text(block)
    world = types.ModuleType("shop")  # what the configuration files of the pages call it
    monkeypatch.setitem(sys.modules, "shop", world)
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec", dont_inherit=True), world.__dict__)
    for test in [value for name, value in vars(world).items() if name.startswith("test_")]:
        test()


def test_the_service_of_the_readme_takes_an_order_and_processes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = {"__name__": "readme"}
    exec(compile(blocks(ROOT / "README.md", "python")[0], "README.md", "exec", dont_inherit=True), world)
    with Running(world["service"]) as running:
        answer = requests.post(f"{running.url}/orders/c1", timeout=5)
        assert (answer.status_code, answer.json()) == (201, {"status": "accepted"})
        said: list[str] = []
        until(lambda: said.append(capsys.readouterr().out) or "processing {'sku': 'A1'}" in "".join(said))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "yaml")], ids=by_name)
def test_the_yaml_of_a_page_has_only_keys_that_a_configuration_knows(page: Path) -> None:
    schema = subprocess.run(
        [sys.executable, "-m", "patron", "schema"], capture_output=True, text=True, check=True
    ).stdout
    known = set(yaml.safe_load(schema)["properties"])
    for block in blocks(page, "yaml"):
        assert set(yaml.safe_load(block)) <= known


def test_the_configuration_of_the_quick_start_is_right() -> None:
    config = str(ROOT / "examples" / "quickstart" / "config.yaml")
    command = [sys.executable, "-m", "patron", "check", config]  # a process of its own: it imports "shop"
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_what_a_page_links_to_in_the_repository_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_readme_names_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert [p.name for p in (ROOT / "docs").glob("*.md") if f"docs/{p.name}" not in text] == []


@pytest.mark.parametrize("block", blocks(ROOT / "README.md", "sh"), ids=range(5))
def test_the_commands_of_the_readme_are_shell(block: str) -> None:
    assert subprocess.run(["bash", "-n"], input=block, text=True, check=False).returncode == 0
