"""One run of the service, from the arbiter's side: its shared state, its hooks, and how it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from pathlib import Path
from typing import Any

from patron.errors import ConfigError
from patron.observe import log, metrics
from patron.observe.log import LogSettings
from patron.server.internals import Arbiter, HaltServer
from patron.server.parent import signals_held_back
from patron.service import Inspection
from patron.slots import Board, Slot

#: Looks at the service again; gets a function that tells whether to give up, because a stop is waiting.
Inspect = Callable[[Callable[[], bool]], Inspection]

__all__ = [
    "Inspect",
    "RunState",
    "inspected_again",
    "install_hooks",
    "prepare",
    "prepared",
    "replace",
    "report",
    "slot_of",
    "state",
]

#: Seconds of the waits before a worker that died is replaced: the first at once, then doubling.
RESPAWN_WAIT, RESPAWN_CAP = 0.5, 8.0
_PREFIX = "patron-"
#: Room for the most workers that a service may have, twice: a reload starts the new before the old have ended.
_SLOTS = 2 * 256 + 8


@dataclass(eq=False)
class RunState:
    """
    What the arbiter keeps of its run. Made before the first fork, so that every worker has the map.

    Only the arbiter's main thread writes; a worker reads *board* and *directory*.
    """

    inspection: Inspection
    board: Board
    directory: Path
    lock: int
    status: int = 0
    stopping: bool = False
    reloading: bool = False
    reloaded: float = 0.0  # monotonic seconds, of the last reload
    reminded: float = 0.0  # and of the last line about waiting for it
    retiring: set[int] = field(default_factory=set)  # process ids, of workers that a reload replaces
    replaced: set[int] = field(default_factory=set)  # of those that end now, as others serve
    graceful_timeout: int = 0
    not_before: float = 0.0
    deaths: deque[float] = field(default_factory=deque)

    @property
    def metrics_directory(self) -> Path:
        """Where the workers' metric files are."""
        return self.directory / "metrics"


_inspection: Inspection | None = None
_inspect: Inspect | None = None
_state: RunState | None = None


def prepare(inspection: Inspection, inspect: Inspect | None = None) -> None:
    """Say what is to run; *inspect* looks again, before a reload. Nothing is opened yet."""
    global _inspection, _inspect
    _inspection, _inspect = inspection, inspect


def inspected_again(give_up: Callable[[], bool]) -> Inspection:
    """
    What would run now: the configuration and its modules, looked at again.

    Raises:
        PatronError: what is wrong with them, or *give_up* said to.
    """
    return _inspect(give_up) if _inspect is not None else prepared()


def replace(inspection: Inspection) -> None:
    """From now on the workers that are forked run *inspection*."""
    prepare(inspection, _inspect)
    state().inspection = inspection


def prepared() -> Inspection:
    """
    What was prepared to run.

    Raises:
        ConfigError: nothing was.
    """
    if _inspection is None:
        raise ConfigError("nothing is prepared to run: start gunicorn with -c python:patron.gunicorn")
    return _inspection


def state() -> RunState:
    """
    The run that this process belongs to.

    Raises:
        ConfigError: it belongs to none, as under another worker class.
    """
    if _state is None:
        raise ConfigError("no run of Patron is prepared: start gunicorn with -c python:patron.gunicorn")
    return _state


def slot_of(worker: Any) -> Slot:
    """The slot that was taken for *worker* before it was forked."""
    return Slot(state().board, worker.patron_slot)


def report(error: BaseException) -> None:
    """Print *error* to the terminal: what a user can mend as plain lines, a fault with its traceback."""
    if isinstance(error, ConfigError):
        text = "".join(f"patron: {problem}\n" for problem in error.problems)
    else:
        text = "".join(traceback.format_exception(error))
    sys.stderr.write(text)
    sys.stderr.flush()


# Hooks.


def install_hooks(cfg: Any) -> None:
    """Put our hooks in front of the user's in *cfg*; those of a user's own file go on being called."""
    for name, ours in _HOOKS.items():
        theirs = getattr(cfg, name)
        if getattr(theirs, "__wrapped_by_patron__", False):
            continue
        cfg.set(name, _chained(ours, theirs))


def _chained(ours: Callable[..., None], theirs: Callable[..., Any]) -> Callable[..., None]:
    """Both hooks as one; gunicorn checks the number of arguments, so there are two shapes of it."""
    first, second = (theirs, ours) if ours is _on_exit else (ours, theirs)
    if ours in (_when_ready, _on_exit):

        def chained(server: Any) -> None:
            first(server)
            second(server)

        hook: Callable[..., None] = chained
    else:

        def chained_with_worker(server: Any, worker: Any) -> None:
            first(server, worker)
            second(server, worker)

        hook = chained_with_worker
    hook.__wrapped_by_patron__ = True  # type: ignore[attr-defined]
    return hook


def _when_ready(server: Any) -> None:
    """The arbiter listens, nothing is forked yet: make what the processes will share."""
    from patron.server import reloading  # it builds on this module

    global _state
    _start_log(prepared())
    directory, lock = _run_directory(prepared())
    workers = server.cfg.workers
    _state = RunState(
        prepared(), Board(_SLOTS), directory, lock, graceful_timeout=server.cfg.graceful_timeout
    )
    _state.board.expect(workers)
    server.handle_int = partial(_stop_gracefully, server)
    server.handle_hup = partial(reloading.handle_hup, server)
    server.setup = partial(_setup, server)
    server.stop = partial(_stop, server)
    server.manage_workers = partial(reloading.manage_workers, server)
    server.spawn_workers = partial(_spawn_workers, server)
    server.spawn_worker = partial(_spawn_worker, server)


def _start_log(inspection: Inspection) -> None:
    """Write the arbiter's own lines like the workers'; no thread is needed for that."""
    settings = LogSettings(
        level=inspection.log_level, format=inspection.log_format, fields=dict(inspection.log_fields)
    )
    log.start(inspection.name, inspection.version, settings)


def _pre_fork(server: Any, worker: Any) -> None:
    _check_nothing_lives(server)
    worker.patron_slot = state().board.take()


def _child_exit(server: Any, worker: Any) -> None:
    """A worker is gone: free its slot, and decide whether the run goes on."""
    run = state()
    status = run.board.free(worker.patron_slot)
    metrics.forget(worker.patron_slot, run.metrics_directory)
    if run.stopping:
        run.status = max(run.status, 1 if status is None else status)
    elif (ended := run.board.ended()) is not None:
        run.status = max(run.status, ended.status, status or 0)
        raise HaltServer("a component ended", run.status)
    elif status is None:
        _count_death(run)
    else:
        run.status = max(run.status, status)  # replaced, as at a reload, but not without abandoning work


def _count_death(run: RunState) -> None:
    now = time.monotonic()
    settings = run.inspection
    run.deaths.append(now)
    while run.deaths[0] <= now - settings.death_window:
        run.deaths.popleft()
    count = len(run.deaths)
    if count >= settings.max_worker_deaths:
        run.status = 1
        raise HaltServer(f"{count} workers died within {settings.death_window:g} s", 1)
    run.not_before = now + (min(RESPAWN_CAP, RESPAWN_WAIT * 2 ** (count - 2)) if count > 1 else 0.0)


def _on_exit(server: Any) -> None:
    """The last hook of the arbiter: clean up, and end with the run's own status."""
    run = state()
    ended = run.board.ended()
    status = max(run.status, ended.status if ended else 0, 0 if run.board.all_clean() else 1)
    _remove(run.directory)
    with contextlib.suppress(OSError):
        os.close(run.lock)
    if status:
        sys.exit(status)


_HOOKS: dict[str, Callable[..., None]] = {
    "when_ready": _when_ready,
    "pre_fork": _pre_fork,
    "child_exit": _child_exit,
    "on_exit": _on_exit,
}


# What we replace on the arbiter.


def _stop_gracefully(server: Any) -> None:
    """The first SIGINT stops like SIGTERM; a second one, found by the arbiter while it waits, means now."""
    raise StopIteration


def _stop(server: Any, graceful: bool = True) -> None:
    state().stopping = True
    Arbiter.stop(server, graceful)


def _setup(server: Any, app: Any) -> None:
    Arbiter.setup(server, app)
    install_hooks(server.cfg)
    run = state()
    run.graceful_timeout = server.cfg.graceful_timeout
    if run.reloading:
        server.cfg.set("graceful_timeout", 0)  # do not wait for the old workers: see _reload


def _spawn_workers(server: Any) -> None:
    """Called at least once a second while a worker is missing."""
    run = state()
    if time.monotonic() < run.not_before or run.board.ended() is not None:
        return
    missing = server.num_workers - len(server.WORKERS.keys() - run.retiring - run.replaced)
    for _ in range(min(missing, run.board.free_slots())):
        server.spawn_worker()


def _spawn_worker(server: Any) -> int:
    with signals_held_back():
        return int(Arbiter.spawn_worker(server))


# Checks and files.


def _check_nothing_lives(server: Any) -> None:
    """Threads and sockets do not survive a fork: name the ones that exist."""
    threads = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if threads:
        server.log.warning(
            "Threads were started before the fork, they do not exist in the workers: %s", threads
        )
    sockets = _foreign_sockets(server)
    if sockets:
        server.log.warning("Sockets were opened before the fork, the workers share them: %s", sockets)


def _foreign_sockets(server: Any) -> list[str]:
    """The sockets of this process that are neither standard streams nor gunicorn's listeners."""
    known = {0, 1, 2, *(listener.fileno() for listener in server.LISTENERS)}
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if int(name) not in known and stat.S_ISSOCK(os.stat(int(name)).st_mode):
                    found.append(f"fd {name}")
    return found


def _run_directory(inspection: Inspection) -> tuple[Path, int]:
    """A private directory for the files of this run, and the lock that says that the run lives."""
    base = Path(inspection.run_directory or _default_base())
    base.mkdir(parents=True, exist_ok=True)
    _sweep(base)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    (directory / "metrics").mkdir()
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    flock(lock, LOCK_EX | LOCK_NB)
    return directory, lock


def _default_base() -> str:
    """Memory where there is some: a full disk under a mapped metric file would kill the process (SIGBUS)."""
    shared = "/dev/shm"  # noqa: S108 - mkdtemp makes a private directory in it
    return shared if os.access(shared, os.W_OK) else tempfile.gettempdir()


def _sweep(base: Path) -> None:
    """Remove what runs that were killed left behind; workers hold the lock as long as one of them lives."""
    for directory in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if directory.stat().st_uid == os.getuid() and _is_dead(directory / "lock"):
                _remove(directory)


def _is_dead(lock: Path) -> bool:
    with lock.open() as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
