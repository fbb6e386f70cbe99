"""SIGHUP: the workers are replaced by others with what the configuration says now, and nobody notices."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from typing import Any

from patron.errors import ConfigError, PatronError
from patron.server import run as runs
from patron.server.internals import Arbiter

__all__ = ["handle_hup", "manage_workers"]

#: Seconds after which old workers end though the new ones do not serve: those may wait for what the old ones hold.
PATIENCE = 300.0
#: Seconds between two lines that say that this is waited for.
REMIND = 30.0


def handle_hup(server: Any) -> None:
    """SIGHUP: the service's own hook in every worker, or gunicorn's reload with a configuration that holds."""
    run = runs.state()
    if run.inspection.has_sighup_hook:
        server.kill_workers(signal.SIGHUP)
        return
    try:
        fresh = runs.inspected_again(partial(_stop_is_waiting, server))
    except PatronError as error:
        if not _stop_is_waiting(server):  # it was given up for that
            _refuse(server, error)
        return
    if fresh.workers > run.board.free_slots():
        _refuse(server, ConfigError(f"{fresh.workers} workers: too many old ones have not ended yet"))
        return
    runs.replace(fresh)
    _reload(server, run)


def _refuse(server: Any, error: PatronError) -> None:
    server.log.error("Reload refused, the old configuration stays:")
    runs.report(error)


def _reload(server: Any, run: runs.RunState) -> None:
    """
    Gunicorn's reload, without its wait for the old workers, during which it is deaf to signals.

    They serve until the new ones do, keep their own budget then, and the arbiter's loop reaps them like any other.
    """
    settings, retiring = server.app.cfg, run.retiring
    run.retiring = set(server.WORKERS)
    run.reloaded = run.reminded = time.monotonic()
    sys.modules.pop("patron.gunicorn", None)  # imported again, it computes its settings again
    run.reloading = True
    try:
        Arbiter.handle_hup(server)
        run.board.expect(server.cfg.workers)
    except SystemExit:  # gunicorn's answer to a settings file that it cannot load
        if os.getpid() != server.pid:
            raise  # a worker that was forked in there, and has ended
        server.app.cfg, run.retiring = settings, retiring
        server.log.error("Reload refused, the old settings stay")
    finally:
        run.reloading = False
        server.cfg.set("graceful_timeout", run.graceful_timeout)


def manage_workers(server: Any) -> None:
    """Called by the arbiter's loop at least once a second: those that are replaced end when the new ones serve."""
    run = runs.state()
    run.retiring &= server.WORKERS.keys()
    run.replaced &= server.WORKERS.keys()
    fresh = [worker.patron_slot for pid, worker in server.WORKERS.items() if pid not in run.retiring]
    if run.retiring:
        if not _is_over(server, run, fresh):
            server.spawn_workers()
            return
        run.replaced |= run.retiring
        run.retiring.clear()
    if run.replaced:
        server.spawn_workers()  # gunicorn counts them too, and would wait for their end with one that is missing
    Arbiter.manage_workers(server)


def _is_over(server: Any, run: runs.RunState, fresh: list[int]) -> bool:
    """Whether the old workers can end, because the workers in the slots *fresh* serve; or have to."""
    old, now = sorted(run.retiring), time.monotonic()
    if len(fresh) >= server.num_workers and run.board.serving(fresh):
        server.log.info("The new workers serve, these end: %s", old)
        return True
    if now >= run.reloaded + PATIENCE:
        server.log.error("The new workers have not started within %d s, the old ones end: %s", PATIENCE, old)
        return True
    if now >= run.reminded + REMIND:
        run.reminded = now
        server.log.warning("Reload: the new workers have not started yet, these still serve: %s", old)
    return False


def _stop_is_waiting(server: Any) -> bool:
    """Whether a signal that ends the run waits in the arbiter's queue; they all stay there, in their order."""
    waiting = []
    while not server.SIG_QUEUE.empty():
        waiting.append(server.SIG_QUEUE.get_nowait())
    for number in waiting:
        server.SIG_QUEUE.put_nowait(number)
    return any(number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT) for number in waiting)
