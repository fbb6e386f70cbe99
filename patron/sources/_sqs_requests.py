"""Requests about several messages, which SQS answers one by one: done, refused for now, or not ours any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from patron import aws
from patron.errors import ConnectionLost, SourceError
from patron.sources._sqs_client import translated
from patron.sources._sqs_message import Lease

__all__ = ["BATCH", "Outcome", "request"]

BATCH = 10
"""Entries that a request may have."""

_TRIES = 3
_PAUSE = 0.05

_GONE = frozenset(
    {"InvalidIdFormat", "InvalidParameterValue", "MessageNotInflight", "ReceiptHandleIsInvalid"}
)
"""Codes that say that the receipt handle is of no more use."""


@dataclass
class Outcome:
    """What became of a batch: *done*, *gone* (lost to us), and the *error* for which the others are undone."""

    done: list[Lease] = field(default_factory=list)
    gone: list[Lease] = field(default_factory=list)
    error: SourceError | None = None


def request(
    call: Callable[..., Any], url: str, batch: Sequence[Lease], more: Callable[[Lease], dict[str, Any]]
) -> Outcome:
    """
    Do *call* for the leases of *batch*, with what *more* says of each; entries that fail are tried again.

    Never raises what AWS or the network does: it is in the outcome.
    """
    outcome = Outcome()
    left = list(batch)
    attempt = 0
    while left and attempt < _TRIES:
        if attempt:
            time.sleep(_PAUSE * 2.0**attempt)
        attempt += 1
        outcome.error = None
        left = _once(call, url, left, more, outcome)
    return outcome


def _once(
    call: Callable[..., Any],
    url: str,
    batch: list[Lease],
    more: Callable[[Lease], dict[str, Any]],
    outcome: Outcome,
) -> list[Lease]:
    """One request; returns what another one may do."""
    entries = [
        {"Id": str(number), "ReceiptHandle": lease.handle, **more(lease)}
        for number, lease in enumerate(batch)
    ]
    try:
        with translated(url.rpartition("/")[2]):
            answer = call(QueueUrl=url, Entries=entries)
    except SourceError as error:
        return _refused(call, url, batch, more, outcome, error)
    failed = {int(each["Id"]): each for each in answer.get("Failed") or ()}
    outcome.done += [lease for number, lease in enumerate(batch) if number not in failed]
    again = []
    for number, entry in failed.items():
        if str(entry.get("Code", "")).rpartition(".")[2] in _GONE:
            outcome.gone.append(batch[number])
        else:
            outcome.error = SourceError(f"{entry.get('Code')}: {entry.get('Message')}")
            again.append(batch[number])
    return again


def _refused(
    call: Callable[..., Any],
    url: str,
    batch: list[Lease],
    more: Callable[[Lease], dict[str, Any]],
    outcome: Outcome,
    error: SourceError,
) -> list[Lease]:
    """The request as a whole was refused: because of one of its messages, or for all."""
    if aws.code_of(error.__cause__ or error) in _GONE:
        if len(batch) == 1:
            outcome.gone += batch
            return []
        return [left for lease in batch for left in _once(call, url, [lease], more, outcome)]
    # boto3 has tried again by itself. The messages stay ours, so this is no lost connection.
    outcome.error = SourceError(str(error)) if isinstance(error, ConnectionLost) else error
    outcome.error.__cause__ = error.__cause__
    return []
