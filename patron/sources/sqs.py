"""
Amazon SQS: standard and FIFO queues, with leases that last as long as a processor works.

docs/sqs.md tells what is promised, what it costs, and what is on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from patron import aws
from patron.errors import ConfigError, NotASource
from patron.sources._sqs_client import Queues, QueueSettings
from patron.sources._sqs_depth import METRICS
from patron.sources._sqs_publisher import SqsPublisher
from patron.sources._sqs_subscription import LONGEST, SqsLetters, SqsSubscription

__all__ = ["METRICS", "SqsLetters", "SqsPublisher", "SqsSource", "SqsSubscription"]

S = TypeVar("S", bound=SqsSubscription)

_LONGEST_WAIT = 20
_MOST_RECEIVERS = 32
_LETTERS_LEASE = 120.0


@dataclass(frozen=True)
class SqsSource:
    """
    A queue of Amazon SQS. Credentials come from where boto3 finds them: variables, profile, role.

    Args:
        queue: Its name, or its address (URL). A FIFO queue's name ends with ``.fifo``.
        owner: Account that the queue belongs to, when it is not the one of the credentials.
        region: Region, as ``eu-central-1``; None: as the usual AWS variables or the profile say.
        endpoint_url: Where SQS is, for a local one; None: AWS, or what ``AWS_ENDPOINT_URL`` says.
        lease: Seconds that a message is ours without a word (its visibility time-out); renewed every third
            of it while the processor works, up to the 12 hours that SQS allows.
        wait: Seconds that a request waits at an empty queue (long polling, up to 20). A stop waits for the
            requests under way, so it may take as long. Below 1: requests that do not wait, that far apart.
        receivers: Requests for messages that may be under way at once; one alone while the queue is empty.
        create: Make the queue when it is not there, and the dead-letter queue.
        attributes: Attributes of queues that are made, as ``{KmsMasterKeyId: alias/orders}``.
        unwrap_sns: Take messages out of the envelope that SNS puts around them without raw delivery.
        max_body: Bytes that a compressed body (``X-Patron-Encoding: zlib``) may have when it is unpacked; one with
            more is a dead letter, packed as it came.
    """

    queue: str
    owner: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    lease: float = 30.0
    wait: float = 2.0
    receivers: int = 4
    create: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)
    unwrap_sns: bool = False
    max_body: int = 4 * 1024 * 1024

    def __post_init__(self) -> None:
        if problems := [problem for wrong, problem in self._rules() if wrong]:
            raise ConfigError(*problems)

    def _rules(self) -> Sequence[tuple[bool, str]]:
        name, endpoint = aws.queue_name(self.target), aws.endpoint_problem(self.endpoint_url)
        return (
            (not self.target, "sqs source: queue is empty: give its name or its URL"),
            (len(name) > 80, f"sqs source: queue name {name} is longer than the 80 characters of SQS"),
            (
                self.owner is not None and not (self.owner.isdigit() and len(self.owner) == 12),
                f"sqs source: owner {self.owner!r} is no account: use its 12 digits, in quotes",
            ),
            (endpoint is not None, f"sqs source: {endpoint}"),
            (
                not 1 <= self.lease <= LONGEST,
                f"sqs source: lease is {self.lease} s: use 1 to {LONGEST}",
            ),
            (
                not 0 < self.wait <= _LONGEST_WAIT,
                f"sqs source: wait is {self.wait} s: use more than 0, up to {_LONGEST_WAIT}",
            ),
            (self.max_body < 1, f"sqs source: max_body is {self.max_body}: use 1 byte or more"),
            (
                not 1 <= self.receivers <= _MOST_RECEIVERS,
                f"sqs source: receivers is {self.receivers}: use 1 to {_MOST_RECEIVERS}",
            ),
        )

    @property
    def system(self) -> str:
        """Label of metrics and spans."""
        return "sqs"

    @property
    def positional(self) -> bool:
        """Each message is settled by itself."""
        return False

    @property
    def target(self) -> str:
        """The queue's name, without account and region."""
        return self.queue.rpartition("/")[2]

    def open(self) -> SqsSubscription:
        """
        Find the queue, in the calling thread, which owns the subscription.

        Raises:
            NotASource: there is no such queue, or the credentials do not allow it. ConnectionLost: AWS cannot
                be reached. ConfigError: no region. MissingExtra: boto3 is not installed.
        """
        return self._opened(SqsSubscription)

    def publisher(self) -> SqsPublisher:
        """A publisher to any queue of the account; connects at its first call."""
        return SqsPublisher(self._settings())

    def prepare(self, topics: Sequence[str]) -> None:
        """
        Check that the queue is there, and one for each of *topics*; with ``create``, make them.

        Raises:
            NotASource: naming what is missing. ConnectionLost: AWS cannot be reached.
        """
        queues = Queues(self._settings())
        try:
            problems = _missing(queues, [self.queue, *topics])
        finally:
            queues.close()
        if problems:
            raise NotASource("; ".join(problems))

    def letters(self, topic: str) -> SqsLetters:
        """
        A subscription to the dead letters in *topic*, which gives back at its end what was not acknowledged.

        SQS counts each look as a delivery, which does not count against a message that is replayed.
        """
        lease = max(self.lease, _LETTERS_LEASE)
        source = replace(self, queue=topic, lease=lease, wait=max(1.0, self.wait), unwrap_sns=False)
        return source._opened(SqsLetters)

    def _opened(self, kind: type[S]) -> S:
        queues = Queues(self._settings())
        try:
            return kind(self, queues, queues.url(self.queue))
        except BaseException:
            queues.close()
            raise

    def _settings(self) -> QueueSettings:
        return QueueSettings(
            owner=self.owner,
            region=self.region,
            endpoint_url=self.endpoint_url,
            create=self.create,
            attributes=self.attributes,
        )


def _missing(queues: Queues, names: Sequence[str]) -> Sequence[str]:
    problems = []
    for name in names:
        try:
            queues.url(name)
        except NotASource as error:
            problems.append(str(error))
    return problems
