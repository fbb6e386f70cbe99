"""``patron dlq``: the dead letters of a service, looked at, published again, deleted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from patron.cli.arguments import as_json, moment
from patron.cli.targets import located, target, targets

if TYPE_CHECKING:
    pass

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., Any])

_config = click.argument("config", required=False, metavar="CONFIG")
_consumer = click.argument("consumer", required=False)
_ids = click.argument("ids", nargs=-1, metavar="[ID]...")
_reason = click.option("--reason", metavar="TEXT", help="Only those whose reason contains TEXT.")
_wait = click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=5.0,
    show_default=True,
    help="Seconds to wait for letters that the broker says are there.",
)


@click.group(
    short_help="Look at dead letters, replay or delete them.",
    epilog="""\b
CONFIG is a file, or module:service; with PATRON_CONFIG it may be left out.

\b
Examples:
  patron dlq list config.yaml
  patron dlq list config.yaml orders --reason timeout --since 2h
  patron dlq show config.yaml orders 17
  patron dlq replay config.yaml orders --all --rate 50
  patron dlq purge config.yaml orders --older-than 30d
""",
)
def command() -> None:
    """Look at dead letters, publish them again, or delete them, while the service runs or not."""


@command.command(
    "list",
    short_help="List dead letters, or how many there are.",
    epilog="""\b
Nothing is consumed. SQLite and Kafka are only read; RabbitMQ and SQS hold what is being
looked at back from others until the command ends.

\b
Examples:
  patron dlq list config.yaml                   how many each consumer has
  patron dlq list config.yaml orders
  patron dlq list config.yaml orders --json --limit 0 | jq -r .reason | sort | uniq -c
""",
)
@_config
@_consumer
@as_json
@_reason
@click.option(
    "--since", callback=moment, metavar="TIME", help="Only those that came since TIME: 2h, 2026-11-21T10:00."
)
@click.option(
    "--limit", type=click.IntRange(0), default=100, show_default=True, help="At most so many; 0: all."
)
@_wait
def list_(
    config: str | None,
    consumer: str | None,
    as_json: bool,
    reason: str | None,
    since: float | None,
    limit: int,
    wait: float,
) -> int:
    """List the dead letters of CONSUMER, or how many each consumer of the service has."""
    from patron.cli import dlqwork
    from patron.consumer.letters import Selection

    path, names = located(config, consumer)
    if not names:
        return dlqwork.counts(targets(path), as_json=as_json, wait=wait)
    selection = Selection(reason=reason, after=since, limit=limit or None)
    dlqwork.listed(target(path, names[0]), selection, as_json=as_json, wait=wait)
    return 0


@command.command(
    short_help="Show one dead letter of CONSUMER.",
    epilog="""\b
Examples:
  patron dlq show config.yaml orders 17
  patron dlq show config.yaml orders 17 --raw > body.bin
""",
)
@_config
@_consumer
@click.argument("id", required=False)
@click.option("--raw", is_flag=True, help="Write the bytes of the body, and nothing else.")
@as_json
@_wait
def show(
    config: str | None, consumer: str | None, id: str | None, raw: bool, as_json: bool, wait: float
) -> int:
    """Show one dead letter of CONSUMER: why it is one, its headers and its body."""
    from patron.cli import dlqwork

    path, names = located(config, consumer, id)
    if len(names) < 2:
        raise click.UsageError("name a consumer and the id of a letter", click.get_current_context())
    return dlqwork.shown(target(path, names[0]), names[1], raw=raw, as_json=as_json, wait=wait)


@command.command(
    short_help="Publish dead letters again, and remove them.",
    epilog="""\b
Each letter goes to the topic that it came from, without the headers that tell why it died, and is
removed from the dead letters when the broker has confirmed it. A crash between the two makes a
duplicate, never a loss. Ctrl-C ends it between two letters. Letters that fail again meanwhile stay.

\b
Exit status: 0 all went well, 1 some did not, 2 wrong usage or configuration, 130 it was interrupted.

\b
Examples:
  patron dlq replay config.yaml orders 17 18
  patron dlq replay config.yaml orders --reason "connection refused" --dry-run
  patron dlq replay config.yaml orders --all --rate 50
  patron dlq replay config.yaml --all           of every consumer
""",
)
@_config
@_consumer
@_ids
@click.option("--all", "all_", is_flag=True, help="All of them.")
@_reason
@click.option("--since", callback=moment, metavar="TIME", help="Only those that came since TIME.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--to", metavar="TOPIC", help="Publish to TOPIC instead of where they came from.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many a second.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be published where.")
@_wait
def replay(
    config: str | None,
    consumer: str | None,
    ids: Sequence[str],
    all_: bool,
    reason: str | None,
    since: float | None,
    limit: int | None,
    to: str | None,
    rate: float | None,
    dry_run: bool,
    wait: float,
) -> int:
    """Publish dead letters of CONSUMER again, where they came from, and remove them."""
    from patron.cli import dlqwork
    from patron.consumer.letters import Selection

    path, names = located(config, consumer, *ids)
    _refuse_vague(names, all_, reason is not None or since is not None)
    selection = Selection(frozenset(names[1:]), reason, after=since, limit=limit)
    return dlqwork.replayed(
        [target(path, names[0])] if names else targets(path),
        selection,
        to=to,
        rate=rate,
        dry_run=dry_run,
        wait=wait,
    )


@command.command(
    epilog="""\b
It asks before it deletes, on a terminal; elsewhere it wants --yes.

\b
Examples:
  patron dlq purge config.yaml orders 17
  patron dlq purge config.yaml orders --older-than 30d --yes
  patron dlq purge config.yaml orders --all
"""
)
@_config
@_consumer
@_ids
@click.option("--all", "all_", is_flag=True, help="All of them.")
@_reason
@click.option(
    "--older-than", callback=moment, metavar="TIME", help="Only those from before TIME: 30d, 2026-11-21."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_wait
def purge(
    config: str | None,
    consumer: str | None,
    ids: Sequence[str],
    all_: bool,
    reason: str | None,
    older_than: float | None,
    yes: bool,
    wait: float,
) -> int:
    """Delete dead letters of CONSUMER for ever."""
    from patron.cli import dlqwork
    from patron.consumer.letters import Selection

    path, names = located(config, consumer, *ids)
    _refuse_vague(names, all_, reason is not None or older_than is not None)
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: say --yes", click.get_current_context())
    selection = Selection(frozenset(names[1:]), reason, before=older_than)
    return dlqwork.purged(
        [target(path, names[0])] if names else targets(path), selection, ask=not yes, wait=wait
    )


def _refuse_vague(names: Sequence[str], all_: bool, filtered: bool) -> None:
    """Nothing is published or deleted because a word was forgotten."""
    ids = names[1:]
    if ids and (all_ or filtered):
        raise click.UsageError("give either ids or a condition", click.get_current_context())
    if not (ids or all_ or filtered):
        raise click.UsageError("say which: their ids, --all, or a condition", click.get_current_context())
