"""The floors of docs/architecture.md hold: a module imports downwards, and drivers stay in their files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "patron"

#: The first path component below patron/ → its floor. A name that is missing here fails the test.
FLOORS = {
    "errors": 0,
    "_version": 0,
    "calling": 0,
    "reasons": 0,
    "varint": 0,
    "aws": 1,
    "component": 1,
    "correlation": 1,
    "encoding": 1,
    "extras": 1,
    "kafka": 1,
    "secured": 1,
    "resources": 1,
    "sections": 1,
    "slots": 1,
    "reliability": 1,
    "observe": 2,
    "cache": 2,
    "health": 2,
    "profiling": 2,
    "consumer": 3,
    "periodic": 3,
    "supervisor": 3,
    "sources": 4,
    "http": 4,
    "grpc": 4,
    "clients": 4,
    "live": 5,
    "service": 5,
    "alone": 6,
    "config": 6,
    "server": 7,
    "gunicorn": 7,
    "wsgi": 7,
    "flask": 7,
    "testing": 7,
    "cli": 8,
    "__main__": 8,
}

#: Same-floor imports that the design allows: (who, whom).
SIDEWAYS = {
    ("component", "errors"),
    ("kafka", "secured"),
    ("sections", "component"),
    ("cache", "observe"),
    ("service", "live"),
    ("gunicorn", "server"),
    ("wsgi", "server"),
    ("testing", "server"),
    ("__main__", "cli"),
}

#: Driver → the modules that may import it.
DRIVERS = {
    "sqlite3": {"sources"},
    "apsw": {"sources"},
    "jaeger_client": {"observe"},
    "opentracing": {"observe"},
    "prometheus_client": {"observe"},
    "pythonjsonlogger": {"observe"},
    "gunicorn": {"server"},
    "kafka": {"sources", "clients"},
    "pika": {"sources", "clients"},
    "boto3": {"sources", "clients"},
    "cronsim": {"periodic"},
    "redis": {"cache", "clients"},
    "cachetools": {"cache"},
    "pytest": {"testing"},
}


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def unit(path: Path) -> str:
    """The name that stands in the table of floors for the module at *path*."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that *path* imports, anywhere in it, type-checking blocks left out, with the line."""
    tree = ast.parse(path.read_text())
    skipped = {id(n) for block in ast.walk(tree) if _is_type_checking(block) for n in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module or ""
            if module == "patron":
                yield from ((f"patron.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_lower_floors(path: Path) -> None:
    here = unit(path)
    assert here in FLOORS, f"{here} stands on no floor: add it to the table and to docs/architecture.md"
    wrong = []
    for name, line in imports(path):
        if not name.startswith("patron."):
            continue
        there = name.split(".")[1]
        if there == here:
            continue
        assert there in FLOORS, f"{path}:{line}: {name} stands on no floor"
        below = FLOORS[there] < FLOORS[here]
        if not below and (here, there) not in SIDEWAYS and not _lazy_door(here, there):
            wrong.append(
                f"{path.name}:{line} imports {name} (floor {FLOORS[there]}) from floor {FLOORS[here]}"
            )
    assert not wrong, "\n".join(wrong)


def _lazy_door(here: str, there: str) -> bool:
    """`Service.run` is a door to the floor above, for the user's convenience, opened when it is called."""
    return (here, there) == ("service", "server")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_driver_is_imported_only_where_it_is_adapted(path: Path) -> None:
    here = unit(path)
    for name, line in imports(path):
        driver = name.split(".")[0]
        allowed = DRIVERS.get(driver)
        assert allowed is None or here in allowed, (
            f"{path}:{line} imports {driver}, which belongs in {allowed}"
        )


def test_the_package_itself_imports_no_module_of_its_own() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    found = [n for n in tree.body if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("patron.")]
    assert [n.module for n in found] in ([], ["patron._version"])


def test_the_typical_function_is_short() -> None:
    """The median function of the package has a body of at most five lines."""
    lengths = sorted(
        _body_lines(node)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 5


def _body_lines(function: ast.FunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1
