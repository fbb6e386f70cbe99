"""The guest book passes its own tests, and is served as its first page says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent.parent / "examples" / "flask"


def test_the_guest_book_passes_its_own_tests(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    command += [f"--rootdir={FOLDER}", str(FOLDER / "tests")]
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PATRON_"))}
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**variables, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.server
@pytest.mark.parametrize("server", ["flask", "patron"])
def test_the_guest_book_is_served(server: str, shop: Any) -> None:
    options = {
        "flask": ["flask", "--app", "guestbook", "run", "-p", str(shop.port)],
        "patron": ["gunicorn", "-c", "python:patron.gunicorn", "guestbook:create_app(cleaned=True)"],
    }
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    shop.start(sys.executable, "-m", *options[server], env={"PYTHONPATH": path})
    form = {"Content_Type": "application/x-www-form-urlencoded", "X_Correlation_Id": "e1"}
    answer = shop.request("POST", "/entries", b"text=hello", **form)
    assert (answer.status, answer.getheader("X-Correlation-Id")) == (201, "e1")
    assert shop.json("/entries") == {"entries": ["hello"]}
    assert shop.request("POST", "/entries", b"text=" + b"x" * 20_000, **form).status == 413
    assert b'path="/entries",status_code="201"' in shop.get("/metrics").body
    running = [each["name"] for each in shop.json("/debug/components")["components"]]
    assert running == (["clean"] if server == "patron" else [])
    shop.signal(signal.SIGTERM)
    assert shop.wait() == (0 if server == "patron" else -signal.SIGTERM)
