"""What is public is what the lists say, and every listed name is there."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import patron

ROOT = Path(patron.__file__).parent
#: Modules that do their work when imported, or end the process.
ACTIVE = {"patron.gunicorn", "patron.__main__"}


def public_modules() -> list[str]:
    names = (m.name for m in pkgutil.walk_packages([str(ROOT)], "patron."))
    return sorted(
        n for n in names if n not in ACTIVE and not any(part.startswith("_") for part in n.split("."))
    )


@pytest.mark.parametrize("name", patron.__all__)
def test_every_public_name_can_be_imported_from_the_package(name: str) -> None:
    assert getattr(patron, name) is not None


@pytest.mark.parametrize("name", public_modules())
def test_a_module_lists_what_it_has_and_has_what_it_lists(name: str) -> None:
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", None)
    assert listed is not None or _is_empty(Path(str(module.__file__))), f"{name} has no __all__"
    assert [n for n in listed or () if not hasattr(module, n)] == []


def _is_empty(path: Path) -> bool:
    """Whether a module has nothing but a docstring."""
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"Servise.*Service"):
        patron.Servise


def test_importing_the_package_loads_no_driver_and_no_framework() -> None:
    code = "import sys, patron; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = ast.literal_eval(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    )
    heavy = {
        "flask",
        "gunicorn",
        "prometheus_client",
        "pydantic",
        "yaml",
        "sqlite3",
        "apsw",
        "jaeger_client",
        "logging",
    }
    assert heavy & set(loaded) == set()
