"""The command line as a shell sees it: what it writes where, and its exit statuses."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from patron import Consumer, Service, SqliteSource

ROOT = Path(__file__).parent.parent.parent
COMMANDS = ("check", "completion", "components", "dlq", "routes", "run", "schema", "version")


class Shell:
    """A folder with a service in it, and the command beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "wares.py").write_text("def show(request): ...\ndef process(message): ...\n")
        self.write(
            """
            name: shop
            http: {port: 8080, routes: [{method: GET, path: /, processor: "wares:show"}]}
            consumers: [{name: orders, source: {type: sqlite, path: q.db, topic: t}, processor: "wares:process"}]
            """
        )

    def write(self, text: str) -> None:
        (self.directory / "config.yaml").write_text(textwrap.dedent(text))

    def environ(self, **more: str) -> dict[str, str]:
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("PATRON_", "NO_COLOR"))
        }
        return {**own, "PYTHONPATH": str(ROOT), **more}

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error::DeprecationWarning:patron", "-m", "patron", *arguments]
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def patron(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_without_arguments_it_explains_itself(patron):
    done = patron()
    assert done.returncode == 2
    assert "Commands:" in done.stdout + done.stderr


def test_help_lists_the_commands_and_shows_examples(patron):
    done = patron("--help")
    assert done.returncode == 0
    assert all(f"  {command}" in done.stdout for command in COMMANDS)
    assert "Examples:\n" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("group", [(), ("dlq",)])
def test_no_command_is_cut_short_where_they_are_listed(patron, group):
    assert "..." not in patron(*group, "--help").stdout.partition("Commands:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example(patron, command):
    done = patron(command, "-h")
    assert done.returncode == 0
    assert f"patron {command}" in done.stdout.partition("Example")[2]


def test_help_needs_nothing_heavy(patron):
    code = "import sys, patron.cli.program as p; p.run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=patron.directory,
        env=patron.environ(),
        capture_output=True,
        text=True,
    )
    assert not {"pydantic", "flask", "gunicorn", "yaml", "prometheus_client"} & set(done.stderr.split())


def test_an_unknown_command_is_refused_with_the_nearest(patron):
    done = patron("chekc", "config.yaml")
    assert done.returncode == 2
    assert "there is no command 'chekc': did you mean 'check'?" in done.stderr


def test_an_unknown_option_is_refused(patron):
    done = patron("check", "--jsn", "config.yaml")
    assert (done.returncode, "--jsn" in done.stderr) == (2, True)


@pytest.mark.parametrize("place", ["/proc/nowhere", "wares.py"])
def test_a_run_directory_that_cannot_be_used_is_one_line(patron, place):
    patron.write(f"name: shop\nhttp: {{port: 0}}\nrun_directory: {place}\n")
    done = patron("run", "config.yaml")
    assert done.returncode == 1
    assert re.fullmatch(
        rf"patron: run_directory {place} cannot be used: .*; choose a directory that .*\n", done.stderr
    )


def test_a_missing_argument_is_refused(patron):
    done = patron("check")
    assert done.returncode == 2
    assert "CONFIG" in done.stderr


def test_the_file_may_come_from_the_environment(patron):
    assert patron("check", PATRON_CONFIG="config.yaml").returncode == 0


def test_every_command_is_documented(patron):
    text = (ROOT / "docs" / "cli.md").read_text()
    assert [command for command in COMMANDS if f"`patron {command}" not in text] == []


# check


def test_a_right_configuration_is_ok_and_summed_up(patron):
    done = patron("check", "config.yaml")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == "config.yaml: ok"
    assert "component   orders (Consumer, reads sqlite:t at q.db, dead letters orders.dlq)" in lines
    assert any(line.startswith("sqlite      3.") and "(sqlite3)" in line for line in lines)
    assert not (patron.directory / "q.db").exists(), "checking starts nothing"


def test_an_older_sqlite_is_told_without_alarm(monkeypatch, capsys):
    from patron.config import summary
    from patron.sources.sqlite import SqliteVersion

    monkeypatch.setattr(
        summary, "sqlite_version", lambda driver: SqliteVersion(driver, "3.40.1", fixed=False)
    )
    consumer = Consumer("orders", SqliteSource("q.db", "t"), print)
    assert list(summary.lines(Service("shop", components=[consumer])))[-1] == (
        "sqlite      3.40.1 (sqlite3); older than the fix of the WAL-reset bug, "
        "which Patron's way of checkpointing avoids"
    )


# module:service


@pytest.fixture
def described(patron):
    (patron.directory / "shop.py").write_text(
        "from patron import Service, Route\n"
        "service = Service('shop', '1.4.0', routes=[Route('GET', '/wares', lambda request: None)])\n"
    )
    return patron


def test_a_service_in_code_is_checked_and_told_where_it_is(described):
    done = described("check", "shop:service", PATRON_WORKERS="3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "service     shop 1.4.0, 3 workers"
    assert lines[-1] == f"shop:service in {described.directory}/shop.py: ok"


def test_a_service_in_code_is_listed_and_printed(described):
    assert "/wares" in described("routes", "shop:service").stdout
    assert described("components", "shop:service", "--json").returncode == 0
    printed = described("run", "shop:service", "--print-config", PATRON_WORKERS="3").stdout
    assert re.search(r"^workers +3 +PATRON_WORKERS$", printed, re.MULTILINE)
    assert re.search(r"^grace +30.0 +shop:service$", printed, re.MULTILINE)


def test_a_factory_is_called_and_its_arguments_stay_as_they_are(described):
    (described.directory / "made.py").write_text("from patron import Service as make\n")
    reference = "made:make('toys', 'http://a//b')"
    assert described("check", reference).stdout.startswith("service     toys http://a//b, 1 worker\n")
    printed = described("run", "--print-config", PATRON_CONFIG=reference).stdout
    assert re.search(r"^version +http://a//b ", printed, re.MULTILINE)
    counted = described("dlq", "list", PATRON_CONFIG=reference)
    assert (counted.returncode, counted.stderr) == (0, "")


@pytest.mark.parametrize("command", ["check", "routes", "components", "run"])
def test_a_service_in_code_that_is_not_there_is_named(described, command):
    done = described(command, "nope:service")
    assert (done.returncode, done.stderr) == (2, "patron: there is no module 'nope'\n")


@pytest.mark.parametrize("how", ["code", "reference"])
def test_a_wrong_variable_is_refused_for_a_service_in_code_too(described, how):
    if how == "reference":
        done = described("run", "shop:service", PATRON_WORKERS="two")
    else:
        done = subprocess.run(
            [sys.executable, "-c", "import shop; shop.service.run()"],
            cwd=described.directory,
            env=described.environ(PATRON_WORKERS="two"),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stderr == "patron: PATRON_WORKERS: workers: expected a whole number, got the text 'two'\n"


def test_five_mistakes_are_five_lines_and_status_2(patron):
    patron.write(
        """
        name: shop
        workers: many
        wrokers: 1
        http: {port: 99999, routes: [{method: GET, path: /, processor: "wares:shwo"}]}
        log: {level: loud}
        """
    )
    done = patron("check", "config.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("patron: config.yaml:") for line in lines)


def test_run_refuses_the_same_mistakes_in_the_same_words(patron):
    patron.write("name: shop\nworkers: many\nhttp: {prot: 1}\n")
    checked, run = patron("check", "config.yaml"), patron("run", "config.yaml")
    assert (checked.returncode, run.returncode) == (2, 2)
    assert checked.stderr == run.stderr


def test_a_file_that_is_not_there_is_one_line(patron):
    done = patron("check", "nowhere.yaml")
    assert done.returncode == 2
    assert done.stderr == (
        "patron: nowhere.yaml: the configuration cannot be read: No such file or directory: "
        "give a file, or a service in code as module:service\n"
    )


def test_a_module_is_told_how_to_name_the_service_in_it(described):
    done = described("check", "shop.py")
    assert (done.returncode, done.stderr) == (
        2,
        "patron: shop.py is Python and no configuration: name the service in it, as shop:service\n",
    )


def test_the_views_of_a_flask_application_are_listed_and_counted(described):
    (described.directory / "pages.py").write_text(
        "import flask\nfrom patron import Patron\n"
        "app = flask.Flask('pages', static_folder=None)\n"
        "app.add_url_rule('/orders/<int:number>', 'show', lambda number: '')\n"
        "Patron(app)\n"
    )
    listed = json.loads(described("routes", "pages:app", "--json").stdout)
    assert ("GET", "/orders/<int:number>", "view") in {(r["method"], r["path"], r["kind"]) for r in listed}
    assert ", 1 route\n" in described("check", "pages:app").stdout


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_driver_that_is_not_installed_is_told_before_anything_starts(patron, command):
    (patron.directory / "sitecustomize.py").write_text("import sys; sys.modules['pika'] = None\n")
    patron.write(
        """
        name: shop
        consumers: [{name: orders, source: {type: amqp, queue: q}, processor: "wares:process"}]
        """
    )
    done = patron(command, "config.yaml", PYTHONPATH=f"{patron.directory}:{ROOT}")
    told = 'patron: component orders: pika is not installed: pip install "patron[amqp]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


def test_a_service_that_runs_itself_tells_of_missing_packages_too(described):
    code = (
        "import sys; sys.modules['jaeger_client'] = None\n"
        "from patron.observe import TraceSettings\n"
        "import shop; shop.service.with_settings(trace=TraceSettings(sampler_param=0.5)).run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=described.directory,
        env=described.environ(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = (
        'patron: trace: sampler_param is 0.5: jaeger-client is not installed: pip install "patron[jaeger]"\n'
    )
    assert (done.returncode, done.stderr) == (2, told)


def test_a_warning_is_shown_and_is_no_failure(patron):
    done = patron("check", "config.yaml", PATRON_WORKRES="2")
    assert done.returncode == 0
    assert done.stderr.startswith("patron: warning: PATRON_WORKRES: ")


def test_a_bad_variable_is_status_2(patron):
    done = patron("check", "config.yaml", PATRON_WORKERS="two")
    assert (done.returncode, done.stderr) == (
        2,
        "patron: PATRON_WORKERS: workers: expected a whole number, got the text 'two'\n",
    )


# The others.


def test_print_config_shows_values_with_their_sources_and_runs_nothing(patron):
    done = patron("run", "config.yaml", "--print-config", PATRON_GRACE="9")
    assert done.returncode == 0
    shown = [line.split() for line in done.stdout.splitlines()]
    assert ["http.port", "8080", "config.yaml:3"] in shown
    assert ["grace", "9.0", "PATRON_GRACE"] in shown
    assert ["drain", "0.0", "default"] in shown


def test_schema_is_json_and_its_table_is_markdown(patron):
    assert json.loads(patron("schema").stdout)["properties"]["name"]["type"] == "string"
    assert patron("schema", "--table").stdout.startswith("| key | type | default |")


def test_routes_are_a_table_or_json(patron):
    rows = json.loads(patron("routes", "config.yaml", "--json").stdout)
    assert {"GET /", "GET /alive"} <= {f"{row['method']} {row['path']}" for row in rows}
    table = patron("routes", "config.yaml").stdout.splitlines()
    assert table[0].split() == ["METHOD", "PATH", "KIND", "HANDLER", "AUTHENTICATOR"]
    assert len(table) == len(rows) + 1


def test_components_are_a_table_or_json(patron):
    rows = json.loads(patron("components", "config.yaml", "--json").stdout)
    assert rows[1] == {
        "name": "orders",
        "type": "Consumer",
        "reads": "sqlite:t",
        "at": "q.db",
        "dead_letters": "orders.dlq",
        "restart": "never",
    }
    assert patron("components", "config.yaml").stdout.splitlines()[2].split()[:2] == ["orders", "Consumer"]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (
            "type: patron.sources.amqp:AmqpSource, queue: t, url: 'amqp://shop:hunter2@b1/'",
            "amqp://shop:********@b1/",
        ),
        ("type: patron.sources.kafka:KafkaSource, topic: t, group: g, brokers: [b1:9092, b2]", "b1:9092,b2"),
        ("type: patron.sources.sqs:SqsSource, queue: t", None),
    ],
    ids=["amqp", "kafka", "sqs"],
)
def test_where_a_broker_is_is_told_without_its_password(patron, source, shown):
    for driver in ("kafka", "pika", "boto3"):
        (patron.directory / f"{driver}.py").touch()  # it is there, and nothing imports it yet
    patron.write(
        f"""
        name: shop
        consumers:
          - {{name: c, source: {{{source}}}, processor: "wares:process", dead_letters: none, on_exhausted: skip}}
        """
    )
    row = json.loads(patron("components", "config.yaml", "--json").stdout)[1]
    assert (row["at"], row["dead_letters"]) == (shown, None)
    checked = patron("check", "config.yaml").stdout
    assert (f" at {shown}, dead letters none)" if shown else ":t, dead letters none)") in checked
    assert "hunter2" not in checked


@pytest.mark.parametrize("arguments", [("version",), ("--version",)])
def test_the_version_is_told(patron, arguments):
    from patron._version import VERSION

    done = patron(*arguments)
    assert done.returncode == 0
    assert VERSION in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_written(patron, shell):
    done = patron("completion", shell)
    assert done.returncode == 0
    assert f"_PATRON_COMPLETE={shell}_complete" in done.stdout


def test_the_script_of_zsh_sets_completion_up_where_nobody_has(patron):
    first, *rest = patron("completion", "zsh").stdout.splitlines()
    assert first == "#compdef patron"
    assert rest.index("(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }") < next(
        number for number, line in enumerate(rest) if "compdef _patron" in line
    )


def test_commands_are_completed(patron):
    done = patron(_PATRON_COMPLETE="bash_complete", COMP_WORDS="patron ch", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,check"]


# Failures of our own.


def test_a_bug_is_a_short_message_and_its_traceback_is_for_who_asks(patron):
    code = (
        "import patron.config as c\n"
        "def broken(*a): raise ZeroDivisionError('of ours')\n"
        "c.load = broken\n"
        "from patron.cli import main; main(['check', 'config.yaml'])\n"
    )

    def run(**environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=patron.directory, env=patron.environ(**environ), capture_output=True, text=True
        )

    done = run()
    assert done.returncode == 1
    assert "ZeroDivisionError: of ours" in done.stderr
    assert "PATRON_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in run(PATRON_DEBUG="1").stderr


def test_a_reader_that_has_gone_is_no_traceback(patron):
    process = subprocess.Popen(
        [sys.executable, "-m", "patron", "schema"],
        cwd=patron.directory,
        env=patron.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1


def test_an_output_that_is_full_is_no_bug(patron):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "patron", "schema"],
            cwd=patron.directory,
            env=patron.environ(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    told = "patron: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


# Colours, and other things that are for a person who looks.


def on_a_terminal(patron: Shell, *arguments: str, **environ: str) -> str:
    """What the command writes when its output is a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "patron", *arguments],
        cwd=patron.directory,
        env=patron.environ(**environ),
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        while data := os.read(master, 4096):
            seen += data
    except OSError:  # the other end was closed: that is how a terminal ends on Linux
        pass
    os.close(master)
    process.wait()
    return seen.decode()


def test_colours_are_for_terminals_and_never_with_no_color(patron):
    assert "\x1b[" in on_a_terminal(patron, "check", "config.yaml")
    assert "\x1b[" not in on_a_terminal(patron, "check", "config.yaml", NO_COLOR="1")
    assert "\x1b[" not in patron("check", "config.yaml").stdout


def test_what_ends_a_service_is_a_plain_line_for_who_looks_and_only_structured_for_others(patron):
    (patron.directory / "wares.py").write_text("def database(): raise LookupError('no such database')\n")
    patron.write("name: shop\nhttp: {port: 0}\nresources: {db: 'wares:database'}\n")
    told = "patron: opening resource db failed: LookupError: no such database"
    assert on_a_terminal(patron, "run", "config.yaml").splitlines().count(told) == 1
    done = patron("run", "config.yaml")
    assert done.returncode == 1
    assert all(json.loads(line)["srv"] == "shop" for line in (done.stdout + done.stderr).splitlines())


def test_one_long_value_makes_no_other_line_of_a_table_wide(capsys: pytest.CaptureFixture[str]) -> None:
    from patron.cli.output import emit_table

    emit_table(
        ("key", "value", "from"), [{"key": "a", "value": "x" * 200, "from": "file"}, {"key": "b", "value": 1}]
    )
    head, long, short = capsys.readouterr().out.splitlines()
    assert long.endswith("x  file")
    assert len(head) == len("KEY  ") + 60 + len("  FROM")
    assert short == "b    1" + " " * 59 + "  -"
