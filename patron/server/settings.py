"""What a service asks of gunicorn, as gunicorn's settings."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

from patron.server import tls
from patron.service import Inspection

__all__ = ["gunicorn_settings", "safe_parser_installed"]

#: The parser in C is only safe from this version on: earlier ones take bare line feeds and folded headers.
_SAFE_PARSER = (0, 6, 14)


def gunicorn_settings(inspection: Inspection) -> dict[str, Any]:
    """Every setting that the service decides, by gunicorn's names."""
    return {
        "bind": [f"{_bracketed(inspection.host)}:{inspection.port}"],
        "workers": inspection.workers,
        "threads": inspection.threads,
        "worker_class": "patron.server.worker.PatronWorker",
        "worker_connections": inspection.max_connections,
        "backlog": inspection.backlog,
        "keepalive": math.ceil(inspection.keepalive),
        "limit_request_line": inspection.max_request_line,
        "limit_request_fields": inspection.max_header_fields,
        "limit_request_field_size": inspection.max_header,
        # The worker keeps the budget; the arbiter kills only what overslept it.
        "graceful_timeout": math.ceil(inspection.grace) + 5,
        "timeout": 30,
        "proc_name": inspection.name,
        # One fixed path per user: a second service would take it over, and delete it.
        "control_socket_disable": True,
        "http_parser": "auto" if safe_parser_installed() else "python",
        "accesslog": None,
        "errorlog": "-",
        "logger_class": "patron.server.logger.ServerLog",
        "loglevel": "warning",
        **(tls.gunicorn_settings(inspection.tls) if inspection.tls is not None else {}),
    }


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def safe_parser_installed() -> bool:
    """Whether the parser in C is there, in a version that is as strict as the one in Python."""
    try:
        version = importlib.metadata.version("gunicorn_h1c")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) >= _SAFE_PARSER
