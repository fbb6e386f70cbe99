"""The example that begins with an OpenAPI document does what docs/openapi.md says of it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from werkzeug.test import Client

from patron.errors import ConfigError
from patron.http import ApiKey, Bearer, Principal, Request, Response, build

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "openapi"
DOCUMENT = EXAMPLE / "petshop" / "openapi.yaml"

# The example as a process.


@pytest.fixture(scope="module")
def petshop(tmp_path_factory: pytest.TempPathFactory, harness: ModuleType) -> Iterator[Any]:
    """The example, started once for all tests."""
    process = harness.ServiceProcess(tmp_path_factory.mktemp("petshop"), harness.free_port())
    command = (sys.executable, "-m", "patron", "run", str(EXAMPLE / "config.yaml"))
    process.start(*command, env={"PETSHOP_TOKEN": "of-the-staff"})
    yield process
    process.kill_group()


def post(petshop: Any, body: Any, content_type: str = "application/json") -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return petshop.request("POST", "/pets", data, Content_Type=content_type)


def arrived(petshop: Any, **pet: Any) -> Any:
    answer = post(petshop, {"name": "rex", "kind": "dog", **pet})
    assert answer.status == 201, answer.body
    return json.loads(answer.body)


def handled(petshop: Any) -> set[tuple[str, str, str]]:
    """Method, path and status of each series of the metric."""
    lines = petshop.get("/metrics").body.decode().splitlines()
    labels = [line[line.index("{") :] for line in lines if line.startswith("component_http_handled_total{")]
    return {tuple(part.split('"')[1::2]) for part in labels}  # type: ignore[misc]


@pytest.mark.server
def test_an_operation_gets_what_its_document_asks_for(petshop: Any) -> None:
    pet = arrived(petshop, name="tom", kind="cat", born=2020)
    assert petshop.json(f"/pets/{pet['id']}") == {"id": pet["id"], "name": "tom", "kind": "cat", "born": 2020}
    cats = petshop.json("/pets?kind=cat&kind=fish&limit=100")
    assert {each["kind"] for each in cats} == {"cat"}


@pytest.mark.server
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"name", "kind"}),
        ({"name": "", "kind": "cow", "born": "2020"}, {"name", "kind", "born"}),
        ({"name": "rex", "kind": "dog", "tail": 1}, {"body"}),
        ([], {"body"}),
        (b"", {"body"}),
    ],
    ids=["nothing in it", "each field wrong", "a field too many", "no object", "no body"],
)
def test_a_body_that_does_not_fit_is_a_400_that_names_the_fields(
    petshop: Any, body: Any, fields: set[str]
) -> None:
    answer = post(petshop, body)
    assert answer.status == 400
    assert set(json.loads(answer.body)["fields"]) == fields


@pytest.mark.server
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/pets/x", "petId"),
        ("/pets/0", "petId"),
        ("/pets/1_0", "petId"),
        ("/pets?limit=0", "limit"),
        ("/pets?limit=", "limit"),
        ("/pets?limit=1.5", "limit"),
        ("/pets?kind=cat&kind=cow", "kind.1"),
    ],
)
def test_a_parameter_that_does_not_fit_is_a_400_that_names_it(petshop: Any, path: str, field: str) -> None:
    answer = petshop.get(path)
    assert (answer.status, list(json.loads(answer.body)["fields"])) == (400, [field])


@pytest.mark.server
def test_a_body_in_another_format_is_a_415_and_a_broken_one_a_400(petshop: Any) -> None:
    answer = post(petshop, b"name,kind", "text/csv")
    assert (answer.status, answer.headers["Accept"]) == (415, "application/json")
    assert post(petshop, b'{"name": ').status == 400


@pytest.mark.server
def test_only_who_the_security_scheme_lets_in_may_remove_a_pet(petshop: Any) -> None:
    path = f"/pets/{arrived(petshop)['id']}"
    for headers in ({}, {"Authorization": "Bearer of-a-stranger"}):
        answer = petshop.request("DELETE", path, **headers)
        assert (answer.status, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer")
    assert petshop.request("DELETE", path, Authorization="Bearer of-the-staff").status == 204
    assert petshop.get(path).status == 404


@pytest.mark.server
def test_correlation_metrics_by_pattern_and_health_are_there_as_in_any_service(petshop: Any) -> None:
    answer = post(petshop, {"name": "rex", "kind": "dog"})
    correlation = answer.headers["X-Correlation-Id"]
    petshop.until(lambda: [line for line in petshop.lines("request") if line["correlationID"] == correlation])
    assert [
        line["kind"] for line in petshop.lines("pet arrived") if line["correlationID"] == correlation
    ] == ["dog"]
    assert petshop.get("/pets/x", X_Correlation_Id="mine").headers["X-Correlation-Id"] == "mine"
    assert petshop.get("/pets/999").status == 404
    assert petshop.get("/dogs").status == 404
    wanted = {("GET", "/pets/<petId>", "400"), ("GET", "/pets/<petId>", "404"), ("POST", "/pets", "201")}
    petshop.until(lambda: wanted | {("GET", "unmatched", "404")} <= handled(petshop))
    assert {path for _, path, _ in handled(petshop) if "pets/" in path} == {"/pets/<petId>"}
    assert petshop.get("/ready").status == petshop.get("/alive").status == 200


@pytest.mark.server
def test_the_document_is_served_as_json(petshop: Any) -> None:
    answer = petshop.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.body) == json.loads(json.dumps(yaml.safe_load(DOCUMENT.read_text())))


@pytest.mark.server
def test_an_answer_from_the_cache_has_an_age_and_what_does_not_fit_never_gets_there(petshop: Any) -> None:
    assert petshop.get("/pets?limit=7").headers["Age"] == petshop.get("/pets?limit=7").headers["Age"] == "0"
    for _ in range(2):
        answer = petshop.get("/pets?limit=1000")
        assert (answer.status, answer.headers["Age"]) == (400, None)


# Its package ``contract``, in this process.


@pytest.fixture
def routes_from(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return importlib.import_module("contract").routes_from


def operation(path: str = "/x", method: str = "get", **of_operation: Any) -> dict[str, Any]:
    """A document with one operation, called ``op``."""
    entry = {"operationId": "op", "responses": {"200": {"description": ""}}, **of_operation}
    return {"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": {path: {method: entry}}}


def parameter(name: str, place: str, schema: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema, **more}


def content(schema: Mapping[str, Any], essence: str = "application/json") -> dict[str, Any]:
    return {"content": {essence: {"schema": schema}}}


def served(routes: Any) -> Client:
    app = build(routes=routes)
    app.start()
    return Client(app)


def problems(routes_from: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        routes_from(*args, **options)
    return "\n".join(caught.value.problems)


def fields(request: Request) -> dict[str, Any]:
    return dict(request.fields)


@pytest.mark.parametrize("text", ["1_0", " 1", "\u0661", "nan", "1e400", "true", "", "9" * 5000])
def test_numbers_are_read_as_json_writes_them(routes_from: Callable[..., Any], text: str) -> None:
    numbers = [
        parameter("n", "query", {"type": "integer"}),
        parameter("f", "query", {"type": "number", "maximum": 9}),
    ]
    client = served(routes_from(operation(parameters=numbers), {"op": fields}))
    assert client.get("/x?n=-7&f=-1.5e0").json == {"n": -7, "f": -1.5}
    for name in "nf":
        answer = client.get("/x", query_string={name: text})
        assert (answer.status_code, list(answer.json["fields"])) == (400, [name])


def test_parameters_of_each_place_are_checked_and_defaults_filled_in(routes_from: Callable[..., Any]) -> None:
    flags = {"type": "array", "items": {"type": "boolean"}}
    parameters = [
        parameter("pet-id", "path", {"type": "integer"}, required=True),
        parameter("flags", "query", flags, explode=False),
        parameter("size", "query", {"type": "integer", "default": 3}),
        parameter("X-Tries", "header", {"type": "integer"}, required=True),
        parameter("theme", "cookie", {"enum": ["dark", "light"]}),
        parameter("box", "query", {"type": "object"}),
    ]
    client = served(routes_from(operation("/x/{pet-id}", parameters=parameters), {"op": fields}))
    client.set_cookie("theme", "dark")
    good = client.get("/x/7?flags=true,false&other=1", headers={"X-Tries": "2"})
    assert good.json == {"pet-id": 7, "flags": [True, False], "size": 3, "other": "1"}
    client.set_cookie("theme", "blue")
    bad = client.get("/x/7?flags=perhaps&size=big&box=1")
    assert set(bad.json["fields"]) == {"flags", "size", "X-Tries", "theme", "box"}


def test_a_parameter_of_the_operation_comes_before_the_one_of_its_path(
    routes_from: Callable[..., Any],
) -> None:
    document = operation(parameters=[parameter("n", "query", {"type": "integer", "default": 1})])
    document["paths"]["/x"]["parameters"] = [
        parameter("n", "query", {"type": "integer", "default": 2}),
        parameter("m", "query", {"type": "integer", "default": 3}),
    ]
    assert served(routes_from(document, {"op": fields})).get("/x").json == {"n": 1, "m": 3}


def test_a_mistake_deep_in_a_body_is_named_by_its_way(routes_from: Callable[..., Any]) -> None:
    item = {
        "type": "object",
        "required": ["sku"],
        "properties": {"n": {"oneOf": [{"type": "integer"}, {"type": "null"}]}},
    }
    schema = {"type": "object", "properties": {"items": {"type": "array", "items": item}}}
    client = served(
        routes_from(operation(method="post", requestBody=content(schema)), {"op": lambda request: None})
    )
    answer = client.post("/x", json={"items": [{"sku": 1, "n": None}, {"n": "1"}]})
    assert set(answer.json["fields"]) == {"items.1.sku", "items.1.n"}
    assert client.post("/x").status_code == 204, "the body is not required"


def test_a_mistake_in_one_of_several_forms_is_named_where_it_is(routes_from: Callable[..., Any]) -> None:
    numbered = {"type": "object", "properties": {"n": {"type": "integer"}}}
    body = content({"anyOf": [numbered, {"type": "null"}]})
    client = served(routes_from(operation(method="post", requestBody=body), {"op": lambda request: None}))
    assert client.post("/x", json={"n": "1"}).json["fields"] == {"n": "'1' is not of type 'integer'"}


def test_json_by_another_name_is_checked_and_other_formats_are_left_to_the_processor(
    routes_from: Callable[..., Any],
) -> None:
    schema = {"type": "object", "required": ["a"]}
    body = {
        "content": {
            **content(schema, "application/merge-patch+json")["content"],
            "text/*": {"schema": schema},
        }
    }
    document = operation(method="patch", requestBody=body)
    client = served(
        routes_from(document, {"op": lambda request: Response(request.body(), content_type="text/plain")})
    )
    assert client.patch("/x", data="{}", content_type="application/merge-patch+json").status_code == 400
    assert client.patch("/x", data="{}", content_type="text/csv").text == "{}"
    assert client.patch("/x", data="{}", content_type="application/json").status_code == 415


def test_a_document_of_3_0_has_its_own_words(routes_from: Callable[..., Any]) -> None:
    properties = {"id": {"type": "integer", "readOnly": True}, "a": {"type": "string", "nullable": True}}
    schema = {"type": "object", "properties": properties}
    document = {**operation(method="put", requestBody=content(schema)), "openapi": "3.0.3"}
    client = served(routes_from(document, {"op": lambda request: request.decode()}))
    assert client.put("/x", json={"a": None}).json == {"a": None}
    assert client.put("/x", json={"id": 1}).status_code == 400


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"n": 1}, 200),
        ({"n": "1"}, 500),
        (None, 500),
        (Response({"n": "1"}, status=202), 202),
        (Response({"m": 1}, status=404), 500),
        (Response(b"1", status=404), 404),
    ],
    ids=["fits", "another type", "a status that is not there", "2XX", "default", "not decoded"],
)
def test_answers_are_checked_when_asked_for(
    routes_from: Callable[..., Any], answer: Any, status: int
) -> None:
    numbered = content({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}})
    responses = {200: {"description": "", **numbered}, "default": {"description": "", **numbered}}
    if status == 202:
        responses["2XX"] = {"description": ""}
    if answer is None:
        del responses["default"]
    document, handlers = operation(responses=responses), {"op": lambda request: answer}
    assert served(routes_from(document, handlers, check_answers=True)).get("/x").status_code == status
    assert served(routes_from(document, handlers)).get("/x").status_code != 500


def test_further_options_of_a_route_stand_behind_the_check(routes_from: Callable[..., Any]) -> None:
    reached: list[Any] = []

    def noted(handler: Any) -> Any:
        return lambda request: reached.append(request.fields["n"]) or handler(request)

    document = operation(parameters=[parameter("n", "query", {"type": "integer"})])
    options = {"op": {"middlewares": [noted], "max_body": 10}}
    [route, _] = routes = routes_from(document, {"op": fields}, options=options)
    assert (route.max_body, served(routes).get("/x?n=x").status_code, reached) == (10, 400, [])
    assert (served(routes).get("/x?n=1").status_code, reached) == (200, [1])


def test_what_the_document_does_not_produce_is_not_acceptable(routes_from: Callable[..., Any]) -> None:
    document = operation(responses={"200": {"description": "", **content({}, "application/json")}})
    client = served(routes_from(document, {"op": lambda request: 1}))
    assert client.get("/x", headers={"Accept": "application/x-protobuf"}).status_code == 406


def secured(*requirements: Mapping[str, list[str]]) -> dict[str, Any]:
    schemes = {"token": {"type": "http", "scheme": "bearer"}, "key": {"type": "http", "scheme": "apikey"}}
    return {**operation(security=list(requirements)), "components": {"securitySchemes": schemes}}


def test_any_of_several_security_schemes_lets_in(routes_from: Callable[..., Any]) -> None:
    authenticators = {"token": Bearer(lambda given: given == "t"), "key": ApiKey({"shop": "k"})}
    handlers = {"op": lambda request: request.principal.name}
    document = secured({"token": []}, {"key": []})
    client = served(routes_from(document, handlers, authenticators=authenticators))
    assert client.get("/x", headers={"Authorization": "Bearer t"}).json == "bearer"
    assert client.get("/x", headers={"Authorization": "Apikey k"}).json == "shop"
    challenge = client.get("/x").headers["WWW-Authenticate"]
    assert "Bearer" in challenge
    assert "Apikey" in challenge


def test_scopes_reach_whoever_checks_them(routes_from: Callable[..., Any]) -> None:
    def scoped(scopes: tuple[str, ...]) -> Bearer:
        return Bearer(lambda given: Principal("ann") if given in scopes else None)

    handlers = {"op": lambda request: request.principal.name}
    client = served(routes_from(secured({"token": ["read"]}), handlers, authenticators={"token": scoped}))
    assert client.get("/x", headers={"Authorization": "Bearer read"}).json == "ann"
    assert client.get("/x", headers={"Authorization": "Bearer write"}).status_code == 401


def test_an_operation_without_security_is_open_in_a_document_that_has_some(
    routes_from: Callable[..., Any],
) -> None:
    document = {**secured(), "security": [{"token": []}]}
    assert served(routes_from(document, {"op": lambda request: 1})).get("/x").status_code == 200


def test_everything_that_is_not_there_is_said_at_once(routes_from: Callable[..., Any]) -> None:
    document = secured({"token": []})
    document["paths"]["/y"] = {"get": {"responses": {"200": {"description": ""}}}}
    text = problems(routes_from, document, {"op": fields, "opp": fields}, options={"oq": {}})
    assert "operation op: security scheme 'token' has no authenticator" in text
    assert "operation GET /y: there is no processor of that name in handlers" in text
    assert "'opp' is no operationId of the document: there are GET /y, op" in text
    assert "'oq' is no operationId" in text


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"swagger": "2.0"}, "openapi is 'None': use 3.0 or 3.1"),
        (operation(responses=1), "paths./x.get"),
        (operation("/x/{id}"), "id"),
        (operation(parameters=[{"name": "n", "in": "query", **content({})}]), "parameter n has no schema"),
        (
            operation(parameters=[parameter("n", "query", {"type": ["integer", "null"]})]),
            "name them in anyOf",
        ),
        (secured({"token": [], "key": []}), "name one scheme in each requirement"),
        ("nowhere.yaml", "nowhere.yaml"),
    ],
    ids=[
        "another format",
        "a wrong part",
        "a parameter that is not described",
        "by content",
        "of several types",
        "two at once",
        "no file",
    ],
)
def test_a_document_that_cannot_be_served_says_where(
    routes_from: Callable[..., Any], document: Any, said: str
) -> None:
    authenticators = {"token": Bearer(lambda given: None), "key": ApiKey(["k"])}
    assert said in problems(routes_from, document, {"op": fields}, authenticators=authenticators)


def test_a_prefix_stands_before_every_path_and_the_document_may_stay_unserved(
    routes_from: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(operation(responses={200: {"description": ""}})))
    routes = routes_from(file, {"op": lambda request: 1}, prefix="/v1", served_at=None)
    assert [(route.method, route.path, route.name) for route in routes] == [("GET", "/v1/x", "op")]
    assert served(routes).get("/v1/x").json == 1
