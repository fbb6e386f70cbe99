"""A cached route, seen by its clients."""

from __future__ import annotations

import hashlib

import flask
import pytest
from cache_world import world
from werkzeug.test import Client, create_environ, run_wsgi_app

from patron.errors import ConfigError, NotFound
from patron.http import (
    ApiKey,
    Bearer,
    Compression,
    HttpSettings,
    Principal,
    Response,
    RouteCache,
    build,
    get,
    post,
)
from patron.http.limits import RateLimit


def test_the_second_request_is_answered_from_the_store():
    with world() as w:
        first, second = w.get(), w.get()
        assert (first.json, second.json, w.runs) == ({"run": 1}, {"run": 1}, 1)
        assert w.counts() == {"miss": 1, "added": 1, "hit": 1}


@pytest.mark.parametrize(
    ("age", "headers", "status", "run", "warned"),
    [
        (29, {}, 200, 1, ""),
        (30, {}, 200, 2, ""),
        (4, {"Cache_Control": "max-age=2"}, 200, 1, '199 patron "max-age raised to 5"'),
        (5, {"Cache_Control": "max-age=20"}, 200, 1, ""),
        (6, {"Cache_Control": "max-age=3"}, 200, 2, ""),
        (20, {"Cache_Control": "min-fresh=10"}, 200, 1, ""),
        (21, {"Cache_Control": "min-fresh=10"}, 200, 2, ""),
        (3, {"Cache_Control": "min-fresh=99"}, 200, 1, '199 patron "min-fresh lowered to 25"'),
        (
            4,
            {"Cache_Control": "no-cache"},
            200,
            1,
            '199 patron "no-cache ignored: the answer is younger than 5 s"',
        ),
        (5, {"Cache_Control": "no-cache"}, 200, 2, ""),
        (5, {"Pragma": "no-cache"}, 200, 2, ""),
        (5, {"Pragma": "no-cache", "Cache_Control": "max-age=9"}, 200, 1, ""),
        (5, {"Cache_Control": "no-store"}, 200, 2, ""),
        (29, {"Cache_Control": "only-if-cached"}, 200, 1, ""),
        (30, {"Cache_Control": "only-if-cached"}, 504, None, ""),
    ],
)
def test_the_directives_of_a_client_count_within_min_and_max(age, headers, status, run, warned):
    with world(max=30, min=5) as w:
        w.get()
        w.clock.now += age
        answer = w.get(**headers)
        assert (answer.status_code, answer.headers.get("Warning", "")) == (status, warned)
        assert answer.data == b"" if run is None else answer.json == {"run": run}
        assert w.runs == (run or 1)


def test_only_if_cached_is_an_empty_504_without_an_entry():
    with world() as w:
        answer = w.get(Cache_Control="only-if-cached")
        assert (answer.status_code, answer.data, w.runs) == (504, b"", 0)
        assert w.counts() == {"miss": 1, "refused": 1}


def test_a_newer_answer_that_a_client_asked_for_is_for_everybody():
    with world() as w:
        w.get()
        w.clock.now += 10
        w.get(Cache_Control="no-cache")
        assert w.get().json == {"run": 2}


def test_what_a_client_wants_stored_nowhere_is_not_stored():
    with world() as w:
        assert w.get(Cache_Control="no-store").json == {"run": 1}
        assert w.get().json == {"run": 2}
        assert w.counts() == {"miss": 2, "not_cacheable:no_store": 1, "added": 1}


def test_every_cached_answer_has_its_age_its_lifetime_and_a_tag_the_fresh_one_too():
    with world(max=30) as w:
        for age in (0, 0, 12.7, 29.9):
            answer = w.get()
            w.clock.now = 1_800_000_000.0 + age
        assert answer.headers["Age"] == "12"
        answer = w.get()
        assert answer.headers["Age"] == "29"
        assert (
            answer.headers["Cache-Control"] == "max-age=30"
        )  # RFC 9111, section 4.2: counted from its making
        w.clock.now += 1
        assert w.get().headers["Age"] == "0"


def test_the_tag_is_a_strong_hash_of_the_representation():
    with world() as w:
        w.processor = lambda request: {"name": request.params["name"]}
        one, other = w.get("/it/a").headers["ETag"], w.get("/it/b").headers["ETag"]
        w.clock.now += 30
        assert w.get("/it/a").headers["ETag"] == one != other
        assert not one.startswith("W/")
        assert len(one) == 2 + hashlib.blake2b(digest_size=16).digest_size * 2


def test_two_types_with_the_same_bytes_have_two_tags():
    with world() as w:
        w.processor = lambda request: Response("x", content_type=request.fields["type"])
        tags = {w.get(f"/it/a?type={kind}").headers["ETag"] for kind in ("text/plain", "text/html")}
        assert len(tags) == 2


def test_a_tag_of_the_processors_own_is_kept():
    with world() as w:
        w.processor = lambda request: Response({"a": 1}, headers={"ETag": '"mine"'})
        assert [w.get().headers.getlist("ETag") for _ in range(2)] == [['"mine"']] * 2


@pytest.mark.parametrize("again", [True, False], ids=["from the store", "fresh"])
@pytest.mark.parametrize(
    ("form", "status"),
    [
        ("{}", 304),
        ("W/{}", 304),
        ('"x", {}', 304),
        ('W/"x" ,\t{},', 304),
        ("*", 304),
        (" * ", 304),
        ('"x"', 200),
        ("", 200),
        ('"*"', 200),
        ("{}x", 304),
        ("garbage", 200),
    ],
)
def test_a_client_that_has_it_already_is_told_so(form, status, again):
    with world() as w:
        w.processor = lambda request: Response({"a": 1}, headers={"X-More": "1", "Content-Language": "en"})
        tag = w.get().headers["ETag"]
        w.clock.now += 7 if again else 30
        answer = w.get(If_None_Match=form.format(tag))
        assert answer.status_code == status
        assert answer.headers["ETag"] == tag
        assert answer.headers["Age"] == ("7" if again else "0")
        assert answer.headers["Cache-Control"] == "max-age=30"
        assert answer.headers["X-More"] == "1"
        if status == 304:
            assert answer.data == b""
            assert not [name for name, _ in answer.headers if name.lower().startswith("content-")]


def test_a_304_has_the_warning_too():
    with world(min=5) as w:
        tag = w.get().headers["ETag"]
        answer = w.get(If_None_Match=tag, Cache_Control="max-age=0")
        assert (answer.status_code, answer.headers["Warning"]) == (304, '199 patron "max-age raised to 5"')


def test_the_date_of_the_last_change_counts_without_a_tag():
    with world() as w:
        date = "Sun, 06 Nov 1994 08:49:37 GMT"
        w.processor = lambda request: Response(
            "x", headers={"Last-Modified": date}, content_type="text/plain"
        )
        assert w.get(If_Modified_Since=date).status_code == 304
        assert w.get(If_Modified_Since="Sun, 06 Nov 1994 08:49:38 GMT").status_code == 304
        assert w.get(If_Modified_Since="Sun, 06 Nov 1994 08:49:36 GMT").status_code == 200
        assert w.get(If_Modified_Since="yesterday").status_code == 200
        assert w.get(If_Modified_Since=date, If_None_Match='"other"').status_code == 200


def test_head_is_answered_from_the_entry_of_get_and_makes_one():
    with world() as w:
        w.processor = lambda request: {"method": request.method}
        head = w.request("HEAD")
        whole = w.get()
        assert (head.data, whole.json, w.runs) == (b"", {"method": "GET"}, 1)
        assert head.headers["Content-Length"] == whole.headers["Content-Length"] == str(len(whole.data))
        assert head.headers["ETag"] == whole.headers["ETag"]
        assert w.request("HEAD", If_None_Match="*").status_code == 304


def test_a_range_is_answered_with_the_whole():
    with world() as w:
        seen = []
        w.processor = lambda request: seen.append(request.headers.get("Range")) or {"a": 1}
        for _ in range(2):
            answer = w.get(Range="bytes=0-1", If_Range='"x"')
            assert (answer.status_code, answer.json) == (200, {"a": 1})
        assert seen == [None]


def test_the_processor_makes_the_whole_whatever_the_client_has():
    with world() as w:
        w.processor = lambda request: sorted(name for name in request.headers if name.startswith("If-"))
        assert w.get(If_None_Match='"x"', If_Modified_Since="Sun, 06 Nov 1994 08:49:37 GMT").json == []


def test_status_headers_and_body_are_replayed_as_they_were():
    with world() as w:
        headers = {"X-Two": ["1", "2"], "Link": "</b>; rel=next", "Content-Language": "en"}
        w.processor = lambda request: Response(b"\x00\xff" * 9, 203, headers, "application/x-thing")
        first = w.get()
        w.clock.now += 3
        again = w.get()
        assert again.status == first.status == "203 Non-Authoritative Information"
        assert again.data == first.data == b"\x00\xff" * 9
        own = ("Age", "X-Correlation-Id")
        assert [h for h in again.headers if h[0] not in own] == [h for h in first.headers if h[0] not in own]
        assert again.headers.getlist("X-Two") == ["1", "2"]
        assert w.runs == 1


def test_an_empty_answer_is_kept_too():
    with world() as w:
        w.processor = lambda request: None
        assert [w.get().status_code for _ in range(2)] == [204, 204]
        assert w.runs == 1


@pytest.mark.parametrize("status", [201, 202, 206, 301, 400, 404, 410, 500, 503])
def test_other_statuses_are_not_kept_and_reach_the_client_as_they_are(status):
    with world() as w:
        w.processor = lambda request: Response({"run": w.runs}, status, {"Location": "/x"})
        answers = [w.get() for _ in range(2)]
        assert [(a.status_code, a.json) for a in answers] == [(status, {"run": 1}), (status, {"run": 2})]
        assert "Age" not in answers[1].headers


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Set-Cookie": "a=1"}, "set_cookie"),
        ({"Cache-Control": "private"}, "private"),
        ({"Cache-Control": "Private, max-age=10"}, "private"),
        ({"Cache-Control": 'max-age=10, private="x"'}, "private"),
        ({"Cache-Control": ["max-age=10", "no-store"]}, "no_store"),
        ({"Cache-Control": "no-cache"}, "no_cache"),
        ({"Cache-Control": "max-age=0"}, "expired"),
        ({"Cache-Control": "max-age=9, s-maxage=0"}, "expired"),
        ({"Cache-Control": "max-age=9", "Age": "9"}, "expired"),
        ({"Cache-Control": "max-age=9, max-age=soon"}, "expired"),
        ({"Cache-Control": "max-age=9", "Age": "99999999999999999999"}, "expired"),
        ({"Cache-Control": "public, no-store"}, "no_store"),
        ({"Expires": "0"}, "expired"),
        ({"Expires": "Sun, 06 Nov 1994 08:49:37 GMT"}, "expired"),
        ({"Vary": "*"}, "vary"),
        ({"Vary": "Accept, Accept-Language"}, "vary"),
        ({"Vary": "Cookie"}, "vary"),
    ],
)
def test_what_the_answer_says_about_itself_counts(headers, reason):
    with world() as w:
        w.processor = lambda request: Response({"run": w.runs}, headers=headers)
        assert [w.get().json for _ in range(2)] == [{"run": 1}, {"run": 2}]
        assert w.counts() == {"miss": 2, f"not_cacheable:{reason}": 2}


@pytest.mark.parametrize(
    ("control", "sent", "lives"),
    [
        ("max-age=5", "max-age=5", 5),
        ("max-age=99", "max-age=30", 30),
        ("s-maxage=5, max-age=20", "max-age=5", 5),
        ("max-age=5, max-age=20", "max-age=5", 5),
        ("max-age=20, public, max-age=5", "public, max-age=5", 5),
        ("s-maxage=20, s-maxage=5, max-age=9", "max-age=5", 5),
        ("public, must-revalidate", "public, must-revalidate, max-age=30", 30),
        ('max-age=7, x="a b"', 'x="a b", max-age=7', 7),
    ],
)
def test_the_answer_may_shorten_its_life_and_not_lengthen_it(control, sent, lives):
    with world(max=30) as w:
        w.processor = lambda request: Response({"run": w.runs}, headers={"Cache-Control": control})
        assert w.get().headers.getlist("Cache-Control") == [sent]
        w.clock.now += lives - 0.1
        assert w.get().json == {"run": 1}
        w.clock.now += 0.2
        assert w.get().json == {"run": 2}


def test_an_answer_that_was_kept_elsewhere_before_brings_its_age():
    with world(max=30) as w:
        w.processor = lambda request: Response({"a": 1}, headers={"Cache-Control": "max-age=10", "Age": "6"})
        assert w.get().headers.getlist("Age") == ["6"]
        w.clock.now += 3
        assert w.get().headers.getlist("Age") == ["9"]
        w.clock.now += 1
        w.get()
        assert w.runs == 2


def test_a_stream_is_sent_and_not_kept():
    with world() as w:
        w.processor = lambda request: iter([b"a", b"b"])
        assert [w.get().data for _ in range(2)] == [b"ab", b"ab"]
        assert w.counts() == {"miss": 2, "not_cacheable:streamed": 2}
        assert w.request("HEAD").data == b""


def test_a_body_that_is_too_large_is_sent_and_not_kept():
    with world(max_body=10) as w:
        w.processor = lambda request: b"x" * 11
        assert [len(w.get().data) for _ in range(2)] == [11, 11]
        assert w.counts() == {"miss": 2, "not_cacheable:too_large": 2}


def test_parts_of_a_second_count():
    with world(max=0.5, min=0.2) as w:
        w.get()
        w.clock.now += 0.1
        assert w.get(Cache_Control="no-cache").json == {"run": 1}
        w.clock.now += 0.3
        answer = w.get()
        assert (answer.json, answer.headers["Age"], answer.headers["Cache-Control"]) == (
            {"run": 1},
            "0",
            "max-age=0",
        )
        w.clock.now += 0.11
        assert w.get().json == {"run": 2}


def test_with_max_0_there_is_no_cache():
    with world(max=0) as w:
        answers = [w.get(), w.get(Cache_Control="only-if-cached")]
        assert [a.json for a in answers] == [{"run": 1}, {"run": 2}]
        assert not {"Age", "ETag", "Cache-Control"} & {name for name, _ in answers[0].headers}
        assert w.counts() == {}


def test_settings_that_make_no_sense_are_all_named():
    with pytest.raises(ConfigError) as caught:
        RouteCache(
            max=1,
            min=2,
            stale_if_error=-1,
            vary=("a b", "*"),
            store="",
            size=0,
            max_bytes=True,
            wait=float("nan"),
        )
    assert len(caught.value.problems) == 8
    assert "min is 2 and max 1" in str(caught.value)


def test_only_get_can_have_a_cache():
    with pytest.raises(ConfigError, match="cache"):
        post("/x", lambda request: None, cache=RouteCache(max=1))


def test_a_store_that_is_not_there_is_an_error_when_the_service_starts():
    app = build(routes=[get("/x", lambda request: None, cache=RouteCache(max=1, store="shelf"))])
    with pytest.raises(ConfigError, match="shelf"):
        app.start({"other": object()})


def test_other_methods_pass_by():
    with world() as w:
        w.get()
        answer = w.request("PUT")
        assert answer.status_code == 405
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
        assert w.request("OPTIONS").status_code == 200
        assert w.counts() == {"miss": 1, "added": 1}


# The key.


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/it/a?x=1&y=2", "/it/a?y=2&x=1", True),
        ("/it/a?x=1&y=2&x=0", "/it/a?y=2&x=1&x=0", True),
        ("/it/a?x=1&x=2", "/it/a?x=2&x=1", False),
        ("/it/a?x=1&%78=2", "/it/a?%78=2&x=1", False),
        ("/it/a?x=1", "/it/a?x=2", False),
        ("/it/a", "/it/a?", True),
        ("/it/a", "/it/b", False),
        ("/it/a", "/it/a?x", False),
    ],
)
def test_path_and_sorted_query_tell_entries_apart(one, other, same):
    with world() as w:
        assert (w.get(one).json == w.get(other).json) is same


def test_the_negotiated_type_tells_entries_apart_and_not_how_it_was_asked_for():
    with world() as w:
        w.processor = lambda request: Response(f"{w.runs} {request.accepted}", content_type="text/plain")
        protobuf = "application/x-protobuf"
        answers = [
            w.get(Accept=a).text for a in ("application/json", "*/*", f"{protobuf}, */*;q=0.1", protobuf)
        ]
        assert answers == ["1 application/json"] * 2 + ["2 application/x-protobuf"] * 2


def test_the_headers_that_a_route_varies_by_tell_entries_apart_and_are_named():
    with world(vary=("Accept-Language", "X-Tenant")) as w:
        w.processor = lambda request: Response({"run": w.runs}, headers={"Vary": "accept-language"})
        first = w.get(Accept_Language="de")
        assert first.json == {"run": 1}
        assert w.get(Accept_Language="en").json == {"run": 2}
        assert w.get(Accept_Language="de", X_Tenant="").json == {"run": 3}
        assert w.get(Accept_Language=" de").json == {"run": 1}
        assert first.headers.getlist("Vary") == ["accept-language", "X-Tenant"]


def test_a_header_whose_name_is_in_the_name_of_another_is_named_too():
    with world(vary=("X-A", "X-AB")) as w:
        w.processor = lambda request: Response({}, headers={"Vary": "X-AB"})
        assert w.get().headers.getlist("Vary") == ["X-AB", "X-A"]


def test_no_host_at_all_is_none_that_a_client_could_name():
    with world() as w:
        w.processor = lambda request: {"next": f"http://{request.headers.get('Host')}/next"}
        assert w.get(Host="None").json == {"next": "http://None/next"}
        environ = create_environ("/it/a")
        del environ["HTTP_HOST"]  # HTTP/1.0 may leave it out
        environ["SERVER_PROTOCOL"] = "HTTP/1.0"
        run_wsgi_app(w.app, environ)
        assert w.runs == 2


def test_the_host_tells_entries_apart_lest_one_client_choose_the_links_of_others():
    with world() as w:
        w.processor = lambda request: {"next": f"http://{request.headers['Host']}/next"}
        assert w.get(Host="evil.example").json == {"next": "http://evil.example/next"}
        assert w.get(Host="good.example").json == {"next": "http://good.example/next"}


def test_the_prefix_that_the_service_is_mounted_at_tells_entries_apart():
    with world() as w:
        w.processor = lambda request: {"path": request.path}
        for prefix in ("/one", "/two"):
            answer = w.client.get("/it/a", environ_overrides={"SCRIPT_NAME": prefix})
            assert answer.json == {"path": f"{prefix}/it/a"}


def test_a_zero_byte_in_a_header_makes_no_other_key():
    with world(vary=("A", "B")) as w:
        one = w.client.get("/it/a", environ_overrides={"HTTP_A": "x\0=y", "HTTP_B": "z"})
        other = w.client.get("/it/a", environ_overrides={"HTTP_A": "x", "HTTP_B": "y\0=z"})
        assert one.json != other.json


# Who asks.


def test_each_principal_has_entries_of_its_own():
    keys = ApiKey({"ann": "1", "bob": "2"})
    with world(options={"authenticator": keys}) as w:
        w.processor = lambda request: {"run": w.runs, "who": request.principal.name}
        answers = [w.get(Authorization=f"Apikey {key}") for key in "1212"]
        assert [a.json["who"] for a in answers] == ["ann", "bob", "ann", "bob"]
        assert w.runs == 2
        assert answers[0].headers["Cache-Control"] == "private, max-age=30"


def test_nobody_gets_an_entry_without_being_let_in():
    with world(options={"authenticator": ApiKey(["1"])}) as w:
        assert w.get(Authorization="Apikey 1").status_code == 200
        for headers in ({}, {"Authorization": "Apikey 2"}, {"Cache_Control": "only-if-cached"}):
            answer = w.get(**headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Apikey realm="service"')


def test_two_who_have_the_same_name_and_other_credentials_or_claims_share_nothing():
    tokens = {
        "a": Principal("joe", {"tenant": 1}),
        "b": Principal("joe", {"tenant": 2}),
        "c": True,
        "d": True,
    }
    with world(options={"authenticator": Bearer(tokens.get)}) as w:
        w.processor = lambda request: {"token": request.headers["Authorization"]}
        for token in "abcdabcd":
            assert w.get(Authorization=f"Bearer {token}").json == {"token": f"Bearer {token}"}
        assert w.runs == 4


class ByCookie:
    """An authenticator that says more or less about who asks."""

    def __init__(self, *, names: bool) -> None:
        self._names = names

    def authenticate(self, request):
        cookie = request.headers.get("Cookie")
        return cookie and (Principal(cookie) if self._names else True)


def test_a_principal_that_is_just_somebody_meets_no_entries():
    with world(options={"authenticator": ByCookie(names=False)}) as w:
        w.processor = lambda request: {"cookie": request.headers["Cookie"]}
        assert [w.get(Cookie=c).json["cookie"] for c in ("ann", "bob")] == ["ann", "bob"]
        assert w.counts() == {"bypass:principal": 2}


def test_a_principal_known_by_a_cookie_has_entries():
    with world(options={"authenticator": ByCookie(names=True)}) as w:
        w.processor = lambda request: {"run": w.runs, "cookie": request.headers["Cookie"]}
        assert [w.get(Cookie=c).json["cookie"] for c in ("ann", "bob", "ann")] == ["ann", "bob", "ann"]
        assert w.runs == 2


def test_credentials_that_we_did_not_check_keep_a_request_from_the_store():
    with world() as w:
        w.processor = lambda request: {"who": request.headers.get("Authorization")}
        assert w.get().json == {"who": None}
        assert [w.get(Authorization=a).json["who"] for a in ("x", "y", "x")] == ["x", "y", "x"]
        assert w.get().json == {"who": None}
        assert w.counts() == {"miss": 1, "added": 1, "hit": 1, "bypass:authorization": 3}
        refused = w.get(Authorization="x", Cache_Control="only-if-cached")
        assert (refused.status_code, w.runs) == (504, 4)


def test_a_request_with_a_body_does_not_meet_the_store():
    with world() as w:
        w.processor = lambda request: request.decode()
        for number in range(2):
            assert w.client.get("/it/a", json=number).json == number
        assert w.counts() == {"bypass:body": 2}


def test_what_was_made_for_somebody_with_a_cookie_is_for_nobody_else():
    with world() as w:
        w.processor = lambda request: {"who": request.headers.get("Cookie")}
        assert w.get(Cookie="ann").json == {"who": "ann"}
        assert w.get().json == {"who": None}
        assert w.counts() == {"miss": 2, "not_cacheable:cookie": 1, "added": 1}


def test_what_says_that_it_is_public_is_kept_whoever_asked():
    with world() as w:
        w.processor = lambda request: Response({"run": w.runs}, headers={"Cache-Control": "public"})
        assert [w.get(Cookie="ann").json, w.get().json] == [{"run": 1}] * 2


def test_a_route_may_vary_by_the_cookie():
    with world(vary=("Cookie",)) as w:
        w.processor = lambda request: {"run": w.runs}
        assert [w.get(Cookie=c).json["run"] for c in ("ann", "bob", "ann")] == [1, 2, 1]


def test_a_session_that_a_processor_looked_at_keeps_its_answer_from_others():
    def who(request):
        return {"who": flask.session.get("who")}

    app = build(routes=[get("/who", who, cache=RouteCache(max=30))])
    app.flask.secret_key = "k"
    app.start({})
    ann, bob = app.flask.test_client(), app.flask.test_client()
    cookies = []
    for client, name in ((ann, "ann"), (bob, "bob")):
        with client.session_transaction() as session:
            session["who"] = name
        cookies.append(client.get_cookie("session").value)
    plain = Client(app, use_cookies=False)
    for cookie, name in zip(cookies * 2, ["ann", "bob"] * 2, strict=True):
        assert plain.get("/who", headers={"Cookie": f"session={cookie}"}).json == {"who": name}
    assert plain.get("/who").json == {"who": None}
    app.close()


# What is around it.


def test_the_middlewares_of_a_route_run_for_hits_too_and_get_flasks_responses():
    def stamped(handler):
        def stamp(request):
            response = handler(request)
            response.headers["X-Stamp"] = f"{response.status_code} {response.mimetype}"
            return response

        return stamp

    with world(options={"middlewares": (stamped,)}) as w:
        for tags, expected in (
            ({}, "200 application/json"),
            ({}, "200 application/json"),
            ({"If_None_Match": "*"}, "304 None"),
        ):
            answer = w.get(**tags)
            assert answer.headers["X-Stamp"] == expected
            assert answer.headers["ETag"]
        assert w.runs == 1


def test_hooks_and_error_handlers_of_flask_apply_to_misses_and_to_what_the_chain_raises():
    with world(options={"authenticator": ApiKey(["1"])}) as w:
        w.app.flask.after_request(lambda response: response.headers.add("X-Hook", "1") or response)
        w.app.flask.errorhandler(404)(lambda error: ("gone fishing", 404))

        def missing(request):
            raise NotFound()

        refused = w.get()
        assert (refused.status_code, refused.headers["X-Hook"]) == (401, "1")
        w.processor = missing
        assert w.get(Authorization="Apikey 1").headers["X-Hook"] == "1"
        assert w.get(Accept="image/png", Authorization="Apikey 1").headers["X-Hook"] == "1"


def test_the_chain_runs_once_also_when_it_refuses():
    asked = []

    class Nobody:
        def authenticate(self, request):
            asked.append(request)

    with world(options={"authenticator": Nobody()}) as w:
        assert w.get().status_code == 401
        assert len(asked) == 1


def test_what_a_hook_answers_instead_of_the_processor_is_an_answer():
    with world() as w:
        w.app.flask.before_request(lambda: ("stop", 503))
        assert [(w.get().status_code, w.runs) for _ in range(2)] == [(503, 0), (503, 0)]


def test_a_processor_that_takes_resources_gets_them():
    app = build(routes=[get("/x", lambda request, number: {"n": number}, cache=RouteCache(max=9))])
    app.start({"number": 7})
    assert [Client(app).get("/x").json for _ in range(2)] == [{"n": 7}] * 2
    app.close()


def test_a_hit_is_compressed_for_those_who_take_it_and_its_weak_tag_is_known_again():
    with world(app={"settings": HttpSettings(compression=Compression())}) as w:
        w.processor = lambda request: {"run": w.runs, "filling": "x" * 5000}
        plain, packed = w.get(), w.get(Accept_Encoding="gzip")
        assert (w.runs, packed.headers["Content-Encoding"], len(packed.data) < 500) == (1, "gzip", True)
        assert packed.headers["ETag"] == "W/" + plain.headers["ETag"]
        assert w.get(Accept_Encoding="gzip", If_None_Match=packed.headers["ETag"]).status_code == 304


def test_limits_count_hits_too():
    with world(options={"limits": (RateLimit(2, per=60, by="route"),)}) as w:
        assert [w.get().status_code for _ in range(3)] == [200, 200, 429]
        assert w.runs == 1
