"""What the tests of the HTTP component share: a client on the real WSGI callable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import Client

from patron.http import HttpSettings, Route, build


class Reading(Client):
    """A client that reads answers to their end and closes them, as a server does."""

    def open(self, *args: Any, buffered: bool = True, **kwargs: Any) -> Any:
        return super().open(*args, buffered=buffered, **kwargs)


@pytest.fixture
def serve() -> Callable[..., Client]:
    """A client of an application made of these routes, which has started."""

    def serve(
        *routes: Route, resources: Any = None, settings: HttpSettings | None = None, **options: Any
    ) -> Client:
        app = build(settings, routes=routes, **options)
        app.start(resources or {})
        return Reading(app)

    return serve


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    """A pool of two threads, which end with the test."""
    with ThreadPoolExecutor(2) as pool:
        yield pool
