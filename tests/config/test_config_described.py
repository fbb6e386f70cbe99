"""A service that is described in code obeys the same variables as one that a file describes."""

from __future__ import annotations

from dataclasses import fields

import pytest

from patron import HttpSettings, ProcessSettings, Route, Service
from patron.config import explain, load, with_environment
from patron.config.environment import variables
from patron.config.layout import file_shape
from patron.errors import ConfigError
from patron.http import AccessLog
from patron.observe.log import LogSettings


def problems(service: Service, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        with_environment(service, environ)
    return caught.value.problems


def test_a_variable_wins_over_what_the_code_says_and_leaves_the_rest():
    service = Service(
        "shop",
        http=HttpSettings(port=1, threads=3),
        log=LogSettings(level="warn", fields={"team": "a"}),
        process=ProcessSettings(workers=2, grace=7.0),
    )
    environ = {
        "PATRON_HTTP_DEFAULT_PORT": "8080",
        "PATRON_LOG_LEVEL": "debug",
        "PATRON_WORKERS": "4",
        "PATRON_JAEGER_AGENT_HOST": "jaeger",
        "PATRON_CORRELATION_HEADER": "X-Id",
    }
    run, warnings = with_environment(service, environ)
    assert warnings == ()
    assert (run.http.port, run.http.threads) == (8080, 3)
    assert (run.log.level, run.log.fields) == ("debug", {"team": "a"})
    assert (run.process.workers, run.process.grace) == (4, 7.0)
    assert (run.trace.agent_host, run.correlation.header) == ("jaeger", "X-Id")
    assert (service.http.port, service.process.workers) == (1, 2)


def test_without_variables_everything_stays():
    service = Service("shop", http=HttpSettings(port=1))
    run, _ = with_environment(service, {"HOME": "/"})
    assert vars(run) == vars(service)


def test_every_variable_of_the_file_sets_something_here_too():
    """One that was known but did nothing would be ignored in silence."""
    own = {"http", "log", "trace", "correlation", *(field.name for field in fields(ProcessSettings))}
    assert {path.partition(".")[0] for path in variables(file_shape()).values()} <= own


def test_mistakes_are_worded_as_for_a_file_and_reported_at_once():
    found = problems(Service("shop"), PATRON_WORKERS="two", PATRON_LOG_LEVEL="loud", PATRON_GRACE="9999")
    assert found[0] == "PATRON_GRACE: grace: is 9999.0 s: use more than 0 and at most 3600"
    assert found[1].startswith("PATRON_LOG_LEVEL: log.level: expected one of 'debug', 'info'")
    assert found[2] == "PATRON_WORKERS: workers: expected a whole number, got the text 'two'"
    assert len(found) == 3


def test_a_variable_that_does_not_go_with_what_the_code_says_is_a_mistake():
    service = Service("shop", process=ProcessSettings(grace=10, drain=5))
    (problem,) = problems(service, PATRON_GRACE="3")
    assert "drain" in problem


def test_an_unknown_variable_is_a_warning():
    _, warnings = with_environment(Service("shop"), {"PATRON_WORKRES": "2"})
    assert warnings == (
        "PATRON_WORKRES: Patron has no such variable (did you mean 'PATRON_WORKERS'?); it is ignored",
    )


def test_settings_inside_settings_keep_what_no_variable_sets():
    service = Service("shop", http=HttpSettings(access_log=AccessLog(level="warn", statuses=("5xx",))))
    run, _ = with_environment(service, {"PATRON_HTTP_ACCESS_LOG_LEVEL": "debug"})
    assert run.http.access_log == AccessLog(level="debug", statuses=("5xx",))


# module:service


def test_a_reference_is_loaded_like_a_file(world, monkeypatch):
    monkeypatch.chdir(world.directory)
    world.module("shop", "from patron import Service\nservice = Service('shop', '1.4.0')\n")
    configuration = load("shop:service", {"PATRON_WORKERS": "3", "PATRON_WORKRES": "2"})
    assert (configuration.service.name, configuration.service.process.workers) == ("shop", 3)
    assert configuration.origin == f"shop:service in {world.directory}/shop.py"
    assert len(configuration.warnings) == 1
    shown = {row["key"]: (row["value"], row["source"]) for row in explain.rows(configuration.entries)}
    assert shown["name"] == ("shop", "shop:service")
    assert shown["workers"] == ("3", "PATRON_WORKERS")
    assert shown["http.port"] == ("50000", "shop:service")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("sohp:service", "there is no module 'sohp' (did you mean 'shop'?)"),
        (
            "shop:servise",
            "'shop:servise': module 'shop' has no attribute 'servise' (did you mean 'service'?)",
        ),
        (
            "shop:other",
            "'shop:other' is 3, which is no patron.Service, and no Flask application with patron.Patron",
        ),
    ],
)
def test_a_reference_to_no_service_is_refused(world, monkeypatch, reference, message):
    monkeypatch.chdir(world.directory)
    world.module("shop", "from patron import Service\nservice, other = Service('shop'), 3\n")
    with pytest.raises(ConfigError) as caught:
        load(reference, {})
    assert caught.value.problems == (message,)


@pytest.mark.parametrize("name", ["a:b", "a:b()"])
def test_a_file_with_a_colon_in_its_name_is_a_file(world, monkeypatch, name):
    monkeypatch.chdir(world.directory)
    (world.directory / name).write_text("name: shop\n")
    assert load(name, {}).origin == name


# module:factory(...)

FACTORIES = """
    from patron import Service

    def make(name="shop", *, version="dev"):
        if name == "broken":
            raise LookupError("no such shop")
        return Service(name, version)

    async def later(): ...

    class Makers:
        make = staticmethod(make)

        def __call__(self):
            return Service("called")

    makers, nothing, number = Makers(), lambda: None, 3
"""


@pytest.mark.parametrize(
    ("reference", "name", "version"),
    [
        ("shop:make()", "shop", "dev"),
        ("shop:make('toys', version='1')", "toys", "1"),
        ("shop:make(version='http://a//b')", "shop", "http://a//b"),
        ("shop:makers.make('toys')", "toys", "dev"),
        ("shop:makers()", "called", "dev"),
    ],
)
def test_a_factory_is_called_with_the_literals_behind_it(world, monkeypatch, reference, name, version):
    monkeypatch.chdir(world.directory)
    world.module("shop", FACTORIES)
    configuration = load(reference, {"PATRON_WORKERS": "3"})
    service = configuration.service
    assert (service.name, service.version, service.process.workers) == (name, version, 3)
    assert configuration.origin == f"{reference} in {world.directory}/shop.py"


NO_SERVICE = "which is no patron.Service, and no Flask application with patron.Patron"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "shop:make",
            f"'shop:make' is <function make>, {NO_SERVICE}: if shop:make makes one, say so: 'shop:make()'",
        ),
        ("shop:makers", f"'shop:makers' is <shop.Makers object>, {NO_SERVICE}"),
        ("shop:nothing()", f"'shop:nothing()' is None, {NO_SERVICE}"),
        ("shop:make(", "'shop:make(' is no call of a function: '(' was never closed"),
        ("shop:make().name", "'shop:make().name' is more than the call of one function"),
        ("shop:make()()", "'shop:make()()' is more than the call of one function"),
        (
            "shop:make(toys)",
            "'shop:make(toys)': the arguments must be literals, such as True, 8, 'text' or [1, 2]",
        ),
        (
            "shop:make(**{})",
            "'shop:make(**{})': the arguments must be literals, such as True, 8, 'text' or [1, 2]",
        ),
        (
            "shop:make(1, 2)",
            "'shop:make(1, 2)' does not fit shop:make(name='shop', *, version='dev'): too many positional arguments",
        ),
        ("shop:maker()", "'shop:maker': module 'shop' has no attribute 'maker' (did you mean 'makers'?)"),
        ("shop:number()", "'shop:number()': shop:number cannot be called"),
        ("shop:later()", "'shop:later()': shop:later is async: Patron calls plain functions"),
    ],
)
def test_what_is_no_call_of_a_factory_is_refused(world, monkeypatch, reference, message):
    monkeypatch.chdir(world.directory)
    world.module("shop", FACTORIES)
    with pytest.raises(ConfigError) as caught:
        load(reference, {})
    assert caught.value.problems == (message,)


def test_a_factory_that_fails_is_told_with_the_line(world, monkeypatch):
    monkeypatch.chdir(world.directory)
    world.module("shop", FACTORIES)
    with pytest.raises(ConfigError) as caught:
        load("shop:make('broken')", {})
    [problem] = caught.value.problems
    assert problem.startswith("\"shop:make('broken')\" failed: LookupError: no such shop (")
    assert problem.endswith("/shop.py:6)")


def test_settings_of_a_description_are_changed_in_a_copy():
    service = Service("shop", routes=[Route("GET", "/", lambda request: None)])
    changed = service.with_settings(process=ProcessSettings(workers=2))
    assert (changed.process.workers, service.process.workers) == (2, 1)
    assert changed.routes == service.routes
    with pytest.raises(ConfigError, match="no settings of a service: there are http"):
        service.with_settings(prot=1)
