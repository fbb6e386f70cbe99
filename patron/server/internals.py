"""
What we lean on inside gunicorn 27 beyond its documented settings and hooks, in one place.

``tests/server/test_internals.py`` holds each of them against the installed gunicorn; a new major
version is taken over by making that test pass again.

=======================================  =============================================================
``ThreadWorker.poller``                  the selector of the main loop; callbacks are its data
``ThreadWorker.method_queue.defer``      wakes the main loop from any thread
``ThreadWorker.finish_request``          gets a connection back from the pool, in the main thread
``ThreadWorker.handle_request``          runs the WSGI application for a parsed request
``ThreadWorker._keepalive_after``        drains what the application did not read
``TConn``                                a connection: sock, client, server, parser
``Parser.unreader.buf``                  the bytes received and not parsed yet
``Request._expected_100_continue``       whether the server still has to send 100 Continue
``Worker.PIPE``, ``set_wakeup_fd``       a byte arrives there at every signal
``Arbiter.handle_hup``, ``handle_int``   found by name on the instance, run in the arbiter's loop
``Arbiter.setup``, ``stop``              called on the instance
``Arbiter.spawn_worker``                 called on the instance; forks, and returns only in the parent
``Arbiter.spawn_workers``                called by the arbiter's loop at least once a second
``glogging.Logger.setup``                sets the handlers of ``error_log``, marked ``_gunicorn``
``HaltServer``                           raised in ``child_exit``, ends the run
=======================================  =============================================================
"""

from __future__ import annotations

from gunicorn import http as gunicorn_http
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import TConn, ThreadWorker

__all__ = [
    "Arbiter",
    "BaseApplication",
    "GunicornLogger",
    "HaltServer",
    "TConn",
    "ThreadWorker",
    "Unreader",
    "gunicorn_http",
]
