"""The tests that the guest book has as a Flask application; python -m pytest, in examples/flask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from guestbook import create_app


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    app = create_app({"BOOK": str(tmp_path / "book.db"), "TESTING": True})
    yield app.test_client()
    app.extensions["patron"].close()


def test_an_entry_is_written_and_shown(client: FlaskClient) -> None:
    assert client.post("/entries", data={"text": "hello"}).status_code == 201
    assert client.get("/entries").json == {"entries": ["hello"]}


def test_an_empty_entry_is_refused(client: FlaskClient) -> None:
    assert client.post("/entries").status_code == 400


def test_another_page_is_told_in_its_own_words(client: FlaskClient) -> None:
    assert client.get("/nothing").json == {"error": "there is no such page"}


def test_it_is_observed(client: FlaskClient) -> None:
    client.get("/entries", headers={"X-Correlation-Id": "from-the-test"})
    assert client.get("/ready").status_code == 200
    assert 'path="/entries",status_code="200"' in client.get("/metrics").text
