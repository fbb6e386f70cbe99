"""Log lines: their keys, what they survive, and who may change them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patron import correlation
from patron.correlation import CorrelationSettings
from patron.errors import ConfigError, Panic
from patron.observe import LogSettings, capture, log
from patron.observe.console import ConsoleLines
from patron.observe.jsonlog import JsonLines

Capture = pytest.CaptureFixture[str]


class Raises:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def started(**settings: Any) -> None:
    log.start("shop", "1.4.0", LogSettings(**settings))


def lines(capfd: Capture) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=_refuse) for line in capfd.readouterr().err.splitlines()]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def line(capfd: Capture) -> dict[str, Any]:
    (only,) = lines(capfd)
    return only


def test_a_line_has_the_keys_of_the_original_in_their_order(capfd: Capture) -> None:
    started(fields={"team": "orders"})
    with correlation.use("abc"):
        log.info("order stored", order=7, items=["A1"])
    written = line(capfd)
    assert list(written) == [
        "lvl", "time", "src", "msg", "srv", "ver", "host", "team", "correlationID", "order", "items",
    ]  # fmt: skip
    assert written | {"time": "", "host": "", "src": ""} == {
        "lvl": "info", "time": "", "src": "", "msg": "order stored", "srv": "shop", "ver": "1.4.0", "host": "",
        "team": "orders", "correlationID": "abc", "order": 7, "items": ["A1"],
    }  # fmt: skip
    assert abs((datetime.now(UTC) - datetime.fromisoformat(written["time"])).total_seconds()) < 60


def test_the_source_is_the_line_that_logs(capfd: Capture) -> None:
    started()
    here = sys._getframe().f_lineno
    log.info("a")
    log.sub(a=1).warn("b")
    log.from_context().error("c")
    with pytest.raises(Panic):
        log.panic("d")
    assert [each["src"] for each in lines(capfd)] == [
        f"{__name__}:{here + offset}" for offset in (1, 2, 3, 5)
    ]


def test_third_party_lines_come_out_alike(capfd: Capture) -> None:
    started(fields={"team": "orders"})
    with correlation.use("abc"):
        logging.getLogger("driver").warning(
            "lost %s", "it", extra={"broker": "b1", "raw": b"\xff", "ratio": float("nan")}
        )
    written = line(capfd)
    assert list(written)[:9] == ["lvl", "time", "src", "msg", "srv", "ver", "host", "team", "correlationID"]
    assert (written["lvl"], written["msg"], written["correlationID"]) == ("warn", "lost it", "abc")
    assert written["src"].startswith("driver:")
    assert (written["broker"], written["raw"], written["ratio"]) == ("b1", "\\xff", "nan")


def test_a_third_party_line_with_arguments_that_do_not_fit_is_not_lost(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # the one of pytest raises
    started()
    logging.getLogger("driver").error("%d items", "many")
    logging.getLogger("driver").error("%s", Raises())
    assert [each["msg"] for each in lines(capfd)] == ["%d items", "%s"]


def test_a_third_party_exception_brings_its_traceback(capfd: Capture) -> None:
    started()
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("driver").exception("failed")
    assert "ZeroDivisionError: division by zero" in line(capfd)["exception"]


def test_lines_below_the_level_are_not_written_by_anyone(capfd: Capture) -> None:
    started(level="warn")
    for logger in (log, log.sub(a=1)):
        logger.debug("no")
        logger.info("no")
        logger.warn("yes")
    logging.getLogger("driver").info("no")
    logging.getLogger("driver").warning("yes")
    assert [each["msg"] for each in lines(capfd)] == ["yes"] * 3
    assert not log.enabled("info")
    assert log.enabled("error")


def test_the_level_can_be_changed_at_run_time(capfd: Capture) -> None:
    started()
    log.set_level("debug")
    log.debug("ours")
    logging.getLogger("driver").debug("theirs")
    log.set_level("error")
    log.set_level("error", "driver")
    log.warn("no")
    assert log.level() == "error"
    assert [each["msg"] for each in lines(capfd)] == ["ours", "theirs"]
    logging.getLogger("driver").setLevel(logging.NOTSET)
    with pytest.raises(ConfigError, match="level 'loud' is unknown: use one of debug, info"):
        log.set_level("loud")


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\x00", float("nan"), float("inf"), -float("inf"), 10**5000, 1 << 70, "\ud800", "a\udfffb",
        {"\ud800": 1}, {(1, 2): 3}, {Raises(): 1}, Raises(), [Raises()], {1, 2}, object(), datetime.now(UTC),
        Path("/x"), OSError("no"),
        {"deep": {"er": {"and": {"deeper": [[[[[[[1]]]]]]]}}}}, "line\nfeed", "\x00\x1b[31m", None, True,
        range(3), 1e300, memoryview(b"abc"), ValueError(Raises()),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_no_value_loses_the_line(value: object, capfd: Capture) -> None:
    started()
    log.info("odd", value=value, other="kept")
    written = line(capfd)
    assert (written["msg"], written["other"]) == ("odd", "kept")
    json.dumps(written, ensure_ascii=False).encode()  # refuses half a surrogate pair


def test_a_cycle_ends(capfd: Capture) -> None:
    started()
    cycle: dict[str, Any] = {"a": 1}
    cycle["self"] = cycle
    endless: list[Any] = []
    endless.extend([endless, endless])
    log.info("odd", cycle=cycle, endless=endless, other="kept")
    written = line(capfd)
    assert (written["cycle"]["a"], written["other"]) == (1, "kept")


def test_characters_beyond_the_basic_plane_stay(capfd: Capture) -> None:
    started()
    log.info("grüße 🙂", value="🙂 \\ud800")
    written = line(capfd)
    assert (written["msg"], written["value"]) == ("grüße 🙂", "🙂 \\ud800")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(),
    st.dictionaries(
        st.text(), st.recursive(st.none() | st.floats() | st.integers() | st.text() | st.binary(), st.lists)
    ),
)
def test_every_line_is_one_line_of_json(event: str, fields: dict[str, Any]) -> None:
    rendered = JsonLines({"srv": "shop"}).render("info", event, "here:1", 0, fields)
    assert rendered.count(b"\n") == 1
    written = json.loads(rendered, parse_constant=_refuse, object_pairs_hook=_no_duplicates)
    assert (written["lvl"], written["src"], written["srv"]) == ("info", "here:1", "shop")
    assert len(written) >= 5 + len(fields)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), f"a key is there twice: {pairs}"
    return dict(pairs)


def test_a_field_called_like_a_key_of_ours_gets_another_name(capfd: Capture) -> None:
    started(fields={"team": "orders"})
    log.info("x", src="mine", time="now", team="other", correlationID="none")
    written = line(capfd)
    assert (written["src_"], written["time_"], written["team"], written["correlationID_"]) == (
        "mine",
        "now",
        "other",
        "none",
    )
    assert written["src"].startswith(__name__)


def test_an_error_brings_its_traceback_and_a_group_all_of_its_members(capfd: Capture) -> None:
    started()
    try:
        raise ExceptionGroup("both", [ValueError("first"), TypeError("second")]) from OSError("cause")
    except ExceptionGroup as error:
        log.error("failed", exc_info=error)
    try:
        raise KeyError("k")
    except KeyError:
        log.error("failed", exc_info=True)
    log.error("failed", exc_info=None)
    group, single, none = lines(capfd)
    assert all(
        part in group["exception"] for part in ("ValueError: first", "TypeError: second", "OSError: cause")
    )
    assert "in test_an_error_brings" in single["exception"]
    assert single["error"] == "KeyError: 'k'"
    assert "exception" not in none


def test_an_error_without_a_text_still_brings_its_traceback(capfd: Capture) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    started()
    try:
        raise Broken
    except Broken as error:
        log.error("failed", exc_info=error)
    assert "Broken" in line(capfd)["exception"]


def test_fields_of_the_context_and_of_sub_loggers_are_on_the_line(capfd: Capture) -> None:
    started()
    with log.with_context(order=1, customer="c1"):
        log.info("a")
        with log.with_context(order=2):
            log.sub(step="pay").info("b", customer="c2")
        log.info("c")
    log.info("d")
    a, b, c, d = lines(capfd)
    assert (a["order"], a["customer"]) == (c["order"], c["customer"]) == (1, "c1")
    assert (b["order"], b["customer"], b["step"]) == (2, "c2", "pay")
    assert "order" not in d


def test_the_context_filter_hides_what_is_secret_and_its_failure_shows_nothing(capfd: Capture) -> None:
    correlation.configure(CorrelationSettings(forward=("X-User",)))
    with correlation.use("abc", {"X-User": "ann"}):
        started()
        log.info("plain")
        started(context_filter=lambda carried: {**carried, "X-User": "***"})
        log.info("hidden")
        started(context_filter=lambda carried: carried["nothing"])
        log.info("broken")
    plain, hidden, broken = lines(capfd)
    assert plain["X-User"] == "ann"
    assert (hidden["X-User"], hidden["correlationID"]) == ("***", "abc")
    assert "X-User" not in broken
    assert broken["msg"] == "broken"


def test_fatal_logs_and_ends_with_status_1(capfd: Capture) -> None:
    started()
    with pytest.raises(SystemExit) as ended:
        log.fatal("no disk", path="/data")
    assert ended.value.code == 1
    assert (lines(capfd)[0]["lvl"]) == "fatal"


def test_inside_a_service_fatal_asks_it_to_stop(capfd: Capture) -> None:
    asked: list[str] = []
    assert callable(log.on_fatal(asked.append))
    with pytest.raises(SystemExit):
        log.sub(a=1).fatal("no disk")
    assert asked == ["no disk"]


def test_panic_logs_and_raises(capfd: Capture) -> None:
    started()
    with pytest.raises(Panic, match="impossible"):
        log.panic("impossible", n=1)
    assert line(capfd)["lvl"] == "panic"


def test_a_factory_of_ones_own_gets_every_line() -> None:
    got: list[tuple[str, str, Mapping[str, Any]]] = []

    def factory(fields: Mapping[str, Any]) -> log.Writer:
        return lambda level, event, src, line: got.append((level, event, {**fields, **line}))

    log.setup(factory, {"srv": "shop"})
    log.info("hello", n=1)
    assert got == [("info", "hello", {"srv": "shop", "n": 1})]


def test_without_a_factory_setup_writes_json(capfd: Capture) -> None:
    log.setup(None, {"srv": "shop"})
    log.info("hello")
    assert line(capfd)["srv"] == "shop"


def test_without_set_up_lines_go_to_the_standard_logger_and_nothing_is_configured(
    caplog: pytest.LogCaptureFixture, capfd: Capture
) -> None:
    handlers = list(logging.getLogger().handlers)
    with caplog.at_level(logging.INFO, "patron"):
        log.info("hello", n=1)
    assert caplog.messages == ['hello {"n":1}']
    assert logging.getLogger().handlers == handlers
    with pytest.raises(SystemExit):
        log.fatal("end")


def test_stop_takes_the_handler_off_and_gives_the_level_back() -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    started(level="debug")
    started(level="error")
    assert len(root.handlers) == len(before[0]) + 1
    log.stop()
    assert (list(root.handlers), root.level) == before


def test_lines_are_captured_for_tests() -> None:
    with capture() as seen, correlation.use("abc"):
        log.warn("odd", n=1)
        log.debug("quiet")
    assert [(each["lvl"], each["msg"], each.get("n")) for each in seen.lines] == [
        ("warn", "odd", 1),
        ("debug", "quiet", None),
    ]
    assert seen.lines[0]["correlationID"] == "abc"


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"PATRON_LOG_LEVEL": "loud"},
            "PATRON_LOG_LEVEL 'loud' is unknown: use one of debug, info, warn, error, fatal, panic",
        ),
        ({"PATRON_LOG_FORMAT": "xml"}, "PATRON_LOG_FORMAT 'xml' is unknown: use one of json, console"),
    ],
)
def test_an_unknown_name_in_the_environment_is_an_error_that_lists_the_known_ones(
    environ: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError) as error:
        LogSettings.from_env(environ)
    assert error.value.problems == (problem,)


def test_the_environment_wins_over_the_file_unless_it_is_empty() -> None:
    base = LogSettings(level="warn", format="console", fields={"a": 1})
    assert LogSettings.from_env({}, base) == base
    assert LogSettings.from_env({"PATRON_LOG_LEVEL": "", "PATRON_LOG_FORMAT": " "}, base) == base
    assert LogSettings.from_env({"PATRON_LOG_LEVEL": "DEBUG"}, base) == LogSettings(
        "debug", "console", {"a": 1}
    )


def test_the_console_format_is_for_eyes_and_cannot_steer_the_terminal(capfd: Capture) -> None:
    started(format="console")
    with correlation.use("abc"):
        log.error("failed \x1b[2J", path="/x", text="a b\n\x1b[31m", exc_info=ValueError("odd \x1b[31m"))
    written = capfd.readouterr().err
    assert "error failed \\x1b[2J" in written
    assert "path=/x" in written
    assert "correlationID=abc" in written
    assert "\x1b" not in written
    assert written.rstrip().endswith("ValueError: odd \\x1b[31m")


def test_the_console_has_colours_only_on_a_terminal() -> None:
    assert b"\x1b[" in ConsoleLines(colours=True).render("warn", "x", "here:1", 0, {})
    settings = "LogSettings(format='console')"
    script = f"from patron.observe import log, LogSettings; log.start('a', '1', {settings}); log.warn('x')"
    root = Path(__file__).parents[2]
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb", 0) as terminal:
        environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        subprocess.run(
            [sys.executable, "-c", script], cwd=root, env=environ, stderr=follower, timeout=60, check=True
        )
        assert b"\x1b[" in terminal.read(4096)
        environ["NO_COLOR"] = "1"
        subprocess.run(
            [sys.executable, "-c", script], cwd=root, env=environ, stderr=follower, timeout=60, check=True
        )
        assert b"\x1b[" not in terminal.read(4096)
    os.close(follower)
