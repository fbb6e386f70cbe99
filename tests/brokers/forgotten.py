"""Sockets that kafka-python forgets to close, when a connection fails or is closed while it is being made."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def forgotten_sockets() -> Iterator[None]:
    """Let them go here, without a word, and not in the middle of another test; import it where Kafka is used."""
    gc.collect(0)
    gc.disable()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        # Everything of this test is young, for nothing grows older while collecting is disabled.
        gc.collect(0)
        gc.enable()
