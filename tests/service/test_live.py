"""What a worker tells its owner, and the other workers, of how it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from patron import Service, Stop, observe
from patron.live import LiveService
from patron.slots import Board, Slot
from patron.testing import until


class Waiting:
    name = "waiting"

    def run(self, stop: Stop) -> None:
        stop.wait()


class Mumbling(Waiting):
    """Its readiness is none."""

    def ready(self) -> Any:
        return None


class Puzzling(Waiting):
    """What it says of itself cannot be written down."""

    def info(self) -> Any:
        return {("a", "key"): 1}


@contextmanager
def opened(*components: Any, slot: Slot | None = None) -> Iterator[LiveService]:
    live = Service("shop", components=components).open(slot=slot)
    try:
        yield live
    finally:
        live.stop(0.0)
        until(lambda: not live.working())
        until(live.close())
        observe.stop(1.0)


def test_the_owner_is_told_when_everything_has_started() -> None:
    told = list[bool]()
    with opened(Waiting()) as live:
        live.on_started = lambda: told.append(live.serving())
        live.start()
        until(lambda: bool(told))
    assert told == [True]


@pytest.mark.parametrize("component", [Mumbling, Puzzling])
def test_a_worker_whose_components_cannot_say_how_they_are_is_still_known_to_serve(component: Any) -> None:
    board = Board(1)
    slot = Slot(board, board.take())
    with opened(component(), slot=slot) as live:
        live.start()
        until(lambda: board.serving([slot.index]))
        [state] = board.states()
        assert not state.ready
        assert "cannot be told" in state.reasons[0]
        live.begin_stop()
        until(lambda: not board.serving([slot.index]))
    board.close()
