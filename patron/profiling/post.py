"""Messages between the workers of a run, as files that only their user may read: a question, and its answer."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Post"]

#: Seconds after which an answer that nobody fetched is removed.
_UNCLAIMED = 900.0


class Post:
    """
    Questions and answers in *directory*. Any thread may call.

    A question names the process that is to answer, so that no later worker takes it for its own. Who asked
    may forget it at any time; who answers can see that.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def ask(self, process: int, question: Mapping[str, Any]) -> str:
        """Leave *question* for *process*; returns its name."""
        name = f"{process}-{os.getpid()}-{secrets.token_hex(8)}"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._write(f"{name}.ask", question)
        return name

    @staticmethod
    def addressee(name: str) -> int:
        """The process that is to answer."""
        return int(name.partition("-")[0])

    def questions(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """What this process is asked; each question once."""
        with suppress(FileNotFoundError):  # nobody has asked anything yet
            for file in os.listdir(self._directory):
                if file.endswith(".ask") and file.startswith(f"{os.getpid()}-"):
                    path = self._directory / file
                    with suppress(OSError, ValueError):
                        question = json.loads(path.read_bytes())
                        path.rename(path.with_suffix(".read"))
                        yield file.removesuffix(".ask"), question

    def is_read(self, name: str) -> bool:
        """Whether the addressee has the question *name*."""
        return not (self._directory / f"{name}.ask").exists()

    def is_wanted(self, name: str) -> bool:
        """Whether somebody still waits for the answer to the question *name*, which this process has read."""
        return (self._directory / f"{name}.read").exists()

    def reply(self, name: str, answer: Mapping[str, Any]) -> None:
        """Leave *answer* for the one who asked, unless nobody waits for it any more."""
        with suppress(OSError):  # the run has ended, and its directory with it
            self._sweep()
            if self.is_wanted(name):
                self._write(f"{name}.done", answer)

    def answer(self, name: str) -> Any:
        """The answer to the question *name*; None when it is not there yet."""
        try:
            return json.loads((self._directory / f"{name}.done").read_bytes())
        except FileNotFoundError:
            return None

    def forget(self, name: str) -> None:
        """Remove the question and its answer."""
        for file in (f"{name}.ask", f"{name}.read", f"{name}.done"):
            (self._directory / file).unlink(missing_ok=True)

    def _write(self, file: str, content: Mapping[str, Any]) -> None:
        """All of it or nothing, for whoever reads meanwhile."""
        unfinished = self._directory / f"{file}.new"
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
            json.dump(content, target)
        unfinished.rename(self._directory / file)

    def _sweep(self) -> None:
        for path in self._directory.glob("*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _UNCLAIMED:
                    path.unlink()
