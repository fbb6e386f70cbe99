"""What a test needs and may not be there: then it is skipped, or fails where ``PATRON_TEST_REQUIRE`` lists it."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def required(name: str) -> bool:
    """Whether ``PATRON_TEST_REQUIRE`` lists *name*."""
    return name in os.environ.get("PATRON_TEST_REQUIRE", "").replace(" ", "").split(",")


def missing(name: str, reason: str) -> NoReturn:
    """End the test, as there is no *name*."""
    if required(name):
        pytest.fail(f"{reason}; PATRON_TEST_REQUIRE lists {name}")
    pytest.skip(reason)
