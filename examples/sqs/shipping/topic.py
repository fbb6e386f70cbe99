"""The topic, and the queue that is subscribed to it; both are made when they are missing."""

from __future__ import annotations

from patron.clients import SnsPublisher
from patron.errors import MissingExtra

try:
    import boto3
except ImportError as error:
    raise MissingExtra("boto3", "sqs") from error

__all__ = ["open_topic"]


def open_topic(topic: str, queue: str) -> SnsPublisher:
    """A publisher to *topic*, to which *queue* is subscribed; asking again changes nothing."""
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    try:
        arn = sns.create_topic(Name=topic)["TopicArn"]
        url = sqs.create_queue(QueueName=queue)["QueueUrl"]
        endpoint = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=endpoint)
    finally:
        sns.close()
        sqs.close()
    return SnsPublisher(arn)
