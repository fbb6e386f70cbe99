"""
A publisher to SNS topics, endpoints and phones: every message is confirmed, counted, traced and bounded in time.

docs/sqs.md tells what is on the wire, and how a queue reads what a topic sends it.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from typing import Any

from patron import aws, encoding
from patron.clients._aws import Clients, Endpoint, refusals_as_failures
from patron.clients._sending import PerProcess, budget, check_timeout, encoded, observed
from patron.errors import ConfigError, PublishFailed
from patron.extras import need
from patron.observe import Instrument
from patron.observe.metrics import Histogram, MetricSet

__all__ = ["MAX_BYTES", "METRICS", "SnsPublisher"]

MAX_BYTES = 256 * 1024
"""The largest message of SNS, attributes included."""

# From the call to the answer of SNS, tries and all; the topic is its ARN, or "phone-number".
seconds = Histogram(
    "client_sns_publish_duration_seconds", "Seconds that publishing to SNS took.", ("topic", "success")
)

METRICS = (seconds,)
_METRIC_SET = MetricSet(None, seconds, "success")


class SnsPublisher:
    """
    Publishes to SNS; share one between all threads. It connects at the first message, in each process anew.

    Credentials come from where boto3 finds them: variables, profile, role.

    Args:
        topic_arn: where messages go that do not say otherwise, as ``arn:aws:sns:eu-west-1:123456789012:orders``.
        region: region; None: as the usual AWS variables or the profile say.
        endpoint_url: where SNS is, for a local one; None: AWS, or what ``AWS_ENDPOINT_URL`` says.
        content_type: of payloads that do not say otherwise.
        timeout: seconds that a call may take, tries included; a nearer deadline of the work at hand shortens it.

    Raises:
        ConfigError: an argument is wrong. MissingExtra: boto3 is not installed.
    """

    def __init__(
        self,
        topic_arn: str | None = None,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        content_type: str = encoding.JSON,
        timeout: float = 10.0,
    ) -> None:
        check_timeout("timeout", timeout)
        if topic_arn is not None and not topic_arn.startswith("arn:"):
            raise ConfigError(f"topic_arn {topic_arn!r} is no ARN: it starts with 'arn:aws:sns:'")
        self.topic_arn = topic_arn
        self.timeout = timeout
        self.content_type = content_type
        need("sqs")
        endpoint = Endpoint("sns", region, endpoint_url)
        self._clients = PerProcess(lambda _: Clients(endpoint, timeout), Clients.close, "SNS publisher")

    def publish(
        self,
        payload: Any,
        headers: Mapping[str, str] | None = None,
        *,
        topic_arn: str | None = None,
        target_arn: str | None = None,
        phone_number: str | None = None,
        subject: str | None = None,
        structure: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        group: str | None = None,
        deduplication_id: str | None = None,
        content_type: str | None = None,
    ) -> str:
        """
        Publish one message and return the id that SNS gave it. Any thread may call.

        It goes to *topic_arn* (default: the publisher's), or instead to *target_arn* (an endpoint of a mobile
        application) or *phone_number*, which stands on no span, metric or log line.

        Args:
            payload: bytes as they are, anything else encoded by its content type.
            headers: go with it as string attributes; correlation id, trace and content type are added.
            topic_arn: a topic.
            target_arn: an endpoint.
            phone_number: a phone, as ``+4930123456``.
            subject: of the e-mail, where a subscriber gets one.
            structure: ``json``: *payload* has a text for each protocol, and one called ``default``.
            attributes: typed attributes: text, numbers, bytes, or a list of texts, numbers, booleans and None.
                All together AWS takes ten.
            group: of a FIFO topic: messages of one group stay in order.
            deduplication_id: of a FIFO topic; default: an id of its own for each message.
            content_type: of *payload*; default the publisher's.

        Raises:
            PublishFailed: SNS did not confirm, or the message is one that it would refuse: more than ten
                attributes, more than 256 KiB.
            ConfigError: it has no destination, or several.
            DeadlineExceeded: there was no time left to send it.
            EncodeError, UnknownContentType: the payload cannot be written.
        """
        where = _destination(topic_arn, target_arn, phone_number, self.topic_arn)
        kind, address = where
        options = _options(Subject=subject, MessageStructure=structure)
        if kind == "TopicArn" and address.endswith(".fifo"):
            unique = uuid.uuid4().hex
            options["MessageGroupId"] = aws.group_of(group, unique)
            options["MessageDeduplicationId"] = deduplication_id or unique
        with observed(_instrument(kind, "" if kind == "PhoneNumber" else address)):
            body, complete = encoded(payload, headers, content_type or self.content_type)
            text, written = aws.plain(body, complete, attributes or {}, MAX_BYTES)
            return self._send(kind, address, Message=text, MessageAttributes=written, **options)

    def close(self) -> None:
        """Close for good. May be called twice; nothing is unsent."""
        self._clients.close()

    def __enter__(self) -> SnsPublisher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _send(self, kind: str, address: str, **message: Any) -> str:
        hidden = kind == "PhoneNumber"
        left = budget(self.timeout)
        client = self._clients.get(left).within(left)
        try:
            with refusals_as_failures(f"cannot publish to SNS {'phone number' if hidden else address}"):
                return str(client.publish(**{kind: address}, **message)["MessageId"])
        except PublishFailed as error:
            if not hidden:
                raise
            raise PublishFailed(str(error).replace(address, "<phone number>")) from None


def _destination(
    topic: str | None, target: str | None, phone: str | None, default: str | None
) -> tuple[str, str]:
    given = _options(TopicArn=topic, TargetArn=target, PhoneNumber=phone) or _options(TopicArn=default)
    if len(given) != 1:
        raise ConfigError(
            "a message of SNS goes to one of topic_arn, target_arn and phone_number: "
            + (f"there are {' and '.join(given)}" if given else "there is none")
        )
    return next(iter(given.items()))


def _options(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}


_NAMES = {"TopicArn": "topic-arn:{}", "TargetArn": "target-arn:{}", "PhoneNumber": "phone-number"}


@functools.lru_cache(maxsize=1024)
def _instrument(kind: str, address: str) -> Instrument:
    return Instrument(
        "producer",
        "sns",
        address or "phone-number",
        name=f"sns-publisher {_NAMES[kind].format(address)}",
        metrics=_METRIC_SET,
        labels={"topic": address or "phone-number"},
        tags={"component": "sns-publisher"},
    )
