"""
What we lean on inside gunicorn 27 beyond its documented settings and hooks, in one place.

``tests/server/test_internals.py`` holds each of them against the installed gunicorn; a new major
version is taken over by making that test pass again.

=======================================  =============================================================
``ThreadWorker.poller``                  the selector of the main loop; callbacks are its data
``ThreadWorker.method_queue.defer``      wakes the main loop from any thread
``ThreadWorker.finish_request``          gets a connection back from the pool, in the main thread
``gunicorn.http.wsgi.create``            makes the WSGI environment, and a `Response` of our class
``Response``                             hands each piece of the answer to ``sock.sendall``
``Body.reader``                          ``length`` or ``parser`` tell whether all of it was read
``gunicorn.sock.ssl_context``            the context of TLS, by gunicorn's settings
``TConn``                                a connection: sock, client, server, parser
``Parser.unreader``                      where the parser reads from; ``buf`` is received, not parsed yet
``Request._expected_100_continue``       whether the server still has to send 100 Continue
``Worker.PIPE``, ``set_wakeup_fd``       a byte arrives there at every signal
``Arbiter.handle_hup``, ``handle_int``   found by name on the instance, run in the arbiter's loop
``Arbiter.setup``, ``stop``              called on the instance
``Arbiter.manage_workers``               called on the instance at least once a second, and by a reload
``Arbiter.spawn_worker``                 called on the instance; forks, and returns only in the parent
``Arbiter.spawn_workers``                called by the arbiter's loop at least once a second
``glogging.Logger.setup``                sets the handlers of ``error_log``, marked ``_gunicorn``
``HaltServer``                           raised in ``child_exit``, ends the run
=======================================  =============================================================
"""

from __future__ import annotations

from typing import Any

from gunicorn import http as gunicorn_http
from gunicorn import sock as gunicorn_sock
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.http import errors as parser_errors
from gunicorn.http import wsgi as gunicorn_wsgi
from gunicorn.http.body import ChunkedReader
from gunicorn.http.unreader import Unreader
from gunicorn.http.wsgi import Response
from gunicorn.workers.gthread import TConn, ThreadWorker

__all__ = [
    "Arbiter",
    "BaseApplication",
    "GunicornLogger",
    "HaltServer",
    "Response",
    "TConn",
    "ThreadWorker",
    "Unreader",
    "at_end",
    "gunicorn_http",
    "gunicorn_sock",
    "gunicorn_wsgi",
    "is_chunked",
    "parser_errors",
]


def is_chunked(body: Any) -> bool:
    """Whether the length of *body*, as the parser makes it, is only known at its end."""
    return isinstance(body.reader, ChunkedReader)


def at_end(body: Any) -> bool:
    """Whether *body* was read from the connection as a whole."""
    return (body.reader.parser is None) if is_chunked(body) else (body.reader.length == 0)
