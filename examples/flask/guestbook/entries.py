"""The pages: plain Flask, with one resource of Patron's."""

from __future__ import annotations

from typing import Any

import flask

from guestbook.book import Book
from patron import current

__all__ = ["pages"]

pages = flask.Blueprint("entries", __name__)


def book() -> Book:
    """The open book."""
    found: Book = current("book")
    return found


@pages.get("/entries")
def show() -> Any:
    return {"entries": book().entries()}


@pages.post("/entries")
def add() -> Any:
    text = flask.request.form.get("text", "").strip()
    if not text:
        flask.abort(400, "an entry needs a text")
    number = book().add(text)
    flask.current_app.logger.info("entry %s was written", number)
    return {"number": number}, 201
