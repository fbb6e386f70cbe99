"""Starting a run: look at the service in a throw-away child, test its ports, hand over to gunicorn."""

from __future__ import annotations

import errno
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from patron import config
from patron.errors import ConfigError, PatronError, ServiceError
from patron.server import run
from patron.server.app import ServiceApp
from patron.server.internals import Arbiter, BaseApplication
from patron.server.parent import die_with_parent
from patron.server.settings import gunicorn_settings
from patron.service import Inspection, Service

__all__ = [
    "check_ports",
    "config_inspector",
    "config_path",
    "config_service_from_environment",
    "in_child",
    "run_config",
    "run_service",
]

#: Seconds that loading the configuration, with every module that it names, may take.
INSPECT_TIMEOUT = 60.0
#: Modules of the framework and its packages that only live services use.
_PRELOADED = (
    "flask",
    "prometheus_client",
    "pydantic.types",
    "pythonjsonlogger.core",
    "patron.http.app",
    "patron.sources.sqlite",
)


def run_service(service: Service) -> NoReturn:
    """Run *service*, which was described in code; exits with status 0, 1 or 2."""
    try:
        service, warnings = config.with_environment(service)
        inspection = service.inspect(warnings)
    except ConfigError as error:
        run.report(error)
        sys.exit(2)
    _run(inspection, lambda give_up: inspection, lambda: service)


def run_config(path: str | Path, environ: Mapping[str, str] | None = None) -> NoReturn:
    """
    Run the service that *path* names, a file or ``module:service``; exits with status 0, 1 or 2.

    The file, and every module that it names, is loaded in a throw-away child first, and then in each
    worker: the parent runs no user code.
    """
    variables = dict(os.environ if environ is None else environ)
    inspect = config_inspector(path, variables)
    try:
        inspection = inspect(lambda: False)
    except PatronError as error:
        run.report(error)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    _run(inspection, inspect, lambda: config.build(path, variables))


def config_path() -> str:
    """
    What ``PATRON_CONFIG`` says: the path of a configuration file, or ``module:attribute`` of a `Service`.

    Raises:
        SystemExit: with status 2, when it is not set.
    """
    path = os.environ.get("PATRON_CONFIG")
    if not path:
        sys.stderr.write(
            "patron: PATRON_CONFIG is not set: give it the path of a configuration file, or module:service\n"
        )
        sys.exit(2)
    return path


def config_inspector(path: str | Path, environ: Mapping[str, str] | None = None) -> run.Inspect:
    """A function that looks at the service of the file at *path*, in a throw-away child, each time it is called."""

    def inspect(give_up: Callable[[], bool]) -> Inspection:
        return in_child(lambda: config.inspect(path, os.environ if environ is None else environ), give_up)

    return inspect


def config_service_from_environment() -> Service:
    """The service that ``PATRON_CONFIG`` names."""
    return config.build(config_path(), os.environ)


def _run(inspection: Inspection, inspect: run.Inspect, build: Callable[[], Service]) -> NoReturn:
    for warning in inspection.warnings:
        sys.stderr.write(f"patron: warning: {warning}\n")
    try:
        check_ports(inspection.ports)
        _check_run_directory(inspection.run_directory)
    except PatronError as error:
        sys.stderr.write(f"patron: {error}\n")
        sys.exit(1)
    run.prepare(inspection, inspect)
    _Application(build).run()
    sys.exit(0)


class _Application(BaseApplication):  # type: ignore[misc]
    """gunicorn's view of a run: settings from the prepared inspection, the application from *build*."""

    def __init__(self, build: Callable[[], Service]) -> None:
        self._build = build
        super().__init__()

    def load_config(self) -> None:
        """Called at the start, and again at a reload."""
        for name, value in gunicorn_settings(run.prepared()).items():
            self.cfg.set(name, value)

    def load(self) -> ServiceApp:
        """Called in each worker, after the fork."""
        return ServiceApp(self._build)

    def run(self) -> None:
        """Run the arbiter in this thread, the main one; it leaves by SystemExit."""
        Arbiter(self).run()


# The throw-away child.


def in_child(inspect: Callable[[], Inspection], give_up: Callable[[], bool] = lambda: False) -> Inspection:
    """
    What *inspect* returns, run in a forked child, so that nothing it imports or opens stays here.

    *give_up* is asked ten times a second whether to stop waiting.

    Raises:
        ConfigError: with every problem that the child found.
        ServiceError: the child ended in another way, hangs, or was given up; the message says which.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        os.close(reader)
        _be_a_child_of(parent)
        _report_to(writer, inspect)
    os.close(writer)
    try:
        _preload()
        data = _read_all(reader, give_up)
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)  # it has answered, or it hangs
        os.waitpid(pid, 0)
    return _inspection_from(data)


def _be_a_child_of(parent: int) -> None:
    """Die with the parent, and take the signals of the terminal and of the system as any program does."""
    die_with_parent(parent)
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _read_all(reader: int, give_up: Callable[[], bool]) -> bytes:
    """What the child writes until it closes the pipe."""
    data, deadline = b"", time.monotonic() + INSPECT_TIMEOUT
    while time.monotonic() < deadline and not give_up():
        if select.select([reader], [], [], 0.1)[0]:
            piece = os.read(reader, 65536)
            if not piece:
                return data
            data += piece
    raise ServiceError(
        f"checking the configuration did not end within {INSPECT_TIMEOUT:g} s, or was interrupted: "
        "does a module that it names wait for something when it is imported?"
    )


def _preload() -> None:
    """
    Import what every worker will need, while the child looks at the service on another core.

    The workers then share that memory and start sooner; none of these opens a socket or starts a thread.
    """
    for name in _PRELOADED:
        importlib.import_module(name)


def _report_to(writer: int, inspect: Callable[[], Inspection]) -> NoReturn:
    """In the child: write the result to the pipe and leave, without the parent's exit handlers."""
    try:
        answer: dict[str, Any] = {"inspection": asdict(inspect())}
    except ConfigError as error:
        answer = {"problems": error.problems}
    except BaseException:  # noqa: BLE001 - user modules are imported here: whatever they raise is reported
        answer = {"fault": traceback.format_exc()}
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(json.dumps(answer).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _inspection_from(data: bytes) -> Inspection:
    if not data:
        raise ServiceError(
            "checking the configuration ended early: a module ends the process when it is imported"
        )
    answer = json.loads(data)
    if problems := answer.get("problems"):
        raise ConfigError(*problems)
    if fault := answer.get("fault"):
        raise ServiceError(f"checking the configuration failed:\n{fault}")
    fields = answer["inspection"]
    fields["ports"] = tuple((host, port) for host, port in fields["ports"])
    fields["warnings"] = tuple(fields["warnings"])
    return Inspection(**fields)


# Ports, and the run's own directory.


def check_ports(ports: tuple[tuple[str, int], ...]) -> None:
    """
    Bind each port for a moment, exclusively, so that one in use is found before anything starts.

    Raises:
        ServiceError: naming the port and what to do.
    """
    for host, port in ports:
        if port:
            _check_port(host, port)


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # A closed connection may linger on the port (TIME_WAIT); a listener still refuses us.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            raise ServiceError(
                f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}; {_advice(error)}"
            ) from error


def _advice(error: OSError | OverflowError) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "choose another port (http.port, PATRON_HTTP_DEFAULT_PORT) or stop what listens there"
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return "choose a port from 1024 on (http.port, PATRON_HTTP_DEFAULT_PORT), or run with the right to use it"
    return "choose an address of this machine (http.host, PATRON_HTTP_HOST)"


def _check_run_directory(path: str | None) -> None:
    """Make the directory at *path* if it is not there, and a file in it for a moment; None: we choose one."""
    if path is None:
        return
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ServiceError(
            f"run_directory {path} cannot be used: {error.strerror}; choose a directory that this user may write to "
            "(run_directory, PATRON_RUN_DIRECTORY), or none"
        ) from error
