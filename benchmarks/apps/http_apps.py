"""The applications that benchmarks/http.py compares; every one answers the same JSON."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flask import Blueprint, Flask, jsonify

from patron import HttpSettings, ProcessSettings, Request, Route, Service
from patron.http.caching.settings import RouteCache
from patron.observe.log import LogSettings
from patron.server.worker import PatronWorker
from patron.slots import Board, Slot

BODY = b'{"hello":"world"}'


def bare_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The least a WSGI application can do."""
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
    return [BODY]


bare_flask = Flask("bare")


@bare_flask.get("/hello/<name>")
def hello(name: str) -> Any:
    return jsonify(hello=name)


def processor(request: Request) -> dict[str, str]:
    return {"hello": request.fields["name"]}


blueprint = Blueprint("hello", __name__)
blueprint.get("/view/<name>")(hello)


def service() -> Service:
    """Everything on: correlation, metrics, unsampled trace, access log line to a file (standard error is one)."""
    redis = os.environ.get("BENCHMARK_REDIS")
    stores = {"/cached/<name>": "memory", **({"/redis/<name>": redis} if redis else {})}
    cached = [
        Route("GET", path, processor, cache=RouteCache(max=3600.0, store=store))
        for path, store in stores.items()
    ]
    return Service(
        "benchmark",
        routes=[Route("GET", "/hello/<name>", processor), *cached],
        blueprints=[blueprint],
        http=HttpSettings(host="127.0.0.1", port=int(os.environ.get("BENCHMARK_PORT", "50000"))),
        log=LogSettings(),
        process=ProcessSettings(workers=int(os.environ.get("BENCHMARK_WORKERS", "1"))),
    )


class BareWorker(PatronWorker):  # type: ignore[misc]
    """Patron's worker class with a bare WSGI application in it: the same reading of requests, nothing around them."""

    def _open(self) -> None:
        app = self.wsgi
        settings = HttpSettings()
        self.live = SimpleNamespace(  # type: ignore[assignment]
            service=SimpleNamespace(name="bare", process=ProcessSettings(grace=5.0), http=settings),
            start=lambda: None,
            started=_STARTED,
            begin_stop=lambda: None,
            stop=lambda deadline: None,
            working=lambda: False,
            close=lambda: lambda: True,
            in_flight=list,
            errors=list,
        )
        self.wsgi = app
        self.limit_requests(settings)

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """No hooks: there is no run to keep."""

    def init_process(self) -> None:
        self.patron_slot = 0
        from patron.server import run

        run._state = SimpleNamespace(  # type: ignore[assignment]
            board=_BOARD, metrics_directory=Path("/nonexistent")
        )
        super().init_process()


_STARTED = threading.Event()
_STARTED.set()
_BOARD = Board(1)
_SLOT = Slot(_BOARD, _BOARD.take())

if __name__ == "__main__":
    service().run()
