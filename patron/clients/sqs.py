"""
A publisher to one SQS queue: every message is confirmed, counted, traced and bounded in time.

docs/sqs.md tells what is on the wire.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from patron import aws, encoding
from patron.clients._aws import Clients, Endpoint, refusals_as_failures
from patron.clients._sending import PerProcess, budget, check_timeout, encoded, observed
from patron.errors import BatchFailed, ConfigError, PatronError, PublishFailed
from patron.extras import need
from patron.observe import Instrument
from patron.observe.metrics import Histogram, MetricSet

__all__ = ["METRICS", "SqsMessage", "SqsPublisher"]

_BATCH = 10
_LATEST = 900

# From the call to the answer of SQS, tries and all; a batch request is observed once. "success" is true or false.
seconds = Histogram(
    "client_sqs_publish_duration_seconds", "Seconds that publishing to SQS took.", ("queue", "success")
)

METRICS = (seconds,)
_METRIC_SET = MetricSet(None, seconds, "success")


@dataclass(frozen=True, slots=True)
class SqsMessage:
    """
    One message to publish.

    Args:
        payload: bytes as they are, anything else encoded by its content type.
        headers: go with it as string attributes; correlation id, trace and content type are added.
        attributes: typed attributes: text, numbers or bytes. All together AWS takes ten.
        delay: seconds, up to 900, before anybody gets it; rounded up. Not in a FIFO queue.
        group: of a FIFO queue: messages of one group stay in order. Without one a message has no order.
        deduplication_id: of a FIFO queue: of those that have the same within five minutes it keeps one.
            Default: an id of its own for each.
        content_type: of *payload*; default the publisher's.
    """

    payload: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    delay: float = 0.0
    group: str | None = None
    deduplication_id: str | None = None
    content_type: str | None = None


class SqsPublisher:
    """
    Publishes to *queue*; share one between all threads. It connects at the first message, in each process anew.

    Credentials come from where boto3 finds them: variables, profile, role.

    Args:
        queue: its name, or its address (URL), as ``https://sqs.eu-west-1.amazonaws.com/123456789012/orders``.
        owner: account that the queue belongs to, when it is not the one of the credentials.
        region: region; None: as the usual AWS variables or the profile say.
        endpoint_url: where SQS is, for a local one; None: AWS, or what ``AWS_ENDPOINT_URL`` says.
        content_type: of payloads that do not say otherwise.
        timeout: seconds that a call may take, tries included; a nearer deadline of the work at hand shortens it.
        create: make the queue when it is not there.

    Raises:
        ConfigError: an argument is wrong. MissingExtra: boto3 is not installed.
    """

    def __init__(
        self,
        queue: str,
        *,
        owner: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        content_type: str = encoding.JSON,
        timeout: float = 10.0,
        create: bool = False,
    ) -> None:
        check_timeout("timeout", timeout)
        if not queue:
            raise ConfigError("queue is empty: give its name or its URL")
        self.queue = queue
        self.timeout = timeout
        self.content_type = content_type
        self._name = queue.rpartition("/")[2]
        self._owner = owner
        self._create = create
        self._url = queue if "://" in queue else None
        need("sqs")
        endpoint = Endpoint("sqs", region, endpoint_url)
        self._clients = PerProcess(lambda _: Clients(endpoint, timeout), Clients.close, "SQS publisher")
        self._instrument = Instrument(
            "producer",
            "sqs",
            self._name,
            name=f"sqs-publisher {queue}",
            metrics=_METRIC_SET,
            labels={"queue": self._name},
            tags={"component": "sqs-publisher", "queue": self._name},
        )

    def publish(
        self,
        payload: Any,
        headers: Mapping[str, str] | None = None,
        *,
        attributes: Mapping[str, Any] | None = None,
        delay: float = 0.0,
        group: str | None = None,
        deduplication_id: str | None = None,
        content_type: str | None = None,
    ) -> str:
        """
        Publish one message and return the id that SQS gave it; see `SqsMessage` for the arguments. Any thread may call.

        Raises:
            PublishFailed: SQS did not confirm, or the message is one that it would refuse: more than ten
                attributes, more than 1 MiB, a delay in a FIFO queue.
            DeadlineExceeded: there was no time left to send it.
            EncodeError, UnknownContentType: the payload cannot be written.
        """
        message = SqsMessage(
            payload, headers or {}, attributes or {}, delay, group, deduplication_id, content_type
        )
        with observed(self._instrument), refusals_as_failures(f"cannot publish to SQS queue {self._name}"):
            client = self._clients.get(left := budget(self.timeout)).within(left)
            answer = client.send_message(QueueUrl=self._address(client), **self._entry(message))
            return str(answer["MessageId"])

    def publish_batch(self, messages: Iterable[SqsMessage]) -> list[str]:
        """
        Publish *messages*, ten in a request, and return the ids that SQS gave them, in their order.

        Raises:
            BatchFailed: some are not there, or may not be; its ``outcomes`` tell which. Others are.
            DeadlineExceeded: there was no time left to send any.
        """
        budget(self.timeout)
        outcomes: list[str | Exception] = []
        for batch in aws.batches_of(_BATCH, messages):
            outcomes += self._publish_ten(batch)
        ids = [outcome for outcome in outcomes if isinstance(outcome, str)]
        if len(ids) < len(outcomes):
            raise BatchFailed(outcomes)
        return ids

    def close(self) -> None:
        """Close for good. May be called twice; nothing is unsent."""
        self._clients.close()

    def __enter__(self) -> SqsPublisher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _publish_ten(self, messages: Sequence[SqsMessage]) -> list[str | Exception]:
        outcomes: list[str | Exception] = [PublishFailed("it was not sent")] * len(messages)
        with self._instrument.start(count=len(messages)) as operation:
            entries = dict(self._entries(messages, outcomes))
            for part in _parts(entries):
                self._send_part({number: entries[number] for number in part}, outcomes)
            failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            if failed:
                operation.fail(failed[0])
            operation.outcome = "false" if failed else "true"
        return outcomes

    def _entries(
        self, messages: Sequence[SqsMessage], outcomes: list[str | Exception]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """What can be sent, by its place; what cannot has its outcome."""
        for number, message in enumerate(messages):
            try:
                yield number, self._entry(message)
            except PatronError as error:
                outcomes[number] = error

    def _send_part(self, entries: Mapping[int, dict[str, Any]], outcomes: list[str | Exception]) -> None:
        try:
            with refusals_as_failures(f"cannot publish to SQS queue {self._name}"):
                client = self._clients.get(left := budget(self.timeout)).within(left)
                answer = client.send_message_batch(
                    QueueUrl=self._address(client),
                    Entries=[{"Id": str(number), **entry} for number, entry in entries.items()],
                )
        except PatronError as error:
            outcomes[:] = [error if number in entries else each for number, each in enumerate(outcomes)]
            return
        for each in answer.get("Successful") or ():
            outcomes[int(each["Id"])] = str(each["MessageId"])
        for each in answer.get("Failed") or ():
            outcomes[int(each["Id"])] = PublishFailed(
                f"SQS queue {self._name} refused it: {each.get('Code')}: {each.get('Message')}"
            )

    def _entry(self, message: SqsMessage) -> dict[str, Any]:
        body, headers = encoded(message.payload, message.headers, message.content_type or self.content_type)
        text, attributes = aws.plain(body, headers, message.attributes)
        entry: dict[str, Any] = {"MessageBody": text, "MessageAttributes": attributes}
        if self._name.endswith(".fifo"):
            return entry | _in_order(message)
        if message.group is not None:
            entry["MessageGroupId"] = message.group
        if message.delay:
            entry["DelaySeconds"] = _delay(message)
        return entry

    def _address(self, client: Any) -> str:
        if self._url is None:
            self._url = self._found(client)
        return self._url

    def _found(self, client: Any) -> str:
        name = aws.queue_name(self._name)
        owner = {"QueueOwnerAWSAccountId": self._owner} if self._owner else {}
        try:
            return str(client.get_queue_url(QueueName=name, **owner)["QueueUrl"])
        except client.exceptions.QueueDoesNotExist:
            if not self._create:
                raise
        fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        return str(client.create_queue(QueueName=name, Attributes=fifo)["QueueUrl"])


def _in_order(message: SqsMessage) -> dict[str, str]:
    if message.delay:
        raise PublishFailed("a message of a FIFO queue cannot be delayed by itself: give the queue a delay")
    unique = uuid.uuid4().hex
    return {
        "MessageGroupId": aws.group_of(message.group, unique),
        "MessageDeduplicationId": message.deduplication_id or unique,
    }


def _delay(message: SqsMessage) -> int:
    if not 0 <= message.delay <= _LATEST:
        raise PublishFailed(f"a delay of {message.delay} s is not within 0 and {_LATEST} s, which SQS allows")
    return math.ceil(message.delay)


def _parts(entries: Mapping[int, Mapping[str, Any]]) -> Iterator[list[int]]:
    """The entries in requests of at most 1 MiB each."""
    part: list[int] = []
    total = 0
    for number, entry in entries.items():
        size = aws.size_of(entry["MessageBody"], entry["MessageAttributes"])
        if part and total + size > aws.MAX_BYTES:
            yield part
            part, total = [], 0
        part.append(number)
        total += size
    if part:
        yield part
