"""A folder of its own for each configuration, and an interpreter that forgets what was imported from it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from patron.config import Configuration, load
from patron.errors import ConfigError


@pytest.fixture(autouse=True)
def _modules_are_forgotten(tmp_path: Path) -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    sys.path_importer_cache.pop(str(tmp_path), None)


class World:
    """A configuration file and the modules beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "config.yaml"

    def module(self, name: str, code: str) -> None:
        sys.modules.pop(name, None)  # of another test's folder
        path = self.directory / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(textwrap.dedent(code))

    def load(self, text: str, environ: Mapping[str, str] | None = None) -> Configuration:
        self.path.write_text(textwrap.dedent(text))
        return load(self.path, environ or {})

    def problems(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """What is wrong with *text*, without the name of the folder."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, environ)
        return [problem.replace(f"{self.directory}/", "") for problem in caught.value.problems]

    def problem(self, text: str, environ: Mapping[str, str] | None = None) -> str:
        """The only thing that is wrong with *text*."""
        found = self.problems(text, environ)
        assert len(found) == 1, found
        return found[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
