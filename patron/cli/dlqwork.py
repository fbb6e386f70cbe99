"""What the commands of ``patron dlq`` do, with what they say meanwhile."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import click

from patron.cli import letterview
from patron.cli.longwork import Interrupted, Progress, interruptible
from patron.cli.output import emit_table, problem, warning
from patron.cli.targets import Target
from patron.consumer.letters import Letter, Letters, Selection
from patron.consumer.replaying import Replayed, replay
from patron.errors import ConfigError, SourceError, Stale

__all__ = ["counts", "listed", "purged", "replayed", "shown"]

OK, FAILED, INTERRUPTED = 0, 1, 130

_FAILURES = 3  # so many in a row that could not be published, and no more are tried
_WORDS = {
    "replayed": "replayed",
    "deleted": "deleted",
    "failed": "failed",
    "twice": "published but not removed",
}
_AT_ONCE = 50  # letters deleted by one call


# list


def counts(targets: Sequence[Target], *, as_json: bool, wait: float) -> int:
    """How many letters each of *targets* has; one that cannot tell is a problem of its own."""
    rows = [_counted(target, wait) for target in targets]
    if as_json:
        for row in rows:
            _emit_line(row)
    else:
        emit_table(("consumer", "topic", "letters"), rows)
    return FAILED if any("error" in row for row in rows) else OK


def _counted(target: Target, wait: float) -> dict[str, Any]:
    row: dict[str, Any] = {"consumer": target.consumer, "topic": target.topic}
    try:
        with target.letters(wait) as letters:
            return {**row, "letters": letters.count()}
    except SourceError as error:
        problem(f"{target.consumer}: {error}")
        return {**row, "letters": None, "error": str(error)}


def listed(target: Target, selection: Selection, *, as_json: bool, wait: float) -> None:
    """The letters of *target* that are meant."""
    with target.letters(wait) as letters:
        found = selection.of(iter(letters))
        if as_json:
            for letter in found:
                _emit_line(letterview.as_object(letter))
            return
        width = letterview.reason_width()
        rows = [letterview.row(letter, width) for letter in found]
        emit_table(letterview.COLUMNS, rows)
        _tell_of_more(letters.count(), len(rows), selection)


def _tell_of_more(count: int | None, shown: int, selection: Selection) -> None:
    if shown == selection.limit and (count is None or count > shown):
        of = "" if count is None else f" of {count}"
        warning(f"these are the first {shown}{of}: --limit shows more")


# show


def shown(target: Target, id_: str, *, raw: bool, as_json: bool, wait: float) -> int:
    """Show the letter *id_*."""
    with target.letters(wait) as letters:
        letter = next(Selection(ids=frozenset((id_,))).of(iter(letters)), None)
        if letter is None:
            problem(f"there is no dead letter {id_!r} in {target.topic}")
            return FAILED
        if raw:
            sys.stdout.buffer.write(letter.message.body)
            sys.stdout.flush()
        elif as_json:
            _emit_line({**letterview.as_object(letter), **letterview.body_object(letter.message.body)})
        else:
            for line in letterview.full(letter):
                click.echo(line, color=True)
    return OK


# replay


class _Tally:
    """What was done, and what is to be said of it."""

    def __init__(self, progress: Progress) -> None:
        self.counts = dict.fromkeys(("replayed", "deleted", "failed", "twice"), 0)
        self._progress = progress
        self._failures = 0

    def replayed(self, result: Replayed) -> None:
        """
        Count *result*.

        Raises:
            SourceError: too many in a row failed.
        """
        self.counts[result.outcome] += 1
        self._failures = 0 if result.outcome == "replayed" else self._failures + 1
        if result.error is not None:
            self._progress.clear()
            problem(f"{letterview.safe(result.letter.id)}: {_what_failed(result)}")
        if self._failures == _FAILURES:
            raise SourceError(f"{_FAILURES} letters in a row failed: the others were not tried")
        self._progress.show(self.counts["replayed"])

    def conclude(self, consumer: str) -> None:
        """Say what was done."""
        self._progress.clear()
        done = [f"{number} {_WORDS[what]}" for what, number in self.counts.items() if number]
        click.echo(f"{consumer}: {', '.join(done) or 'nothing to do'}")


def _what_failed(result: Replayed) -> str:
    if result.outcome == "twice":
        return f"published to {result.topic}, but not removed, so that it is there twice: {result.error}"
    return f"not published to {result.topic}, so it stays: {result.error}"


def replayed(
    targets: Sequence[Target],
    selection: Selection,
    *,
    to: str | None,
    rate: float | None,
    dry_run: bool,
    wait: float,
) -> int:
    """Publish the letters of *targets* that are meant; returns the exit status."""
    for target in targets:
        if to == target.topic:
            raise ConfigError(
                f"{to} is where the letters of {target.consumer} are: replay them to another topic"
            )
    if dry_run:
        return _each(targets, lambda target: _dry_run(target, selection, to, wait))
    with interruptible() as interrupted:
        return _each(targets, lambda target: _replayed(target, selection, to, rate, wait, interrupted))


def _dry_run(target: Target, selection: Selection, to: str | None, wait: float) -> int:
    seen: set[str] = set()
    with target.letters(wait) as letters:
        for letter in selection.of(iter(letters)):
            seen.add(letter.id)
            topic = to or letter.origin or target.source.target
            click.echo(f"{letterview.safe(letter.id)} -> {letterview.safe(topic)}")
    click.echo(f"{target.consumer}: {len(seen)} would be replayed")
    return _missing(target, selection, seen)


def _replayed(
    target: Target,
    selection: Selection,
    to: str | None,
    rate: float | None,
    wait: float,
    interrupted: Interrupted,
) -> int:
    seen: set[str] = set()
    with target.letters(wait) as letters:
        tally = _Tally(Progress("replayed", _expected(letters, selection)))
        try:
            began = time.monotonic()
            for result in replay(letters, selection, otherwise=target.source.target, to=to):
                seen.add(result.letter.id)
                tally.replayed(result)
                if rate is not None:
                    interrupted.wait(began + len(seen) / rate - time.monotonic(), letters.keep)
                if interrupted.wanted:
                    break
        finally:
            tally.conclude(target.consumer)
    return _status(tally, interrupted) or _missing(target, selection, seen)


# purge


def purged(targets: Sequence[Target], selection: Selection, *, ask: bool, wait: float) -> int:
    """Delete the letters of *targets* that are meant, once somebody has agreed; returns the exit status."""
    if ask and not click.confirm(_question(targets, selection, wait), err=True):
        click.echo("nothing was deleted")
        return FAILED
    with interruptible() as interrupted:
        return _each(targets, lambda target: _purged(target, selection, wait, interrupted))


def _question(targets: Sequence[Target], selection: Selection, wait: float) -> str:
    which = f"{len(selection.ids)} dead letters" if selection.ids else "dead letters"
    if selection.reason is not None:
        which += f" whose reason contains {selection.reason!r}"
    if selection.before is not None:
        which += time.strftime(" from before %Y-%m-%d %H:%M:%S", time.localtime(selection.before))
    of = ", ".join(f"{target.topic} (now {_count(target, wait)})" for target in targets)
    return f"Delete {which} in {of} for ever?"


def _count(target: Target, wait: float) -> str:
    with target.letters(wait) as letters:
        count = letters.count()
        return "an unknown number" if count is None else str(count)


def _purged(target: Target, selection: Selection, wait: float, interrupted: Interrupted) -> int:
    seen: set[str] = set()
    with target.letters(wait) as letters:
        progress = Progress("deleted", _expected(letters, selection))
        tally = _Tally(progress)
        try:
            for group in _groups(selection.of(iter(letters))):
                seen.update(letter.id for letter in group)
                tally.counts["failed"] += (failed := _deleted(letters, group))
                tally.counts["deleted"] += len(group) - failed
                progress.show(tally.counts["deleted"])
                if interrupted.wanted:
                    break
        finally:
            tally.conclude(target.consumer)
    return _status(tally, interrupted) or _missing(target, selection, seen)


def _deleted(letters: Letters, group: Sequence[Letter]) -> int:
    """Delete *group*; returns how many of it are there still."""
    try:
        letters.remove(group)
    except Stale as error:
        problem(str(error))
        return len(error.messages) or len(group)
    return 0


# Common to both.


def _groups(letters: Iterator[Letter]) -> Iterator[list[Letter]]:
    while group := list(islice(letters, _AT_ONCE)):
        yield group


def _expected(letters: Letters, selection: Selection) -> int | None:
    """How many there will be, when that can be told before."""
    if selection.ids:
        return len(selection.ids)
    return letters.count() if selection == Selection() else None


def _status(tally: _Tally, interrupted: Interrupted) -> int:
    if interrupted.wanted:
        warning("interrupted: the others are as they were")
        return INTERRUPTED
    return FAILED if tally.counts["failed"] or tally.counts["twice"] else OK


def _missing(target: Target, selection: Selection, seen: set[str]) -> int:
    missing = sorted(selection.ids - seen)
    for id_ in missing:
        problem(f"there is no dead letter {id_!r} in {target.topic}")
    return FAILED if missing else OK


def _each(targets: Sequence[Target], work: Callable[[Target], int]) -> int:
    """The worst status that *work* has for *targets*; what one of them lacks is no reason to leave the others."""
    worst = OK
    for target in targets:
        try:
            worst = max(worst, work(target))
        except SourceError as error:
            problem(f"{target.consumer}: {error}")
            worst = max(worst, FAILED)
        if worst == INTERRUPTED:
            break
    return worst


def _emit_line(value: Any) -> None:
    click.echo(json.dumps(value, default=str, ensure_ascii=False))
