"""From a file to a service: what it names is imported, put together, and checked as a whole."""

from __future__ import annotations

import sys

import pytest

from patron import sources
from patron.config import build, inspect
from patron.consumer import Consumer
from patron.sources.memory import MemorySource

SHOP = """
    import contextlib
    from flask import Blueprint

    bp = Blueprint("extra", __name__)
    ORDERS = {}

    class Ticker:
        def __init__(self, name="ticker", every=1):
            self.name, self.every = name, every
        def run(self, stop):
            stop.wait()

    ticker = Ticker("made")

    def open_db(path="shop.db"):
        yield path

    def create(request, db): ...
    def show(request): ...
    def process(message, db): ...
    def plain(message): ...
    def greedy(message, databse): ...
    def hook(db): ...
    def fails(): raise RuntimeError("no such luck")
    def nothing(): return 3
    def legacy(environ, start_response): ...
    async def later(*arguments): ...
    def middleware(app): return app
    """


@pytest.fixture
def shop(world):
    world.module("shop", SHOP)
    return world


def test_everything_that_a_file_can_name_is_in_the_service(shop):
    service = shop.load(
        """
        name: shop
        version: "1.4.0"
        workers: 2
        http:
          port: 8080
          routes:
            - {method: post, path: /orders, processor: shop:create}
            - {method: GET, path: /orders/<id>, processor: shop:show}
          blueprints: ["shop:bp"]
          mounts: {/legacy: "shop:legacy"}
          middlewares: ["shop:middleware"]
        resources:
          db: {factory: shop:open_db, args: {path: other.db}}
        consumers:
          - name: orders
            source: {type: memory, topic: orders}
            processor: shop:process
            workers: 4
            retry: {attempts: 5, initial: 50ms}
            batch: {size: 10}
            restart: on-failure
        components:
          - shop:ticker
          - {factory: "shop:Ticker", args: {every: 5}, restart: {limit: 2}}
        on_start: ["shop:hook"]
        on_stop: ["shop:hook"]
        ready_checks: {luck: "shop:nothing"}
        """
    ).service
    consumer, made, ticker = service.components
    assert isinstance(consumer, Consumer)
    assert consumer.source == MemorySource("orders")
    assert (consumer.settings.workers, consumer.settings.retry.initial, consumer.settings.batch.size) == (
        4,
        0.05,
        10,
    )
    assert (made.name, ticker.name, ticker.every) == ("made", "ticker", 5)
    assert {name: policy.limit for name, policy in service.restart.items()} == {"orders": 5, "ticker": 2}
    assert next(service.resources["db"]()) == "other.db"
    assert [(route.method, route.path) for route in service.routes] == [
        ("POST", "/orders"),
        ("GET", "/orders/<id>"),
    ]
    assert (len(service.blueprints), list(service.mounts), len(service.middlewares)) == (1, ["/legacy"], 1)
    assert (len(service.on_start), len(service.on_stop), list(service.ready_checks)) == (1, 1, ["luck"])


def test_build_and_inspect_tell_the_same(shop):
    shop.load("name: shop\nworkers: 3\nhttp: {port: 8080}\n", {})
    service, inspection = build(shop.path, {}), inspect(shop.path, {"PATRON_NOTHING": "1"})
    assert (service.name, service.process.workers) == (inspection.name, inspection.workers)
    assert inspection.ports == (("0.0.0.0", 8080),)
    assert "PATRON_NOTHING" in inspection.warnings[0]


def test_modules_of_the_working_directory_come_second(shop, monkeypatch, tmp_path):
    shop.load("name: a\n")
    monkeypatch.chdir("/")
    shop.load("name: a\n")
    assert sys.path[:2] == [str(shop.directory), "/"]


def test_modules_beside_the_file_come_first(shop):
    shop.module("calendar_of_shop", "def tick(message): ...\n")
    shop.load(
        "name: a\nconsumers: [{name: a, source: {type: memory, topic: t}, processor: 'calendar_of_shop:tick'}]\n"
    )
    assert sys.path[0] == str(shop.directory)


def test_five_mistakes_are_five_messages(shop):
    problems = shop.problems(
        """
        name: shop
        http:
          port: 99999
          routes: [{method: GET, path: /, processor: "shop:creat"}]
        consumers:
          - name: orders
            source: {type: kafak, topic: t}
            processor: shop:plain
            dead_letters: none
          - name: other
            source: {type: memory, topic: t}
            processor: shop:greedy
        """
    )
    assert [problem.split(": ")[1] for problem in problems] == [
        "http.port",
        "http.routes[0].processor",
        "consumers[0].source.type",
        "consumers[0].dead_letters",
        "consumers[1].processor",
    ]


# References.


def reference(world, text: str) -> str:
    return world.problem(f"name: a\non_sighup: {text}\n").removeprefix("config.yaml:2:12: on_sighup: ")


@pytest.mark.parametrize("text", ["shop", "'shop:'", "shop.hook", "'shop:a b'", "shop::hook", "'1:2'"])
def test_what_is_no_reference_is_told_its_form(shop, text):
    assert "is not of the form 'module:attribute'" in reference(shop, text)


def test_a_module_that_is_not_there_is_named_with_the_nearest(shop):
    assert reference(shop, "shpo:hook") == "there is no module 'shpo' (did you mean 'shop'?)"


def test_a_submodule_that_is_not_there_is_named_with_the_nearest(shop):
    shop.module("store/__init__", "")
    shop.module("store/api", "")
    assert reference(shop, "store.apii:hook") == "there is no module 'store.apii' (did you mean 'store.api'?)"


def test_an_attribute_that_is_not_there_is_named_with_the_nearest(shop):
    assert (
        reference(shop, "shop:hok")
        == "'shop:hok': module 'shop' has no attribute 'hok' (did you mean 'hook'?)"
    )


def test_an_attribute_of_an_attribute_is_found(shop):
    assert "'Ticker' has no attribute 'runn' (did you mean 'run'?)" in reference(shop, "shop:Ticker.runn")


def test_what_cannot_be_called_is_refused(shop):
    assert reference(shop, "shop:ORDERS") == "'shop:ORDERS' is a dict, not a function"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("1/0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyError", "KeyError"),
        ("def broken(:", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_fails_to_import_says_how_and_where(world, code, said):
    world.module("failing", f"\n{code}\n")
    problem = reference(world, "failing:hook")
    assert problem.startswith(f"module 'failing' does not import: {said}")
    assert "failing.py" in problem


# Sources.


def source(world, text: str) -> str:
    return world.problem(f"name: a\nconsumers:\n- name: c\n  processor: shop:plain\n  source: {text}\n")


def test_an_unknown_source_type_gets_the_known_ones(shop):
    assert source(shop, "{type: sqllite, path: x, topic: t}") == (
        "config.yaml:5:18: consumers[0].source.type: there is no source type 'sqllite' (did you mean 'sqlite'?): "
        "there are amqp, kafka, memory, sqlite, sqs"
    )


def test_a_source_without_a_type_gets_the_known_ones(shop):
    assert source(shop, "{topic: t}").endswith(
        "consumers[0].source.type: is missing: one of amqp, kafka, memory, sqlite, sqs"
    )


def test_the_settings_of_a_source_are_its_own(shop):
    assert "consumers[0].source.topik: there is no such key (did you mean 'topic'?)" in " ".join(
        shop.problems(
            "name: a\nconsumers: [{name: c, processor: 'shop:plain', source: {type: memory, topik: t}}]\n"
        )
    )


def test_what_a_source_refuses_is_said_at_its_key(shop):
    assert ":5:33: consumers[0].source.topic: is empty" in source(shop, "{type: sqlite, topic: '', path: x}")


def test_a_memory_source_in_several_workers_is_a_warning(shop):
    text = "name: a\nconsumers: [{name: c, processor: 'shop:plain', source: {type: memory, topic: t}}]\n"
    assert "each of the 2 workers has its own memory source" in shop.load(text + "workers: 2\n").warnings[0]
    assert shop.load(text).warnings == ()


@pytest.fixture
def pigeons(shop):
    """An outside package that brings source types."""
    package = shop.directory / "pigeonpost-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeonpost\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[patron.sources]\npigeon = pigeonpost:Pigeons\nduck = pigeonpost:Duck\n"
        "owl = pigeonpost:Owl\nmemory = pigeonpost:Duck\nemu = pigeonpost:load_emu\n"
    )
    shop.module(
        "pigeonpost",
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from patron.errors import MissingExtra
        from patron.sources.memory import MemorySource

        @dataclass(frozen=True)
        class Pigeons(MemorySource):
            pair: tuple[str, int] = ("a", 1)
            loft: Loft | bool | None = None

        @dataclass(frozen=True)
        class Loft:
            size: int = 1

        class Duck: ...

        @dataclass(frozen=True)
        class Owl:
            hoot: Unknown

        def __getattr__(name):
            raise MissingExtra("pyemu", "emu")
        """,
    )
    sys.path.insert(0, str(shop.directory))
    sources._known.cache_clear()
    yield shop
    sources._known.cache_clear()


def test_an_outside_package_adds_a_source_type(pigeons):
    (component,) = pigeons.load(
        "name: a\nconsumers:\n- name: c\n  processor: shop:plain\n"
        "  source: {type: pigeon, topic: t, pair: [b, 2], loft: {size: 3}}\n"
    ).service.components
    assert (component.source.topic, component.source.pair, component.source.loft.size) == ("t", ("b", 2), 3)
    assert "there are amqp, duck, emu, kafka, memory, owl, pigeon, sqlite, sqs" in source(
        pigeons, "{type: crow}"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{type: pigeon, topic: t, pair: [b, c]}", "source.pair: expected"),
        (
            "{type: pigeon, topic: t, loft: {sise: 3}}",
            "source.loft.sise: there is no such key (did you mean 'size'?)",
        ),
        (
            "{type: pigeon, topic: t, loft: 3}",
            "source.loft: expected true or false or a mapping, got the number 3",
        ),
        ("{type: duck}", "is no dataclass, so its settings cannot be read from a file"),
        ("{type: owl}", "the annotations of Owl cannot be read: name 'Unknown' is not defined"),
        ("{type: emu}", 'pyemu is not installed: pip install "patron[emu]"'),
    ],
)
def test_what_is_wrong_with_an_outside_source_is_said(pigeons, text, said):
    assert said in source(pigeons, text)


def test_a_built_in_source_type_cannot_be_replaced_from_outside(pigeons):
    (component,) = pigeons.load(
        "name: a\nconsumers: [{name: c, processor: 'shop:plain', source: {type: memory, topic: t}}]\n"
    ).service.components
    assert component.source == MemorySource("t")


# Consumers, components and resources.


def test_no_dead_letters_asks_what_happens_instead(shop):
    text = (
        "name: a\n"
        "consumers: [{name: c, processor: 'shop:plain', source: {type: memory, topic: t}, dead_letters: none%s}]\n"
    )
    assert "consumers[0].dead_letters: is 'none': say what happens instead with on_exhausted" in shop.problem(
        text % ""
    )
    assert shop.load(text % ", on_exhausted: skip").service.components


def test_two_components_of_one_name_are_refused_at_the_second(shop):
    problem = shop.problem(
        "name: a\ncomponents:\n- shop:ticker\n- {factory: 'shop:Ticker', args: {name: made}}\n"
    )
    assert (
        problem
        == "config.yaml:4:3: components[1]: the component name 'made' is taken by components[0] in line 3"
    )


def test_two_listeners_on_one_port_are_refused_at_the_second(shop):
    shop.module(
        "grpcs",
        """
        class Server:
            def __init__(self, name, port):
                self.name, self.ports = name, (("0.0.0.0", port),)
            def run(self, stop): ...
        """,
    )
    text = (
        "name: a\nhttp: {port: 8080}\ncomponents:\n- {factory: 'grpcs:Server', args: {name: g, port: %d}}\n"
    )
    assert (
        shop.problem(text % 8080)
        == "config.yaml:4:3: components[0]: port 8080 is taken by http: choose another"
    )
    assert shop.load(text % 8081).service.components
    # What stands in for a wrong value takes nothing away.
    assert "http.port: expected" in shop.problem((text % 50000).replace("port: 8080", "port: x"))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("shop:fails", "shop:fails failed: RuntimeError: no such luck"),
        ("shop:nothing", "shop:nothing makes 3, which is no component: it needs a name and run(stop)"),
        ("{factory: 'shop:Ticker', args: {evry: 1}}", "args: do not fit shop:Ticker(name='ticker', every=1)"),
        ("shop:ORDERS", "'shop:ORDERS' is a dict, not a component or a factory"),
    ],
)
def test_a_factory_that_makes_no_component_is_explained(shop, entry, said):
    assert said in shop.problem(f"name: a\ncomponents: [{entry}]\n")


def test_the_arguments_of_a_resource_must_fit_its_factory(shop):
    assert "2:49: resources.db.args: do not fit shop:open_db" in shop.problem(
        "name: a\nresources: {db: {factory: 'shop:open_db', args: {pth: x}}}\n"
    )


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ("http: {routes: [{method: GET, path: /, processor: 'shop:create'}]}", "http.routes[0].processor"),
        ("on_start: ['shop:hook']", "on_start[0]"),
        ("on_stop: ['shop:hook']", "on_stop[0]"),
        (
            "consumers: [{name: c, processor: 'shop:process', source: {type: memory, topic: t}}]",
            "consumers[0].processor",
        ),
    ],
)
def test_a_function_that_asks_for_what_is_no_resource_is_refused_at_its_place(shop, entry, path):
    problem = shop.problem(f"name: a\nresources: {{dbx: 'shop:open_db'}}\n{entry}\n")
    assert f": {path}: " in problem
    assert "asks for 'db', which is no resource (did you mean 'dbx'?)" in problem


def test_a_resource_that_is_wrong_itself_is_no_reason_to_blame_who_asks_for_it(shop):
    assert "resources.db: " in shop.problem("name: a\nresources: {db: 'shop:opn'}\non_start: ['shop:hook']\n")


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ("http: {routes: [{method: GET, path: /, processor: 'shop:later'}]}", "http.routes[0].processor"),
        ("http: {mounts: {/asgi: 'shop:later'}}", "http.mounts./asgi"),
        (
            "consumers: [{name: c, processor: 'shop:later', source: {type: memory, topic: t}}]",
            "consumers[0].processor",
        ),
        ("periodic: [{name: p, every: 1, function: 'shop:later'}]", "periodic[0].function"),
        ("components: ['shop:later']", "components[0]"),
        ("resources: {db: 'shop:later'}", "resources.db"),
        ("on_stop: ['shop:later']", "on_stop[0]"),
        ("on_sighup: shop:later", "on_sighup"),
        ("alive_check: shop:later", "alive_check"),
        ("ready_checks: {db: 'shop:later'}", "ready_checks.db"),
    ],
)
def test_an_async_function_is_refused_at_its_place(shop, entry, path):
    problem = shop.problem(f"name: a\n{entry}\n")
    assert problem.endswith(f"{path}: 'shop:later' is async: Patron calls plain functions")


@pytest.mark.parametrize(
    ("entry", "path", "reason"),
    [
        (
            "http: {routes: [{method: GET, path: /, processor: 'shop:nothing'}]}",
            "http.routes[0].processor",
            "calls it with one argument (too many positional arguments)",
        ),
        (
            "alive_check: shop:hook",
            "alive_check",
            "calls it with no argument (missing a required argument: 'db')",
        ),
        ("on_sighup: shop:hook", "on_sighup", "calls it with no argument"),
        ("error_reporter: shop:plain", "error_reporter", "calls it with 2 arguments"),
    ],
)
def test_a_function_that_does_not_take_what_it_is_called_with_is_refused_at_its_place(
    shop, entry, path, reason
):
    problem = shop.problem(f"name: a\nresources: {{db: 'shop:open_db'}}\n{entry}\n")
    assert f": {path}: shop:" in problem
    assert reason in problem


def test_a_ready_check_may_ask_for_a_resource(shop):
    assert shop.load("name: a\nresources: {db: 'shop:open_db'}\nready_checks: {db: 'shop:hook'}\n")
    problem = shop.problem("name: a\nresources: {dbx: 'shop:open_db'}\nready_checks: {db: 'shop:hook'}\n")
    assert "config.yaml:3:20: ready_checks.db: 'shop:hook' asks for 'db'" in problem


def test_an_argument_of_a_resource_is_for_its_args(shop):
    shop.module("stores", "def open_store(path): ...\n")
    problem = shop.problem("name: a\nresources: {db: 'stores:open_store'}\n")
    assert problem.startswith("config.yaml:2:17: resources.db: 'stores:open_store' asks for 'path'")
    assert problem.endswith("add it under 'resources', or give it to the factory under 'args'")
    assert shop.load("name: a\nresources: {db: {factory: 'stores:open_store', args: {path: x}}}\n")


# Routes.


def test_two_routes_for_the_same_requests_are_refused_at_the_second(shop):
    problem = shop.problem(
        """\
        name: a
        http:
          routes:
            - {method: GET, path: "/orders/<id>", processor: shop:show}
            - {method: get, path: "/orders/<number>", processor: shop:show}
        """
    )
    assert problem.startswith("config.yaml:5:7: http.routes[1]: the route")
    assert "the route 'GET /orders/<number>' is taken by http.routes[0] in line 4" in problem


def test_a_route_on_an_admin_route_is_refused_at_http(shop):
    problem = shop.problem("name: a\nhttp: {routes: [{method: GET, path: /alive, processor: 'shop:show'}]}\n")
    assert problem.startswith("config.yaml:2:7: http: ")


def test_a_bad_method_is_refused_at_the_route(shop):
    assert "config.yaml:2:26: http.routes[0].method: 'FETCH' is unknown" in shop.problem(
        "name: a\nhttp: {routes: [{method: FETCH, path: /, processor: 'shop:show'}]}\n"
    )


def test_clashing_routes_are_reported_beside_other_mistakes(shop):
    problems = shop.problems(
        "name: a\nworkers: 0\nhttp: {routes: [{method: GET, path: /ready, processor: 'shop:show'}]}\n"
    )
    assert len(problems) == 2
