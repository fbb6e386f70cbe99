"""Who a request comes from, behind proxies and without, and what an address counts as."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patron.errors import ConfigError
from patron.http import HttpSettings, Request, get
from patron.http.remote import PROXIES, Proxies, client_address, counted_as

TRUSTED = Proxies(["10.0.0.0/8", "192.0.2.1", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("203.0.113.5", "203.0.113.9", "203.0.113.5"),  # no proxy of ours: it may say what it likes
        ("10.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the client wrote the first one itself
        ("10.0.0.1", "198.51.100.1,203.0.113.9,10.1.1.1 , 192.0.2.1", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),  # all ours
        ("10.0.0.1", "203.0.113.9, unknown", "10.0.0.1"),  # our proxy does not know
        ("10.0.0.1", "203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.9,", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::9]:4711", "2001:db8::9"),
        ("10.0.0.1", "[2001:db8::9]", "2001:db8::9"),
        ("10.0.0.1", "2001:db8::9", "2001:db8::9"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("fd00::1", "2001:db8::9, fd00::2", "2001:db8::9"),
        ("10.0.0.1", "999.1.1.1", "10.0.0.1"),
        ("10.0.0.1", "x" * 60000, "10.0.0.1"),
        ("10.0.0.1", ",".join(["10.0.0.2"] * 9000), "10.0.0.2"),
        ("", "203.0.113.9", None),
    ],
)
def test_the_client_is_the_last_one_that_is_no_proxy_of_ours(
    peer: str, forwarded: str | None, client: str | None
) -> None:
    environ: dict[str, Any] = {"REMOTE_ADDR": peer, PROXIES: TRUSTED}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded
    assert client_address(environ) == client


def test_without_trusted_proxies_nobody_is_believed() -> None:
    environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9"}
    assert client_address(environ) == Request(environ, {}).client == "10.0.0.1"
    assert client_address({"REMOTE_ADDR": ""}) is None


@given(st.text(st.characters(max_codepoint=255)))
def test_nothing_that_a_client_writes_is_more_than_a_wrong_entry(forwarded: str) -> None:
    environ = {
        "REMOTE_ADDR": "10.0.0.1",
        "HTTP_X_FORWARDED_FOR": f"{forwarded}, 203.0.113.9",
        PROXIES: TRUSTED,
    }
    assert client_address(environ) == "203.0.113.9"
    counted_as(forwarded)
    client_address({"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": forwarded, PROXIES: TRUSTED})


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("64:ff9b::203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_address_counts_as_one_customer(address: str | None, counted: str) -> None:
    assert counted_as(address) == counted


def test_the_setting_reaches_requests_and_the_access_log(serve, caplog) -> None:
    caplog.set_level("INFO")
    client = serve(
        get("/", lambda request: {"client": request.client, "remote": request.remote}),
        settings=HttpSettings(trusted_proxies=["127.0.0.0/8"]),
    )
    answer = client.get(
        "/", headers={"X-Forwarded-For": "203.0.113.9"}, environ_overrides={"REMOTE_ADDR": "127.0.0.1"}
    )
    assert answer.json == {"client": "203.0.113.9", "remote": "127.0.0.1"}
    assert '"remote":"203.0.113.9"' in caplog.text


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (("10.0.0.0/33",), "10.0.0.0/33.*write an address, or a network such as 10.0.0.0/8"),
        (("10.0.0.1/8",), "has host bits set"),
        (("proxy.local",), "'proxy.local'"),
        ("10.0.0.0/8", r"use a list of networks, such as \[10.0.0.0/8\]"),
    ],
)
def test_a_wrong_network_is_refused_with_what_to_write(wrong, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        HttpSettings(trusted_proxies=wrong)
