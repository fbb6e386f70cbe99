"""A TCP proxy that can cut, delay and black-hole what goes through it."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time

from brokers.processes import Server

CHUNK = 65536


class Proxy:
    """
    Forwards connections to a server; any thread may call its methods, and `close` joins its threads.

    *url* is the url of the server, through the proxy.
    """

    def __init__(self, server: Server) -> None:
        target, port = server.behind_proxy()
        self._target = (server.host, target)
        self._listener = _listener(port or 0)
        self.port: int = self._listener.getsockname()[1]
        self.url = server.url_at(self.port)
        self.delay = 0.0  # seconds before a piece of data goes on
        self._lock = threading.Lock()  # guards the three below
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._refusing = False
        self._closed = threading.Event()
        self._open = threading.Event()  # data flow while it is set
        self._open.set()
        self._start(self._accept, "proxy-accept")

    @property
    def connections(self) -> int:
        """How many connections of clients go through it now."""
        with self._lock:
            return len(self._sockets) // 2

    def cut(self) -> None:
        """Break all connections, as a network that resets them; new ones are served."""
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            _reset(each)

    def refuse(self) -> None:
        """Break all connections, and every new one, until `accept`."""
        with self._lock:
            self._refusing = True
        self.cut()

    def accept(self) -> None:
        """Serve new connections again."""
        with self._lock:
            self._refusing = False

    def hole(self) -> None:
        """Swallow the data of all connections without a word, until `heal`; what came meanwhile is lost by a cut."""
        self._open.clear()

    def heal(self) -> None:
        """Let the data flow again. Connections that saw the hole are cut: some of their data are lost."""
        self.cut()
        self._open.set()

    def close(self) -> None:
        """End everything. May be called twice."""
        self._closed.set()
        self._open.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(10)

    def _start(self, target, name: str, *args) -> None:
        thread = threading.Thread(target=target, name=name, args=args, daemon=True)
        with self._lock:
            self._threads = [each for each in self._threads if each.is_alive() or each.ident is None]
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, "proxy-connection", client)

    def _serve(self, client: socket.socket) -> None:
        server = self._connected(client)
        if server is None:
            _reset(client)
            client.close()
            return
        back = threading.Thread(target=self._pump, args=(server, client), name="proxy-back", daemon=True)
        back.start()
        self._pump(client, server)
        back.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _connected(self, client: socket.socket) -> socket.socket | None:
        """The connection to the server; None when there is none, or when nobody may connect."""
        if self._refusing:
            return None
        try:
            server = socket.create_connection(self._target, timeout=10)
        except OSError:
            return None
        server.settimeout(None)
        with self._lock:
            if not (self._refusing or self._closed.is_set()):
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets |= {client, server}
                return server
        server.close()
        return None

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(CHUNK):
                self._open.wait()
                if self.delay:
                    time.sleep(self.delay)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for each in (source, sink):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def _reset(each: socket.socket) -> None:
    """End a connection at once, whatever is under way."""
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


def _listener(port: int) -> socket.socket:
    """Listen on *port*; waits for another proxy that uses it, as Kafka advertises one port only."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_server(("127.0.0.1", port), backlog=64)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
