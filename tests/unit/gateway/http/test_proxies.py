"""A request that its client sends to a proxy, where no route is one: what it asks for, and what led there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from pytest_egress.errors import UnroutedError
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.entries import Exchange
from tests.support.stage import ADDRESS, Reply, Stage, ask, staged

CONNECT = b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n"
ABSOLUTE = b"GET http://api.test/v1?x=1 HTTP/1.1\r\nHost: api.test\r\n\r\n"


@pytest.fixture
def stage(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged(ca, request) as stage:
        yield stage


def asked(stage: Stage, request: bytes, name: str = "proxy.test", port: int = 8443) -> Reply:
    return ask(stage.dial(stage.resolve(name), port), request, request.partition(b" ")[0].decode())


def verdict(stage: Stage) -> list[str]:
    stage.settle()
    error = judge(stage.window, [])
    assert isinstance(error, UnroutedError)
    return [line.strip() for line in str(error).splitlines()]


def test_a_tunnel_says_what_it_was_for_and_what_to_type(stage: Stage) -> None:
    stage.proxies = (("HTTPS_PROXY", "http://bob:secret@proxy.test:8443"),)
    reply = asked(stage, CONNECT)
    assert reply.status == 502
    assert b"a tunnel to api.test:443 through the proxy proxy.test:8443" in reply.body
    assert verdict(stage) == [
        "1 unrouted attempt of target; nothing got out:",
        "",
        "CONNECT api.test:443 through proxy.test:8443",
        "a tunnel to api.test:443 through the proxy proxy.test:8443, which the target took from HTTPS_PROXY",
        'to have it dial by itself: env={"HTTPS_PROXY": ""}',
        'to answer as that proxy: egress.proxy("proxy.test:8443")',
    ]


def test_a_whole_url_says_likewise(stage: Stage) -> None:
    stage.proxies = (("http_proxy", "proxy.test:8443"), ("HTTP_PROXY", "http://proxy.test:8443/"))
    assert asked(stage, ABSOLUTE).status == 421
    assert verdict(stage)[2:] == [
        "GET http://proxy.test:8443/v1?x=1",
        "it asks the proxy proxy.test:8443 for http://api.test, and the target took that from "
        "HTTP_PROXY and http_proxy",
        'to have it dial by itself: env={"HTTP_PROXY": "", "http_proxy": ""}',
        'to answer as that proxy: egress.proxy("proxy.test:8443")',
    ]


@pytest.mark.parametrize(
    "value",
    ["http://other.test:8443", "http://proxy.test:3128", "http://[", "", "x" * 300, "http://a:b:c"],
)
def test_a_variable_with_another_address_is_not_named(stage: Stage, value: str) -> None:
    stage.proxies = (("ALL_PROXY", value),)
    asked(stage, CONNECT)
    assert stage.only(Exchange).note.endswith("the target took from HTTPS_PROXY or its like")


@pytest.mark.parametrize("kind", ["intercept_http", "intercept_https"])
def test_a_plain_route_at_the_proxys_address_answers_no_tunnel(stage: Stage, kind: Any) -> None:
    route = stage.route(kind, "proxy.test:8443", times=1)
    name = stage.resolve("proxy.test")
    sock = stage.tls("proxy.test", name, 8443) if kind[9:] == "_https" else stage.dial(name, 8443)
    assert ask(sock, CONNECT, "CONNECT").status == 502
    assert (stage.only(Exchange).outcome, route.call_count) == ("unrouted", 0)
    assert not route.turns.is_exhausted  # its turn is still there for a request that it answers


@pytest.mark.parametrize("request_bytes", [CONNECT, ABSOLUTE], ids=["tunnel", "whole-url"])
def test_a_proxy_that_was_dialled_by_its_address_is_named_by_it(
    stage: Stage, request_bytes: bytes
) -> None:
    ask(stage.dial(ADDRESS, 8443), request_bytes, request_bytes.partition(b" ")[0].decode())
    entry = stage.only(Exchange)
    assert (entry.host, entry.port) == (ADDRESS, 8443)
    assert f'egress.proxy("{ADDRESS}:8443")' in "\n".join(verdict(stage))


def test_a_blocked_proxy_expects_tunnels(stage: Stage) -> None:
    block = stage.route("block", "proxy.test:8443")
    assert asked(stage, CONNECT).status == 502
    assert stage.only(Exchange).outcome == "blocked"
    assert block.call_count == 1


def test_a_password_in_what_is_asked_for_is_masked(stage: Stage) -> None:
    asked(stage, ABSOLUTE.replace(b"http://api", b"http://bob:secret@api"))
    assert "secret" not in "\n".join(verdict(stage))
