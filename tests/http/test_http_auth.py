"""A route with an authenticator knows who asks."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client

from patron.errors import ConfigError, Forbidden, Unauthorized
from patron.http import ApiKey, Basic, Bearer, Principal, Response, build, get, post


def whoami(request):
    return request.principal.name


def ask(authenticator, authorization=None):
    app = build(routes=[get("/", whoami, authenticator=authenticator)])
    app.start({})
    return Client(app).get("/", headers={} if authorization is None else {"Authorization": authorization})


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


# ------------------------------------------------------------------ who is let in


@pytest.mark.parametrize("scheme", ["Apikey", "apikey", "APIKEY"])
def test_every_one_of_several_keys_is_good_while_they_rotate(scheme):
    for key in ("old", "new key with spaces"):
        assert ask(ApiKey(["old", "new key with spaces"]), f"{scheme} {key}").json == "apikey"


def test_keys_may_have_names():
    assert ask(ApiKey({"mobile": "one", "web": "two"}), "Apikey two").json == "web"


def test_a_key_may_be_any_text():
    wire = "Apikey " + "schlüssel".encode().decode("latin-1")
    assert ask(ApiKey(["schlüssel"]), wire).json == "apikey"


def test_basic_knows_users_and_passwords_with_colons():
    assert ask(Basic({"ann": "a:b", "bob": "é"}), basic("ann:a:b")).json == "ann"
    assert ask(Basic({"ann": "a:b", "bob": "é"}), basic("bob:é")).json == "bob"


@pytest.mark.parametrize("answer", [True, "ann", Principal("ann", {"role": "admin"})])
def test_a_validator_says_yes_or_who(answer):
    name = "ann" if answer is not True else "apikey"
    assert ask(ApiKey(validator=lambda key: answer), "Apikey k").json == name
    assert ask(Basic(validator=lambda user, password: answer), basic("ann:p")).json == "ann"
    assert ask(Bearer(lambda token: answer), "Bearer t").json == ("ann" if answer is not True else "bearer")


# ------------------------------------------------------------------ who is not


MALFORMED = [
    "",
    " ",
    "Apikey",
    "Apikey ",
    "Basic",
    "Basic !!!",
    "Basic Y",
    "Bearer",
    "k",
    "Basic w6k=",
    "Token k",
]


@pytest.mark.parametrize(
    "authorization", [None, *MALFORMED, basic("nocolon"), basic(":p"), "Apikeyk", "Apikey other"]
)
@pytest.mark.parametrize(
    ("authenticator", "challenge"),
    [
        (ApiKey(["k"]), 'Apikey realm="service"'),
        (Basic({"u": "p"}, realm="shop"), 'Basic realm="shop", charset="UTF-8"'),
        (Bearer(lambda token: None), 'Bearer realm="service"'),
    ],
    ids=["apikey", "basic", "bearer"],
)
def test_missing_malformed_and_wrong_credentials_are_a_401_with_a_challenge(
    authenticator, challenge, authorization
):
    answer = ask(authenticator, authorization)
    assert (answer.status_code, answer.json) == (401, {"error": "Unauthorized"})
    assert answer.headers["WWW-Authenticate"].startswith(challenge)


@pytest.mark.parametrize("authorization", [basic("u:wrong"), basic("other:p"), basic("u:")])
def test_a_wrong_user_or_password_is_a_401(authorization):
    assert ask(Basic({"u": "p"}), authorization).status_code == 401


def test_a_refused_token_is_told_so():
    answer = ask(Bearer(lambda token: False), "Bearer expired")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="service", error="invalid_token"'


@given(st.text(st.characters(max_codepoint=255)))
def test_no_credentials_are_too_odd(authorization):
    class Request:
        headers = {"Authorization": authorization}

    for authenticator in (ApiKey(["k"]), Basic({"u": "p"}), Bearer(lambda token: None)):
        with contextlib.suppress(Unauthorized):
            authenticator.authenticate(Request())


# ------------------------------------------------------------------ own authenticators


def test_an_authenticators_own_error_is_a_500_and_is_logged(caplog):
    def broken(key):
        raise RuntimeError("the database of keys is away")

    answer = ask(ApiKey(validator=broken), "Apikey very-secret")
    assert (answer.status_code, answer.json) == (500, {"error": "Internal Server Error"})
    assert len(caplog.records) == 1
    assert "very-secret" not in caplog.text


class Own:
    """An authenticator without a challenge."""

    def __init__(self, answer):
        self.answer = answer

    def authenticate(self, request):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "status"),
    [(None, 401), (False, 401), (True, 200), (Principal("x"), 200), (Forbidden(), 403)],
    ids=repr,
)
def test_an_own_authenticator_may_say_no_yes_who_or_raise(answer, status):
    response = ask(Own(answer))
    assert response.status_code == status
    if status == 401:
        assert response.headers["WWW-Authenticate"] == "Own"


def test_the_authenticator_comes_before_the_routes_middlewares_and_the_body():
    calls = []

    def middleware(handler):
        return lambda request: calls.append(request.principal) or handler(request)

    route = post(
        "/", lambda request: Response(1), authenticator=ApiKey({"web": "k"}), middlewares=[middleware]
    )
    app = build(routes=[route])
    app.start({})
    client = Client(app)
    assert client.post("/", data=b"{").status_code == 401
    assert calls == []
    assert client.post("/", headers={"Authorization": "Apikey k"}).status_code == 201
    assert calls == [Principal("web")]


# ------------------------------------------------------------------ building


@pytest.mark.parametrize(
    "make",
    [
        lambda: ApiKey(),
        lambda: ApiKey([]),
        lambda: ApiKey(["k"], validator=bool),
        lambda: ApiKey("one string"),
        lambda: ApiKey([""]),
        lambda: ApiKey([" "]),
        lambda: ApiKey([None]),
        lambda: Basic(),
        lambda: Basic({}),
        lambda: Basic({"u": "p"}, validator=lambda user, password: True),
        lambda: Bearer("token"),
        lambda: Basic({"u": "p"}, realm='a"b'),
        lambda: ApiKey(["k"], realm="a\nb"),
    ],
)
def test_an_authenticator_that_cannot_work_is_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_secrets_are_in_no_repr():
    for authenticator in (ApiKey(["hunter2"]), Basic({"u": "hunter2"}), Principal("x", {"token": "hunter2"})):
        assert "hunter2" not in repr(authenticator)
        assert "hunter2" not in repr(vars(authenticator) if hasattr(authenticator, "__dict__") else "")
