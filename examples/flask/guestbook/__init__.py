"""
A guest book: a Flask application that was there before Patron, and the six lines that plug it in.

As every Flask application runs, with metrics, correlation ids and health beside its own pages::

    flask --app guestbook run                     # in examples/flask; or waitress, or your own gunicorn
    curl -i -d text=hello localhost:5000/entries
    curl localhost:5000/entries
    curl localhost:5000/metrics

And as a service, whose periodic component cleans up in the same process::

    gunicorn -c python:patron.gunicorn 'guestbook:create_app(cleaned=True)'
    curl localhost:50000/debug/components
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flask

from guestbook import entries
from guestbook.book import Book, open_book
from patron import Patron, Periodic

__all__ = ["create_app"]


def create_app(config: dict[str, Any] | None = None, cleaned: bool = False) -> flask.Flask:
    """The application; *cleaned* makes it a service that forgets old entries."""
    app = flask.Flask(__name__)
    app.config.from_mapping(BOOK="guestbook.db", MAX_CONTENT_LENGTH=10_000)
    app.config.from_prefixed_env("GUESTBOOK")
    app.config.from_mapping(config or {})
    app.register_blueprint(entries.pages)
    app.register_error_handler(404, lambda error: ({"error": "there is no such page"}, 404))
    plug_in(app, cleaned)
    return app


def plug_in(app: flask.Flask, cleaned: bool) -> None:
    """All that is Patron's. Nothing is opened here: the book is, in the process that serves."""
    Patron(
        app,
        version="1.4.0",
        resources={"book": partial(open_book, app.config["BOOK"])},
        ready_checks={"book": Book.count_of},
        # Components run under Patron's worker class only; another server would refuse the application.
        components=[Periodic("clean", Book.forget_old, every=60, run_at_start=True)] if cleaned else [],
    )
