"""The pages below ``/debug/pprof/``: profiles in pprof's format, as text, and as flame graphs."""

from __future__ import annotations

import html
import secrets
import select
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from patron.errors import BadRequest, HTTPError
from patron.http.deadlines import deadline_of
from patron.http.failure import STATUS_LINES
from patron.profiling import Profile, Profiler, flame, proto, report, threads
from patron.profiling.desk import Wanted

__all__ = ["HTML", "TEXT", "Page", "pages"]

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"

#: Seconds that are left for the answer when the request has a deadline, and of the shortest profile.
_MARGIN, _SHORTEST = 0.5, 0.1
# What go tool pprof looks for before it shows the body of an error.
_GO = ("X-Go-Pprof", "1")


class Page(NamedTuple):
    """One answer of an admin route."""

    status: str
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[dict[str, Any]], Page]


def pages(prefix: str, profiler: Profiler, name: str) -> Mapping[str, Handler]:
    """Path below *prefix* → what answers there; *name* is the service's."""
    desk = _Desk(profiler, name)
    handlers: dict[str, Callable[[_Query], Page]] = {
        "": partial(desk.index, prefix),
        "/": partial(desk.index, prefix),
        "/profile": desk.cpu,
        "/heap": desk.heap,
        "/threads": partial(desk.threads, "text"),
        "/goroutine": partial(desk.threads, "pprof"),
        "/cmdline": desk.cmdline,
    }
    # Patron for Go has all of them with a slash at the end.
    slashed = {f"{path}/": handler for path, handler in handlers.items() if path not in ("", "/")}
    return {path: partial(_answered, handler) for path, handler in {**handlers, **slashed}.items()}


def _answered(handler: Callable[[_Query], Page], environ: dict[str, Any]) -> Page:
    """What *handler* answers; what is wrong is told as text, for people and for ``go tool pprof``."""
    try:
        return handler(_Query(environ))
    except HTTPError as error:
        headers = (_GO, *error.headers.items())
        return Page(STATUS_LINES[error.status], TEXT, str(error.payload).encode(), headers)


def _gone(environ: Mapping[str, Any]) -> Callable[[], bool]:
    """
    A function that tells whether the client has closed its side of the connection.

    Only gunicorn's workers, ours among them, let an application look at its connection.
    """
    sock = environ.get("gunicorn.socket")
    if sock is None or not hasattr(select, "POLLRDHUP"):
        return lambda: False
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return lambda: bool(poll.poll(0))


class _Query:
    """The parameters of one request, checked one by one."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self.head = environ["REQUEST_METHOD"] == "HEAD"
        self.gone = _gone(environ)
        self.root = environ.get("SCRIPT_NAME", "")
        self._deadline = deadline_of(environ, None, time.monotonic())
        try:
            self._given = dict(parse_qsl(environ.get("QUERY_STRING", ""), True, max_num_fields=20))
        except ValueError as error:
            raise BadRequest(f"the query cannot be read: {error}\n") from error

    def only(self, *names: str) -> None:
        """Refuse parameters that mean nothing here."""
        if unknown := sorted(set(self._given) - set(names)):
            known = f"use {', '.join(names)}" if names else "there are none"
            raise BadRequest(f"unknown parameter {report.one_line(unknown[0])!r}: {known}\n")

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """A number from *least* to *most*."""
        text = self._given.get(name)
        if text is None:
            return default
        try:
            value = float(text) if text.isascii() and len(text) < 20 and "_" not in text else -1.0
        except ValueError:
            value = -1.0
        if not least <= value <= most:
            raise BadRequest(f"{name} is {text[:100]!a}: use a number from {least:g} to {most:g}\n")
        return value

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number from *least* to *most*."""
        value = self.number(name, default, least, most)
        if value != int(value):
            raise BadRequest(f"{name} is {value:g}: use a whole number from {least} to {most}\n")
        return int(value)

    def seconds(self, default: float) -> float:
        """How long to profile; shorter when the client does not wait so long."""
        asked = self.number("seconds", default, 1.0, 300.0)
        if self._deadline is None or not asked:
            return asked
        return max(_SHORTEST, min(asked, self._deadline.remaining() - _MARGIN))

    def word(self, name: str, default: str, known: Iterable[str]) -> str:
        """One of the *known* words."""
        value: str = self._given.get(name, default)
        if value not in known:
            raise BadRequest(f"{name} is {value[:100]!a}: use {', '.join(known)}\n")
        return value

    def has(self, name: str) -> bool:
        return name in self._given

    def worker(self) -> int | str | None:
        """``all``, the number of a worker, or None for the one that answers."""
        if self._given.get("worker") == "all":
            return "all"
        return self.whole("worker", 0, 0, 9999) if self.has("worker") else None

    def format(self, default: str) -> str:
        """The form of the answer: ``format``, or ``debug`` as Go has it."""
        if self.has("debug"):
            default = "pprof" if self.whole("debug", 0, 0, 2) == 0 else "text"
        return self.word("format", default, ("pprof", "text", "collapsed", "flamegraph"))


class _Desk:
    """The pages of one service. All threads share it."""

    def __init__(self, profiler: Profiler, name: str) -> None:
        self._profiler = profiler
        self._name = name

    def cpu(self, query: _Query) -> Page:
        query.only("seconds", "hz", "mode", "worker", "format", "debug")
        wanted = Wanted(
            kind=query.word("mode", "cpu", ("cpu", "wall")),
            seconds=query.seconds(30.0),
            hz=query.number("hz", 100.0, 1.0, 1000.0),
        )
        return self._page(query, wanted, "pprof")

    def heap(self, query: _Query) -> Page:
        query.only("seconds", "frames", "gc", "worker", "format", "debug")
        wanted = Wanted(
            kind="heap",
            seconds=query.seconds(0.0),
            frames=query.whole("frames", 16, 1, 128),
            collect=query.word("gc", "0", ("0", "1")) == "1",
        )
        return self._page(query, wanted, "pprof")

    def threads(self, default: str, query: _Query) -> Page:
        query.only("worker", "format", "debug")
        return self._page(query, Wanted(kind="threads"), default)

    def cmdline(self, query: _Query) -> Page:
        """The command line of this process, its parts separated as Go separates them."""
        query.only()
        return Page("200 OK", TEXT, "\0".join(sys.orig_argv).encode("utf-8", "replace"), (_GO,))

    def _page(self, query: _Query, wanted: Wanted, default: str) -> Page:
        form = query.format(default)
        worker = query.worker()
        if query.head:  # nobody waits for a profile to see its head
            return Page("200 OK", _TYPES[form], b"", (_GO,))
        desk = self._profiler
        if isinstance(worker, str):
            profile = desk.take_all(wanted, query.gone)
        else:
            profile = desk.take(wanted, worker, query.gone)
        profile.comments = [f"service {self._name}", *profile.comments, *profile.missing]
        page = _WRITERS[form](profile, f"{self._name}-{wanted.kind}")
        missing = (("X-Profile-Missing", reason) for reason in profile.missing)
        return page._replace(headers=(*page.headers, *missing))

    def index(self, prefix: str, query: _Query) -> Page:
        query.only()
        nonce = secrets.token_urlsafe(16)
        body = _index(f"{query.root}{prefix}", self._name, self._profiler, nonce)
        return Page("200 OK", HTML, body.encode("utf-8", "replace"), _policy(nonce))


def _binary(profile: Profile, name: str) -> Page:
    safe = "".join(
        letter if (letter.isascii() and letter.isalnum()) or letter in "-._" else "_" for letter in name
    )
    disposition = "Content-Disposition", f'attachment; filename="{safe}.pb.gz"'
    return Page("200 OK", _TYPES["pprof"], proto.encode(profile), (disposition, _GO))


def _text(profile: Profile, name: str) -> Page:
    lines = threads.dump(profile) if profile.kinds[-1].type == "threads" else report.text(profile)
    return Page("200 OK", TEXT, "".join(lines).encode("utf-8", "replace"))


def _collapsed(profile: Profile, name: str) -> Page:
    return Page("200 OK", TEXT, "".join(report.collapsed(profile)).encode("utf-8", "replace"))


def _flame(profile: Profile, name: str) -> Page:
    nonce = secrets.token_urlsafe(16)
    title = ", ".join([name, *profile.comments[1:]])
    return Page("200 OK", HTML, flame.page(profile, title, nonce).encode("utf-8", "replace"), _policy(nonce))


_WRITERS = {"pprof": _binary, "text": _text, "collapsed": _collapsed, "flamegraph": _flame}
_TYPES = {"pprof": "application/octet-stream", "text": TEXT, "collapsed": TEXT, "flamegraph": HTML}


def _policy(nonce: str) -> tuple[tuple[str, str], ...]:
    """Nothing but our own style and script, whatever the names of functions are."""
    allowed = f"default-src 'none'; style-src 'nonce-{nonce}' 'unsafe-inline'; script-src 'nonce-{nonce}'"
    return (("Content-Security-Policy", allowed), ("X-Content-Type-Options", "nosniff"))


# ------------------------------------------------------------------ the index


# Page, what it says, and links: their names and parameters.
_TOPICS = (
    (
        "profile",
        "Where the CPU time goes: all threads are sampled for 30 seconds, or as long as <code>seconds</code> says.",
        (
            ("flame graph, 5 s", "seconds=5&format=flamegraph"),
            ("text, 5 s", "seconds=5&format=text"),
            ("pprof, 30 s", "seconds=30"),
            ("waiting counted too, 5 s", "seconds=5&mode=wall&format=flamegraph"),
        ),
    ),
    (
        "heap",
        "What holds the memory: without <code>seconds</code> what was allocated since tracemalloc was started "
        "(<code>PYTHONTRACEMALLOC</code>), with it what is allocated meanwhile.",
        (
            ("flame graph", "format=flamegraph"),
            ("text", "format=text"),
            ("pprof", ""),
            ("flame graph of 10 s", "seconds=10&format=flamegraph"),
        ),
    ),
    (
        "threads",
        "What every thread does now.",
        (("text", ""), ("flame graph", "format=flamegraph"), ("pprof", "debug=0")),
    ),
    ("cmdline", "The command line of the process.", (("text", ""),)),
)


def _index(root: str, name: str, profiler: Profiler, nonce: str) -> str:
    workers = profiler.workers()
    parts = [_topic(f"{root}/{page}", page, text, links, workers) for page, text, links in _TOPICS]
    command = f"go tool pprof -http=: 'http://HOST:PORT{root}/profile?seconds=10'"
    return _INDEX.format(
        nonce=nonce, name=html.escape(name), parts="".join(parts), command=html.escape(command)
    )


def _topic(
    path: str, page: str, text: str, links: Iterable[tuple[str, str]], workers: Mapping[int, int]
) -> str:
    rows = [_row("this worker", path, links, "")]
    if len(workers) > 1 and page != "cmdline":
        rows += [_row(f"worker {k} (pid {pid})", path, links, f"worker={k}") for k, pid in workers.items()]
        rows.append(_row("all workers", path, links, "worker=all"))
    return f'<h2><a href="{html.escape(path)}">{page}</a></h2><p>{text}</p><ul>{"".join(rows)}</ul>'


def _row(title: str, path: str, links: Iterable[tuple[str, str]], worker: str) -> str:
    anchors = [
        f'<a href="{html.escape(_url(path, parameters, worker))}">{html.escape(label)}</a>'
        for label, parameters in links
    ]
    return f"<li>{title}: {', '.join(anchors)}</li>"


def _url(path: str, *parameters: str) -> str:
    query = "&".join(filter(None, parameters))
    return f"{path}?{query}" if query else path


_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Profiles of {name}</title>
<meta name="viewport" content="width=device-width">
<style nonce="{nonce}">
:root {{ color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }}
body {{ max-width: 50em; margin: 1em auto; padding: 0 1em; }}
h2 {{ margin-bottom: 0; }} p {{ margin: .2em 0; }}
code, pre {{ font-family: ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; }}
</style></head>
<body><h1>Profiles of {name}</h1>
{parts}
<p>Other tools: <code>format=collapsed</code> gives folded stacks; the files in pprof's format open in
speedscope and in</p><pre>{command}</pre>
</body></html>
"""
