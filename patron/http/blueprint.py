"""The admin routes alone, as a Flask blueprint: for an application that wants no instrumentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import flask
from flask.sansio.blueprints import BlueprintSetupState

from patron.component import Verdict
from patron.errors import HTTPError
from patron.health import Check, Checks
from patron.http import failure
from patron.http.admin import endpoints
from patron.http.auth import Authenticator
from patron.http.router import Endpoint
from patron.http.settings import HttpSettings

__all__ = ["patron_blueprint"]


def patron_blueprint(
    name: str = "patron",
    *,
    url_prefix: str | None = None,
    version: str = "dev",
    alive_check: Check | None = None,
    ready_checks: Mapping[str, Check] | None = None,
    debug_authenticator: Authenticator | None = None,
    http: HttpSettings | None = None,
) -> flask.Blueprint:
    """
    A blueprint with the admin routes: ``/alive``, ``/ready``, ``/metrics`` and ``/debug``.

    They are views of the application like any other: its hooks run for them.

    Args:
        name: of the blueprint.
        url_prefix: what their paths begin with; registering the blueprint may set it too.
        version: what ``/debug/components`` says.
        alive_check: called by ``/alive``; *ready_checks* (name → check) by ``/ready``. One that returns
            False, raises or hangs makes it a 503.
        debug_authenticator: who may see ``/debug``, wherever the request comes from.
        http: its ``admin`` and ``debug`` say what is open to whom; the rest is not used.
    """
    blueprint = flask.Blueprint(name, __name__, url_prefix=url_prefix)
    admin = _Checked(alive_check, ready_checks or {})

    def register(state: BlueprintSetupState) -> None:
        prefix = (state.url_prefix or "").rstrip("/")
        settings = replace(http or HttpSettings(), admin_prefix=prefix)
        pages = endpoints(
            settings, admin, name=state.app.name, version=version, debug_authenticator=debug_authenticator
        )
        for path, page in pages.items():
            rule = path.removeprefix(prefix)
            state.add_url_rule(rule, _endpoint(rule), _view(page), methods=["GET"])

    blueprint.record(register)
    return blueprint


class _Checked:
    """What the admin routes ask, where there is no service."""

    def __init__(self, alive: Check | None, ready: Mapping[str, Check]) -> None:
        self._alive = Checks({"alive": alive} if alive else {})
        self._ready = Checks(ready)

    def alive(self) -> Verdict:
        return self._alive.verdict()

    def ready(self) -> Verdict:
        return self._ready.verdict()

    def components(self) -> Sequence[Mapping[str, Any]]:
        return ()


def _endpoint(rule: str) -> str:
    return rule.strip("/").replace("/", "_") + ("_index" if rule.endswith("/") else "")


def _view(page: Endpoint) -> Callable[[], Any]:
    def view() -> Any:
        environ = flask.request.environ
        try:
            return flask.Response.from_app(page.application, environ, buffered=True)
        except HTTPError as error:
            made = failure.render(error.status, error.payload, error.headers.items(), environ)
            return flask.Response(made.body, made.status, made.headers)

    return view
