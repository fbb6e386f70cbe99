"""A service that is described in code obeys the variables in every way of running it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

MODULE = """
from patron import HttpSettings, ProcessSettings, Service

service = Service("shop", "1.4.0", http=HttpSettings(port=1), process=ProcessSettings(workers=1))
if __name__ == "__main__":
    service.run()
"""


def by_run(service: Any, **environ: str) -> None:
    service.start(sys.executable, "shop.py", env=environ)


def by_patron_run(service: Any, **environ: str) -> None:
    service.start(sys.executable, "-m", "patron", "run", "shop:service", env=environ)


def by_gunicorn(service: Any, **environ: str) -> None:
    service.start_gunicorn(env={"PATRON_CONFIG": "shop:service", **environ})


@pytest.mark.parametrize("start", [by_run, by_patron_run, by_gunicorn])
def test_variables_win_over_the_code_and_unknown_ones_are_warned_of(
    service: Any, start: Callable[..., None]
) -> None:
    service.write(MODULE, "")
    # Port 1 is nobody's to listen on here; the harness asks on the one of PATRON_HTTP_DEFAULT_PORT.
    start(service, PATRON_WORKERS="2", PATRON_LOG_FORMAT="console", PATRON_WORKRES="3")
    service.until(lambda: len(service.workers()) == 2)
    assert "(did you mean 'PATRON_WORKERS'?)" in service.output()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
