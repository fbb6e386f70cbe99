"""
What benchmarks/http.py compares Patron with: Flask with a cache, and Flask with everything wired by hand.

Both are put together as the documentation of each package shows it; needs benchmarks/requirements.txt.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import time
import uuid
from typing import Any

from flask import Flask, Response, g, jsonify, request


def cached() -> Flask:
    """Flask with flask-caching's SimpleCache, and nothing else."""
    app = Flask("cached")
    _cached_route(app)
    return app


def observed() -> Flask:
    """Flask with correlation, metrics by route, unsampled trace, and an access log line in JSON to standard error."""
    app = Flask("observed")
    for wire in (_correlation, _access_log, _metrics, _trace, _cached_route):
        wire(app)

    @app.get("/hello/<name>")
    def hello(name: str) -> Response:
        return jsonify(hello=name)

    return app


def _cached_route(app: Flask) -> None:
    from flask_caching import Cache

    cache = Cache(app, config={"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 3600})

    @app.get("/cached/<name>")
    @cache.cached()
    def kept(name: str) -> Response:
        return jsonify(hello=name)


correlation_id: contextvars.ContextVar[str] = contextvars.ContextVar("correlation_id", default="")


def _correlation(app: Flask) -> None:
    @app.before_request
    def take() -> None:
        correlation_id.set(request.headers.get("X-Correlation-Id") or str(uuid.uuid4()))

    @app.after_request
    def give(response: Response) -> Response:
        response.headers["X-Correlation-Id"] = correlation_id.get()
        return response


def _access_log(app: Flask) -> None:
    log = _json_logger()

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def write(response: Response) -> Response:
        log.info("request", extra=_fields(response))
        return response


def _json_logger() -> logging.Logger:
    from pythonjsonlogger.json import JsonFormatter

    handler = logging.StreamHandler(sys.stderr)
    names = {"levelname": "lvl", "asctime": "time", "message": "msg"}
    handler.setFormatter(JsonFormatter("%(levelname)s %(asctime)s %(message)s", rename_fields=names))
    log = logging.getLogger("access")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log


def _fields(response: Response) -> dict[str, Any]:
    return {
        "srv": "benchmark",
        "correlationID": correlation_id.get(),
        "route": request.url_rule.rule if request.url_rule else None,
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "duration": round(time.perf_counter() - g.began, 6),
        "bytes": response.content_length,
        "remote": request.remote_addr,
    }


def _metrics(app: Flask) -> None:
    from prometheus_flask_exporter import PrometheusMetrics

    PrometheusMetrics(app, group_by="url_rule")


def _trace(app: Flask) -> None:
    """Traces that others began and sampled go on; none begins here, as in Patron's defaults."""
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.0)))
    FlaskInstrumentor().instrument_app(app, tracer_provider=provider)
