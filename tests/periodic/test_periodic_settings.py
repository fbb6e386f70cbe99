"""What is refused, how it is said, and how a configuration file describes the components."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patron import Periodic
from patron.config import load
from patron.errors import ConfigError, MissingExtra
from patron.service import Service


def function() -> None: ...


def problems(*args: object, **settings: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Periodic(*args, **settings)
    return caught.value.problems


def test_every_mistake_is_reported_at_once():
    assert problems(
        "clean", "shop:clean", every=0, cron="61 * * * *", retry=3, on_exhausted="ignore", deadline=-1
    ) == (
        "periodic 'clean': function is 'shop:clean': use a function",
        "periodic 'clean': give every or cron, not both",
        "periodic 'clean': every is 0 s: use 0.001 s to 366 days",
        "periodic 'clean': retry is 3: use a RetryPolicy",
        "periodic 'clean': on_exhausted is 'ignore': use 'skip' or 'exit'",
        "periodic 'clean': deadline is -1 s: use more than 0, or none",
        "periodic 'clean': cron is '61 * * * *': Bad minute; the fields are minute, hour, day of the month, "
        "month and day of the week",
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "give every or cron, one of the two: there is neither"),
        ({"every": float("nan")}, "every is nan s: use 0.001 s to 366 days"),
        ({"every": float("inf")}, "every is inf s: use 0.001 s to 366 days"),
        ({"every": "30s"}, "every is '30s' s: use 0.001 s to 366 days"),
        ({"cron": 5}, "cron is 5: use text"),
        ({"cron": "@daily"}, "cron is '@daily': Wrong number of fields"),
        ({"cron": "0 0 31 2 *"}, "cron is '0 0 31 2 *': Bad day-of-month"),
        ({"cron": "* * */20 * 1L"}, "cron is '* * */20 * 1L': it does not come true within 50 years"),
        ({"cron": "* * * * *", "timezone": "Europe/Nowhere"}, "timezone is 'Europe/Nowhere': the system knows no such"),
        ({"cron": "* * * * *", "timezone": "../etc/passwd"}, "timezone is '../etc/passwd': the system knows no such"),
        ({"cron": "* * * * *", "timezone": "Europe"}, "timezone is 'Europe': the system knows no such"),
        ({"every": 5, "timezone": "Europe/Athens"}, "timezone is 'Europe/Athens': it is for cron, and every has none"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_value_and_what_to_use_instead(settings, problem):
    (found,) = problems("clean", function, **settings)
    assert found.startswith(f"periodic 'clean': {problem}")


def test_a_name_is_required():
    (found,) = problems(" ", function, every=1)
    assert "name is empty" in found


def test_cron_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(MissingExtra, match=r'cronsim is not installed: pip install "patron\[cron\]"'):
        Periodic("clean", function, cron="* * * * *")
    Periodic("clean", function, every=1)


# From a file.


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Callable[[str], Service]]:
    """Reads a configuration beside the module ``bakery``."""
    (tmp_path / "bakery.py").write_text("def bake(oven): ...\ndef sweep(): ...\nflour = 5\n")
    path = list(sys.path)

    def read(text: str) -> Service:
        file = tmp_path / "config.yaml"
        file.write_text(textwrap.dedent(text))
        return load(file, {}).service

    yield read
    sys.path[:] = path
    sys.modules.pop("bakery", None)


def test_a_file_describes_the_components(read):
    service = read(
        """
        name: bakery
        resources: {oven: "builtins:dict"}
        periodic:
          - {name: bake, function: "bakery:bake", every: 1m30s, retry: {attempts: 5, initial: 100ms}}
          - name: sweep
            function: "bakery:sweep"
            cron: "*/5 6-20 * * *"
            timezone: Europe/Athens
            one_worker: true
            run_at_start: true
            on_exhausted: exit
            deadline: 20s
        """
    )
    bake, sweep = (component.settings for component in service.components)
    assert (bake.name, bake.every, bake.retry.attempts, bake.retry.initial) == ("bake", 90.0, 5, 0.1)
    assert (sweep.cron, sweep.timezone, sweep.deadline) == ("*/5 6-20 * * *", "Europe/Athens", 20.0)
    assert (sweep.one_worker, sweep.run_at_start, sweep.on_exhausted) == (True, True, "exit")
    assert service.components[1].function.__name__ == "sweep"


def test_every_mistake_of_a_file_is_reported_with_its_place(read):
    with pytest.raises(ConfigError) as caught:
        read(
            """\
            name: bakery
            periodic:
              - {name: a, function: "bakery:swep", every: 5s}
              - {name: b, function: "bakery:flour", every: 5s}
              - {name: c, function: "bakery:bake", every: 5s}
              - name: d
                function: "bakery:sweep"
                cron: "* 25 * * *"
              - {name: e, function: "bakery:sweep", every: often}
              - {name: f, function: "bakery:sweep", evry: 5s}
            """
        )
    found = [problem.partition("config.yaml:")[2] for problem in caught.value.problems]
    assert [f.partition(": ")[0].partition(":")[0] for f in found] == ["3", "4", "5", "8", "9", "10", "10"]
    assert (
        "periodic[0].function: 'bakery:swep': module 'bakery' has no attribute 'swep' (did you mean 'sweep'?)"
        in found[0]
    )
    assert "periodic[1].function: 'bakery:flour' is" in found[1]
    assert "periodic[2].function: 'bakery:bake' asks for 'oven', which is no resource" in found[2]
    assert "periodic[3].cron: is '* 25 * * *': Bad hour" in found[3]
    assert "periodic[4].every: " in found[4]


def test_two_components_of_one_name_are_refused(read):
    with pytest.raises(ConfigError, match="'sweep' is taken twice"):
        read(
            """
            name: bakery
            periodic:
              - {name: sweep, function: "bakery:sweep", every: 5s}
              - {name: sweep, function: "bakery:sweep", every: 6s}
            """
        )


def test_a_file_with_cron_names_the_extra_where_the_package_is_missing(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ConfigError, match=r'periodic\[0\].*pip install "patron\[cron\]"'):
        read('name: bakery\nperiodic: [{name: sweep, function: "bakery:sweep", cron: "* * * * *"}]\n')
