"""Dead letters at the command line: looked at, published again and deleted, on a queue file."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from patron import Consumer, SqliteSource
from patron.cli import letterview
from patron.cli.program import run
from patron.consumer import Message, RetryPolicy, Stats
from patron.consumer.letters import Letter, Letters, Selection
from patron.consumer.replaying import replay
from patron.errors import PublishFailed, SourceError, Stale
from patron.sources.memory import MemorySource, memory_broker
from patron.testing import until
from patron.testing.driving import driven

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
name: shop
http: {port: 8080}
consumers:
  - {name: orders, source: {type: sqlite, path: q.db, topic: orders}, processor: "wares:process"}
  - {name: bills, source: {type: sqlite, path: q.db, topic: bills}, processor: "wares:process"}
"""


@dataclass
class Said:
    """What a command wrote, and its status."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Shop:
    """A folder with a service whose consumers have dead letters."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        Path("wares.py").write_text("def process(message): ...\n")
        Path("config.yaml").write_text(CONFIG)

    def source(self, topic: str = "orders") -> SqliteSource:
        return SqliteSource("q.db", topic)

    def publish(self, *bodies: bytes, topic: str = "orders", **headers: str) -> None:
        publisher = self.source().publisher()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for body in bodies:
            publisher.publish(topic, body, key="c1", headers=named)
        publisher.close()

    def consume(self, process: Callable[[Message], object], topic: str = "orders") -> None:
        """What is in *topic*, until nothing is."""
        consumer = Consumer(topic, self.source(topic), process, retry=RetryPolicy(attempts=2, initial=0.01))
        with driven(consumer):
            until(lambda: not self.source(topic).browse())

    def fail(self, *bodies: bytes, topic: str = "orders", why: str = "the database is away") -> None:
        """Have dead letters with *bodies*, which a consumer has made."""
        self.publish(*bodies, topic=topic, content_type="application/json")

        def process(message: Message) -> None:
            raise RuntimeError(why)

        self.consume(process, topic)

    def letters(self, topic: str = "orders.dlq") -> list[bytes]:
        return [letter.body for letter in self.source().browse(topic)]

    def ids(self) -> list[str]:
        return [letter.id for letter in self.source().browse("orders.dlq")]

    def __call__(self, *arguments: str) -> Said:
        self._capsys.readouterr()
        status = run(["dlq", *arguments])
        said = self._capsys.readouterr()
        return Said(status, said.out, said.err)


@pytest.fixture
def shop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shop]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("PATRON_CONFIG", raising=False)
    monkeypatch.delitem(sys.modules, "wares", raising=False)
    yield Shop(capsys)
    sys.modules.pop("wares", None)


# list


def test_without_a_name_every_consumer_is_counted(shop: Shop) -> None:
    shop.fail(b"1", b"2")
    said = shop("list", "config.yaml")
    assert (said.status, said.err) == (0, "")
    assert [line.split() for line in said.lines] == [
        ["CONSUMER", "TOPIC", "LETTERS"],
        ["orders", "orders.dlq", "2"],
        ["bills", "bills.dlq", "0"],
    ]
    rows = [json.loads(line) for line in shop("list", "config.yaml", "--json").lines]
    assert rows[0] == {"consumer": "orders", "topic": "orders.dlq", "letters": 2}


def test_counting_makes_no_file(shop: Shop) -> None:
    assert shop("list", "config.yaml").status == 0
    assert not Path("q.db").exists()


def test_listing_tells_where_a_letter_came_from_and_why_and_consumes_nothing(shop: Shop) -> None:
    shop.fail(b'{"n": 1}')
    for _ in range(2):
        said = shop("list", "config.yaml", "orders")
        head, row = said.lines
        assert head.split() == [
            "ID",
            "WHEN",
            "TOPIC",
            "KEY",
            "ATTEMPTS",
            "FIRST",
            "FAILURE",
            "SIZE",
            "REASON",
        ]
        cells = re.split(r"\s{2,}", row)
        assert cells[0] == shop.ids()[0]
        assert cells[2:5] == ["orders", "c1", "2"]
        assert cells[6:] == ["8", "RuntimeError: the database is away"]
    [letter] = shop.source().browse("orders.dlq")
    assert letter.deliveries == 0, "no lease was taken"


def test_listing_for_programs_is_one_object_a_line(shop: Shop) -> None:
    shop.fail(b"1", b"2", b"3")
    rows = [json.loads(line) for line in shop("list", "config.yaml", "orders", "--json").lines]
    assert [row["id"] for row in rows] == shop.ids()
    first = rows[0]
    assert (first["topic"], first["attempts"], first["replays"], first["size"]) == ("orders", 2, 0, 1)
    assert first["reason"] == "RuntimeError: the database is away"
    assert first["headers"]["content-type"] == "application/json"


def test_a_long_list_is_cut_and_says_so(shop: Shop) -> None:
    shop.fail(b"1", b"2", b"3")
    said = shop("list", "config.yaml", "orders", "--limit", "2")
    assert len(said.lines) == 3
    assert said.err == "patron: warning: these are the first 2 of 3: --limit shows more\n"
    said = shop("list", "config.yaml", "orders", "--limit", "0")
    assert (len(said.lines), said.err) == (4, "")


def test_more_letters_than_are_fetched_at_once_are_all_listed(shop: Shop) -> None:
    shop.publish(*(b"%d" % n for n in range(120)), topic="orders.dlq")
    assert len(shop("list", "config.yaml", "orders", "--json", "--limit", "0").lines) == 120


def test_letters_are_chosen_by_reason_and_time(shop: Shop) -> None:
    shop.fail(b"1", why="Connection REFUSED")
    shop.fail(b"2", why="no such customer")

    def sizes(*options: str) -> int:
        return len(shop("list", "config.yaml", "orders", "--json", *options).lines)

    assert sizes("--reason", "refused") == 1
    assert sizes("--since", "1h") == 2
    assert sizes("--since", "2999-01-01") == 0
    assert sizes("--since", "0s") == 0


def test_what_a_letter_says_cannot_command_the_terminal(shop: Shop) -> None:
    shop.publish(b"\x1b[2J", topic="orders.dlq", x_patron_reason="\x1b[31m\u202eevil", other="a\nb\x07")
    [id_] = shop.ids()
    for said in (shop("list", "config.yaml", "orders"), shop("show", "config.yaml", "orders", id_)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", said.out)
        assert "\\x1b[31m\\x202eevil" in said.out


@pytest.mark.parametrize("seconds", [1.7e12, 1.8e19, -1e15])
def test_a_letter_with_a_time_that_is_none_is_shown_all_the_same(seconds: float) -> None:
    letter = Letter(Message(b"x", "orders.dlq", "7", timestamp=seconds))
    assert letterview.row(letter)["when"] == letterview.as_object(letter)["when"] == str(seconds)


def test_counts_that_are_none_are_not_believed() -> None:
    headers = {"x-patron-attempts": "9" * 5000, "x-patron-replays": "9" * 5000}
    letter = Letter(Message(b"x", "orders.dlq", "7", headers))
    assert (letter.attempts, letter.replays) == (None, 0)


# show


def test_a_letter_is_shown_with_its_reason_headers_and_body(shop: Shop) -> None:
    shop.fail(b'{"n": [1, 2]}')
    said = shop("show", "config.yaml", "orders", shop.ids()[0])
    assert said.status == 0
    about, _, body = said.out.partition("\n\n")
    shown = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in about.splitlines() if "  " in line)
    assert shown["reason"] == "RuntimeError: the database is away"
    assert shown["error"] == "RuntimeError"
    assert "content-type: application/json" in about
    assert "x-patron-" not in about
    assert body == '{\n  "n": [\n    1,\n    2\n  ]\n}\n'


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("käse".encode(), "käse"),
        (b"\x00\xff" * 10, "00000000  00 ff 00 ff 00 ff 00 ff 00 ff 00 ff 00 ff 00 ff  ................"),
        (b"x" * 70_000, "... 4464 of 70000 bytes are left out: --raw writes all of them"),
    ],
    ids=["text", "binary", "large"],
)
def test_a_body_is_shown_as_what_it_is(shop: Shop, body: bytes, seen: str) -> None:
    shop.publish(body, topic="orders.dlq")
    assert seen in shop("show", "config.yaml", "orders", shop.ids()[0]).lines


def test_the_raw_body_is_the_bytes_and_nothing_else(shop: Shop) -> None:
    body = bytes(range(256))
    shop.publish(body, topic="orders.dlq")
    command = [sys.executable, "-m", "patron", "dlq", "show", "config.yaml", "orders", shop.ids()[0], "--raw"]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )
    assert done.stdout == body


@pytest.mark.parametrize(
    ("body", "as_object"),
    [(b'{"n": 1}', {"body": {"n": 1}}), (b"text", {"body": "text"}), (b"\xff", {"body_base64": "/w=="})],
)
def test_a_letter_is_shown_to_programs(shop: Shop, body: bytes, as_object: dict[str, object]) -> None:
    shop.publish(body, topic="orders.dlq")
    shown = json.loads(shop("show", "config.yaml", "orders", shop.ids()[0], "--json").out)
    assert as_object.items() <= shown.items()


def test_a_letter_that_is_not_there_is_one_line_and_status_1(shop: Shop) -> None:
    said = shop("show", "config.yaml", "orders", "4711")
    assert (said.status, said.out) == (1, "")
    assert said.err == "patron: there is no dead letter '4711' in orders.dlq\n"


# replay


def test_a_letter_goes_back_where_it_came_from_without_what_told_of_its_death(shop: Shop) -> None:
    shop.fail(b'{"n": 1}', b'{"n": 2}')
    [before, _] = shop.source().browse("orders.dlq")
    said = shop("replay", "config.yaml", "orders", before.id)
    assert (said.status, said.out) == (0, "orders: 1 replayed\n")
    assert shop.letters() == [b'{"n": 2}']
    [message] = shop.source().browse()
    assert (message.body, message.key) == (b'{"n": 1}', "c1")
    assert message.headers["content-type"] == "application/json"
    assert message.headers["X-Correlation-Id"] == before.headers["X-Correlation-Id"]
    assert {name for name in message.headers if name.startswith("x-patron-")} == {
        "x-patron-replays",
        "x-patron-replayed",
    }


def test_how_often_a_letter_was_replayed_is_counted_over_its_deaths(shop: Shop) -> None:
    shop.fail(b"1")
    for times in (1, 2):
        assert shop("replay", "config.yaml", "orders", "--all").status == 0
        shop.fail()
        [shown] = shop("list", "config.yaml", "orders", "--json").lines
        assert json.loads(shown)["replays"] == times


def test_all_letters_of_all_consumers_are_replayed(shop: Shop) -> None:
    shop.fail(*(b"%d" % n for n in range(60)))
    shop.fail(b"bill", topic="bills")
    said = shop("replay", "config.yaml", "--all")
    assert (said.status, said.lines) == (0, ["orders: 60 replayed", "bills: 1 replayed"])
    assert shop.letters() == []
    assert [m.body for m in shop.source().browse()] == [b"%d" % n for n in range(60)], "in their order"
    assert shop.letters("bills") == [b"bill"]


def test_a_letter_can_go_elsewhere_but_not_in_a_circle(shop: Shop) -> None:
    shop.fail(b"1")
    assert shop("replay", "config.yaml", "orders", "--all", "--to", "orders.dlq").status == 2
    assert shop("replay", "config.yaml", "orders", "--all", "--to", "fixed").status == 0
    assert (shop.letters("fixed"), shop.letters()) == ([b"1"], [])


def test_a_letter_that_does_not_say_where_it_came_from_goes_where_the_consumer_reads(shop: Shop) -> None:
    shop.publish(b"foreign", topic="orders.dlq")
    assert shop("replay", "config.yaml", "orders", "--all").status == 0
    assert shop.letters("orders") == [b"foreign"]


def test_a_dry_run_tells_what_would_go_where_and_moves_nothing(shop: Shop) -> None:
    shop.fail(b"1", b"2")
    said = shop("replay", "config.yaml", "orders", "--all", "--limit", "1", "--dry-run")
    assert (said.status, said.lines) == (0, [f"{shop.ids()[0]} -> orders", "orders: 1 would be replayed"])
    assert (shop.letters(), shop.letters("orders")) == ([b"1", b"2"], [])


def test_letters_are_replayed_by_their_reason(shop: Shop) -> None:
    shop.fail(b"1", why="timeout")
    shop.fail(b"2", why="nonsense")
    assert shop("replay", "config.yaml", "orders", "--reason", "TIMEOUT").out == "orders: 1 replayed\n"
    assert shop.letters() == [b"2"]


def test_an_id_that_is_not_there_fails_and_the_others_are_replayed(shop: Shop) -> None:
    shop.fail(b"1")
    said = shop("replay", "config.yaml", "orders", "4711", shop.ids()[0])
    assert (said.status, said.out) == (1, "orders: 1 replayed\n")
    assert said.err == "patron: there is no dead letter '4711' in orders.dlq\n"


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_nothing_is_done_when_nobody_said_to_what(shop: Shop, command: str) -> None:
    shop.fail(b"1")
    assert shop(command, "config.yaml", "orders").status == 2
    assert shop(command, "config.yaml").status == 2
    assert shop(command, "config.yaml", "orders", shop.ids()[0], "--all").status == 2
    assert shop.letters() == [b"1"]


def test_the_rate_is_kept_and_ctrl_c_ends_it_between_two_letters(shop: Shop) -> None:
    shop.fail(b"1", b"2", b"3")
    shop.fail(b"bill", topic="bills")
    command = [
        sys.executable,
        "-m",
        "patron",
        "dlq",
        "replay",
        "config.yaml",
        "--all",
        "--rate",
        "0.01",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    until(lambda: shop.letters() == [b"2", b"3"], 20)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "orders: 1 replayed\n")
    assert err == "patron: warning: interrupted: the others are as they were\n"
    assert (shop.letters("orders"), shop.letters()) == ([b"1"], [b"2", b"3"])
    assert shop.letters("bills.dlq") == [b"bill"], "and does not go on with the next consumer"


# purge


def test_deleting_asks_for_yes_where_nobody_can_be_asked(shop: Shop) -> None:
    shop.fail(b"1")
    said = shop("purge", "config.yaml", "orders", "--all")
    assert (said.status, "--yes" in said.err) == (2, True)
    assert shop.letters() == [b"1"]


def test_letters_are_deleted_by_id_and_age_and_all(shop: Shop) -> None:
    shop.fail(b"1", b"2", b"3")
    assert shop("purge", "config.yaml", "orders", shop.ids()[1], "--yes").out == "orders: 1 deleted\n"
    assert shop.letters() == [b"1", b"3"]
    assert (
        shop("purge", "config.yaml", "orders", "--older-than", "1h", "--yes").out == "orders: nothing to do\n"
    )
    assert shop("purge", "config.yaml", "orders", "--older-than", "0s", "--yes").out == "orders: 2 deleted\n"
    shop.publish(*[b"x"] * 120, topic="orders.dlq")
    assert shop("purge", "config.yaml", "--all", "--yes").lines == [
        "orders: 120 deleted",
        "bills: nothing to do",
    ]


def at_a_terminal(*arguments: str, answer: str) -> tuple[int, str]:
    """The status of the command, and what the terminal shows."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "patron", "dlq", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(slave)
    os.write(master, answer.encode())
    seen = b""
    try:
        while data := os.read(master, 4096):
            seen += data
    except OSError:  # the other end was closed: that is how a terminal ends on Linux
        pass
    os.close(master)
    return process.wait(), seen.decode()


@pytest.mark.parametrize(("answer", "status", "left"), [("n\n", 1, [b"1", b"2"]), ("y\n", 0, [])])
def test_deleting_asks_at_a_terminal(shop: Shop, answer: str, status: int, left: list[bytes]) -> None:
    shop.fail(b"1", b"2")
    ended, seen = at_a_terminal("purge", "config.yaml", "orders", "--all", answer=answer)
    assert "Delete dead letters in orders.dlq (now 2) for ever? [y/N]" in seen
    assert (ended, shop.letters()) == (status, left)


# The configuration.


def test_the_configuration_may_come_from_the_environment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fail(b"1")
    monkeypatch.setenv("PATRON_CONFIG", "config.yaml")
    assert len(shop("list").lines) == 3
    assert len(shop("list", "orders").lines) == 2
    assert shop("show", "orders", shop.ids()[0]).status == 0
    assert len(shop("list", "config.yaml", "orders").lines) == 2
    assert shop("replay", "orders", shop.ids()[0]).out == "orders: 1 replayed\n"


def test_a_wrong_name_is_refused_with_the_nearest(shop: Shop) -> None:
    said = shop("list", "config.yaml", "ordrs")
    assert said.status == 2
    assert said.err == "patron: there is no consumer 'ordrs' with dead letters (did you mean 'orders'?)\n"


@pytest.mark.parametrize(
    "arguments", [("list",), ("show", "config.yaml", "orders"), ("lost",), ("list", "no.yaml")]
)
def test_wrong_usage_is_status_2(shop: Shop, arguments: Sequence[str]) -> None:
    said = shop(*arguments)
    assert (said.status, "Traceback" in said.err) == (2, False)
    assert said.err


def test_a_time_that_is_none_is_refused(shop: Shop) -> None:
    said = shop("list", "config.yaml", "orders", "--since", "yesterday")
    assert (said.status, "neither a duration" in said.err) == (2, True)


def test_a_consumer_without_dead_letters_is_none_of_them(shop: Shop) -> None:
    text = CONFIG.replace('"wares:process"}', '"wares:process", dead_letters: none, on_exhausted: skip}', 1)
    Path("config.yaml").write_text(text)
    assert [line.split()[0] for line in shop("list", "config.yaml").lines] == ["CONSUMER", "bills"]
    assert "there are bills" in shop("list", "config.yaml", "x").err


def test_the_letters_of_the_memory_source_are_in_another_process_which_is_said(shop: Shop) -> None:
    text = CONFIG.replace("{type: sqlite, path: q.db, topic: bills}", "{type: memory, topic: bills}")
    Path("config.yaml").write_text(text)
    shop.fail(b"1")
    said = shop("list", "config.yaml")
    assert said.status == 1
    assert [line.split() for line in said.lines[1:]] == [
        ["orders", "orders.dlq", "1"],
        ["bills", "bills.dlq", "-"],
    ]
    assert said.err.startswith("patron: bills: bills.dlq is a topic of the memory source")
    said = shop("replay", "config.yaml", "--all")
    assert (said.status, said.out) == (1, "orders: 1 replayed\n"), "one is no reason to leave the other"


def test_a_file_that_is_no_queue_is_a_failure_in_one_line(shop: Shop) -> None:
    Path("q.db").write_bytes(b"something else" * 500)
    said = shop("list", "config.yaml", "orders")
    assert said.status == 1
    assert said.err.startswith("patron: ")
    assert "Traceback" not in said.err


# What is underneath, where a shell does not reach.


def test_a_letter_that_a_consumer_of_the_letters_is_processing_is_left_alone(shop: Shop) -> None:
    shop.publish(b"1", b"2", topic="orders.dlq")
    other = shop.source("orders.dlq").open()
    assert len(other.poll(10, 1)) == 2
    try:
        said = shop("purge", "config.yaml", "orders", "--all", "--yes")
        assert (said.status, said.out) == (1, "orders: 2 failed\n")
    finally:
        other.close()
    assert shop.letters() == [b"1", b"2"]


def test_what_fails_again_meanwhile_is_not_replayed_for_ever() -> None:
    source, broker = MemorySource("looping"), memory_broker()
    broker.publish("looping.dlq", b"1", headers={"x-patron-topic": "looping"})

    def process(message: Message) -> None:
        raise RuntimeError("still broken")

    with (
        driven(Consumer("looping", source, process, retry=RetryPolicy(attempts=1))),
        Letters(source, "looping.dlq", patience=1) as letters,
    ):
        outcomes = []
        for result in replay(letters, Selection(), otherwise="looping"):
            outcomes.append(result.outcome)
            until(lambda: len(broker.messages("looping.dlq")) == 1)
    assert outcomes == ["replayed"]
    [letter] = broker.messages("looping.dlq")
    assert letter.headers["x-patron-replays"] == "1"


def test_a_letter_that_cannot_be_published_stays() -> None:
    source, broker = MemorySource("refusing"), memory_broker()
    broker.publish("refusing.dlq", b"1")
    broker.fail_publish()
    with Letters(source, "refusing.dlq", patience=0.1) as letters:
        [result] = replay(letters, Selection(), otherwise="refusing")
        assert (result.outcome, type(result.error)) == ("failed", PublishFailed)
    assert [m.body for m in broker.messages("refusing.dlq")] == [b"1"]
    with Letters(source, "refusing.dlq", patience=0.1) as letters:
        assert [r.outcome for r in replay(letters, Selection(), otherwise="refusing")] == ["replayed"]


def test_a_letter_that_was_taken_away_meanwhile_is_told_to_be_there_twice() -> None:
    source, broker = MemorySource("taken"), memory_broker()
    broker.publish("taken.dlq", b"1")
    with Letters(source, "taken.dlq", patience=0.1) as letters:
        first = next(iter(letters))
        broker.expire_leases("taken.dlq")
        with pytest.raises(Stale):
            letters.remove([first])
    assert [m.body for m in broker.messages("taken.dlq")] == [b"1"]


def test_letters_outside_of_their_block_are_refused() -> None:
    with pytest.raises(SourceError, match="with block"):
        Letters(MemorySource("closed"), "closed.dlq").count()


def test_a_source_of_another_package_is_read_with_its_topic_replaced() -> None:
    @dataclass(frozen=True)
    class Other:
        """A source that does not know of dead letters."""

        queue: str
        system: str = "other"
        positional: bool = False

        @property
        def target(self) -> str:
            return self.queue

        def open(self) -> object:
            return MemorySource(self.queue).open()

        def publisher(self) -> object:
            return MemorySource(self.queue).publisher()

    memory_broker().publish("elsewhere.dlq", b"1")
    with Letters(Other("elsewhere"), "elsewhere.dlq", patience=0.1) as letters:
        assert [letter.message.body for letter in letters] == [b"1"]
    assert len(memory_broker().messages("elsewhere.dlq")) == 1, "and given back"


class Pile:
    """A subscription whose letters and leases the test decides."""

    def __init__(self, *polls: Sequence[str]) -> None:
        self.polls = list(polls)
        self.extended: list[list[str]] = []
        self.lost: list[str] = []

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        ids = self.polls.pop(0) if limit and self.polls else ()
        return [Message(b"", "pile", id_) for id_ in ids]

    def extend(self, messages: Sequence[Message]) -> None:
        self.extended.append([message.id for message in messages])
        if gone := [message for message in messages if message.id in self.lost]:
            raise Stale("lost", messages=gone)

    def stats(self) -> Stats:
        return Stats(1, 0)

    def close(self) -> None: ...


class Leased(MemorySource):
    """A source whose letters lie on *pile*."""

    pile: Pile

    def letters(self, topic: str) -> Pile:  # type: ignore[override]
        return self.pile


def lying_on(pile: Pile, clock: Callable[[], float]) -> Letters:
    source = Leased("pile", lease=6.0)
    object.__setattr__(source, "pile", pile)
    return Letters(source, "pile.dlq", patience=0.1, clock=clock)


def test_a_letter_that_comes_again_is_shown_once() -> None:
    pile = Pile(("a", "b"), ("b", "c"))
    with lying_on(pile, lambda: 0.0) as letters:
        assert [letter.id for letter in letters] == ["a", "b", "c"]


def test_leases_are_renewed_meanwhile_and_what_is_lost_is_not_shown() -> None:
    pile, now = Pile(("a", "b", "c")), [0.0]
    pile.lost = ["b"]
    with lying_on(pile, lambda: now[0]) as letters:
        seen = []
        for letter in letters:
            seen.append(letter.id)
            now[0] += 2.0  # a third of the lease
    assert seen == ["a", "c"]
    assert pile.extended == [["a", "b", "c"], ["a", "c"]]


REFUSING = """
from patron.errors import PublishFailed
from patron.sources.sqlite import SqliteSource

class Publisher:
    def publish(self, *args, **options): raise PublishFailed("the broker is full")
    def close(self): ...

class Refusing(SqliteSource):
    def publisher(self): return Publisher()

def process(message): ...
"""


def test_after_three_failures_in_a_row_no_more_are_tried(shop: Shop) -> None:
    shop.fail(b"1", b"2", b"3", b"4")
    Path("wares.py").write_text(REFUSING)
    Path("config.yaml").write_text(CONFIG.replace("type: sqlite", 'type: "wares:Refusing"'))
    said = shop("replay", "config.yaml", "orders", "--all")
    assert (said.status, said.out) == (1, "orders: 3 failed\n")
    assert said.err.count("not published to orders, so it stays: the broker is full") == 3
    assert "3 letters in a row failed: the others were not tried" in said.err
    assert len(shop.letters()) == 4
