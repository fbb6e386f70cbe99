"""Who a request comes from: the peer, or whom our own proxies took it from."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["PROXIES", "Proxies", "client_address", "counted_as", "listed", "proxy_problems"]

PROXIES = "patron.proxies"
"""Where the WSGI environment holds the `Proxies`; without any the peer is the client."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# More proxies than this in a row are a joke of the client's.
_HOPS = 32

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, section 2.1
_SITE = 64  # bits of an IPv6 address that a single customer is given: RFC 6177, section 2


def listed(trusted: Any) -> Any:
    """*trusted* as a tuple; a string stays what it is, for `proxy_problems`."""
    return trusted if isinstance(trusted, str) else tuple(trusted)


def proxy_problems(trusted: Iterable[Any]) -> Iterator[str]:
    """What is wrong with the networks of proxies in *trusted*."""
    if isinstance(trusted, str):  # a sequence of letters
        yield f"trusted_proxies is {trusted!r}: use a list of networks, such as [10.0.0.0/8]"
        return
    for text in trusted:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            yield f"trusted_proxies: {error}: write an address, or a network such as 10.0.0.0/8"


class Proxies:
    """The proxies that are believed; all threads share it."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(text) for text in trusted)
        # Few peers ask often; and what is in here was written by proxies of ours.
        self._trusts = lru_cache(maxsize=1024)(self._is_trusted)

    def client(self, environ: Mapping[str, Any]) -> str | None:
        """
        The address of the client: the last one in ``X-Forwarded-For`` that is no proxy of ours.

        Each of our proxies adds, at the end, whom it took the request from. What stands before the first
        address that we do not trust was written by somebody who may lie. An entry that is no address ends the
        search: the client is then the proxy that wrote it.
        """
        peer = environ.get("REMOTE_ADDR") or None
        rest = environ.get("HTTP_X_FORWARDED_FOR")
        if not rest or peer is None:
            return peer
        found: str = peer
        for _ in range(_HOPS):
            if not rest or not self._trusts(found):
                break
            rest, _, entry = rest.rpartition(",")
            address = _address(_without_port(entry.strip()))
            if address is None:
                break
            found = str(address)
        return found

    def _is_trusted(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


def client_address(environ: Mapping[str, Any]) -> str | None:
    """The address of the client of this request, None where there is none (a Unix socket)."""
    proxies: Proxies | None = environ.get(PROXIES)
    return proxies.client(environ) if proxies is not None else environ.get("REMOTE_ADDR") or None


_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d*)?|([^:]+):\d+")


def _without_port(text: str) -> str:
    """Some proxies write the port, too: ``192.0.2.1:4711``, ``[2001:db8::1]:4711``."""
    found = _WITH_PORT.fullmatch(text)
    return (found[1] or found[2] or "") if found else text


def _address(text: str) -> Address | None:
    if len(text) > 64:  # the longest IPv6 address has 45 characters, and a zone is short
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return _embedded(address) or address


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: a socket for both, or a translator on the way."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


@lru_cache(maxsize=4096)
def counted_as(address: str | None) -> str:
    """
    What *address* counts as for a limit: an IPv4 address as itself, an IPv6 one as its network of 64 bits.

    A customer is given such a network at least, so that single addresses in it say nothing. What is no address
    is one and the same.

    >>> counted_as("2001:db8::1:2:3:4")
    '2001:db8::/64'
    >>> counted_as("::ffff:192.0.2.1")
    '192.0.2.1'
    """
    known = _address(address or "")
    if known is None:
        return "unknown"
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    return str(ipaddress.ip_network((int(known), _SITE), strict=False))
