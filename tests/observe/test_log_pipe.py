"""Log lines of several processes in one pipe, and a standard error that is closed, broken or slow."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from patron.observe.jsonlog import JsonLines
from patron.observe.sink import PIPE_BUF, FileSink

Start = Callable[..., "subprocess.Popen[bytes]"]

TALKER = """
import sys
from patron.observe import log, LogSettings
log.start("shop", "1", LogSettings())
me = sys.argv[1]
for number in range(300):
    log.info("long", me=me, number=number, text=(me + str(number)) * 2500)
    log.info("short", me=me, number=number)
"""


def test_long_and_short_lines_of_four_processes_come_out_of_a_pipe_whole(process: Start) -> None:
    read, write = os.pipe()
    talkers = [process(TALKER, name, stderr=write) for name in "abcd"]
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        written = [json.loads(line) for line in pipe]
    assert [talker.wait(timeout=60) for talker in talkers] == [0] * 4
    assert len(written) == 4 * 600
    for name in "abcd":
        assert [each["number"] for each in written if each["me"] == name and each["msg"] == "long"] == list(
            range(300)
        )
    assert all(each.get("cut") is (True if each["msg"] == "long" else None) for each in written)


def test_lines_into_a_file_are_not_cut(tmp_path: Path, process: Start) -> None:
    with (tmp_path / "log").open("ab") as file:
        assert process(TALKER, "a", stderr=file).wait(timeout=60) == 0
    written = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert len(written[0]["text"]) == 5000
    assert len(written) == 600


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "x" * 5000},
        {"text": "é" * 5000, "other": "y" * 5000},
        {"items": list(range(5000))},
        {"nested": {"a": "x" * 9000}, "short": 1},
        {f"key{number}": number for number in range(900)},
        {"k" * 6000: 1},
        {"raw": b"\x00" * 8000},
    ],
    ids=lambda fields: next(iter(fields))[:10],
)
def test_a_line_that_is_too_long_is_cut_to_what_a_pipe_takes_and_says_so(fields: dict[str, object]) -> None:
    rendered = JsonLines({"srv": "shop"}, limit=PIPE_BUF).render("info", "event", "here:1", 0, fields)
    assert len(rendered) <= PIPE_BUF
    assert rendered.count(b"\n") == 1
    written = json.loads(rendered)
    assert (written["msg"], written["srv"], written["cut"]) == ("event", "shop", True)


def test_a_traceback_that_is_cut_keeps_its_end() -> None:
    long = "Traceback\n" + "  frame\n" * 2000 + "ValueError: the reason"
    rendered = JsonLines({}, limit=PIPE_BUF).render(
        "error", "failed", "here:1", 0, {"exception": long, "order": 7}
    )
    written = json.loads(rendered)
    assert written["exception"].startswith("Traceback\n")
    assert written["exception"].endswith("ValueError: the reason")
    assert written["order"] == 7
    assert len(rendered) > PIPE_BUF * 3 // 4


def test_an_event_that_is_too_long_is_cut_too() -> None:
    assert len(JsonLines({}, limit=PIPE_BUF).render("info", "x" * 50_000, "here:1", 0, {})) <= PIPE_BUF


def test_a_standard_error_that_is_closed_does_not_break_what_logs(process: Start) -> None:
    script = (
        "import os, sys; from patron.observe import log, LogSettings; os.close(2); log.start('a', '1', LogSettings());"
        "log.info('lost'); import logging; logging.getLogger('x').error('lost'); print('on')"
    )
    ended = process(script, stdout=subprocess.PIPE)
    assert ended.communicate(timeout=60)[0] == b"on\n"
    assert ended.returncode == 0


def test_a_reader_that_went_away_does_not_break_what_logs() -> None:
    read, write = os.pipe()
    sink = FileSink(write)
    os.close(read)
    sink(b"lost\n")
    os.close(write)
    sink(b"lost\n")
    assert sink.lost == 2


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    sink = FileSink(write)
    while True:
        try:
            os.write(write, b"x" * 4096)
        except BlockingIOError:
            break
    drained = os.fork()
    if drained == 0:
        os.close(write)
        while os.read(read, 65536):
            pass
        os._exit(0)
    os.close(read)
    for _ in range(100):
        sink(b"y" * 4095 + b"\n")
    os.close(write)
    assert os.waitpid(drained, 0)[1] == 0
    assert sink.lost == 0


def test_a_full_disk_does_not_break_what_logs() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink = FileSink(full.fileno())
        sink(b"lost\n")
    assert sink.lost == 1
