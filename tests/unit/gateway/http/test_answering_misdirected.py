"""Requests that are for another host, as they say, than the one that was dialled (RFC 9110 section 15.5.20)."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

import pytest

from pytest_egress.routes.answers import forward
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from tests.support.stage import ADDRESS, Stage, ask
from tests.support.upstreams import Upstream


@pytest.fixture(scope="module")
def real() -> Iterator[Upstream]:
    """A server that tells the Host that it was asked for."""
    with Upstream() as upstream:
        yield upstream


def head(target: str, *hosts: str, version: str = "1.1") -> bytes:
    lines = [f"GET {target} HTTP/{version}", *(f"Host: {host}" for host in hosts), "", ""]
    return "\r\n".join(lines).encode("latin-1")


OF_ANOTHER = {
    "name": ("/", "evil.test"),
    "address": ("/", "203.0.113.9"),
    "user": ("/", "api.test@evil.test"),
    "user-of-it": ("/", "user:password@api.test"),
    "port": ("/", "api.test:8443"),
    "port-that-is-none": ("/", "api.test:x"),
    "port-too-great": ("/", "api.test:4430000"),
    "brackets": ("/", "[api.test]"),
    "encoded": ("/", "%61pi.test"),
    "another-script": ("/", "\xe0pi.test"),
    "two-names": ("/", "api.test, evil.test"),
    "absolute": ("{scheme}://evil.test/", "api.test"),
    "absolute-port": ("{scheme}://api.test:8443/", "api.test"),
    "absolute-user": ("{scheme}://api.test@evil.test/", "api.test"),
    "absolute-user-of-it": ("{scheme}://user@api.test/", "api.test"),
    "absolute-port-and-user": ("{scheme}://api.test:80@evil.test/", "api.test"),
    "absolute-backslash": ("{scheme}://api.test\\@evil.test/", "api.test"),
    "absolute-empty": ("{scheme}:///it", "api.test"),
    "absolute-without-authority": ("{scheme}:/it", "api.test"),
    "absolute-of-another-scheme": ("ftp://api.test/", "api.test"),
}


@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
@pytest.mark.parametrize(("target", "host"), OF_ANOTHER.values(), ids=OF_ANOTHER.keys())
def test_a_request_for_another_host_is_answered_by_no_route(
    stage: Stage, real: Upstream, target: str, host: str, secure: bool
) -> None:
    to = forward(f"http://127.0.0.1:{real.port}")
    routes = [stage.https("*", to), stage.http("*", to)]
    address, asked = stage.resolve("api.test"), len(real.asked)
    client = stage.tls("api.test", address) if secure else stage.dial(address, 80)
    reply = ask(client, head(target.format(scheme="https" if secure else "http"), host))
    assert reply.status == 421
    entry = stage.only(Exchange)
    assert (entry.outcome, entry.host) == ("unrouted", "api.test")
    assert entry.note.startswith(("its ", "it asks the proxy "))
    assert [route.call_count for route in routes] == [0, 0]
    assert len(real.asked) == asked


@pytest.mark.parametrize(
    ("target", "host", "note"),
    [
        ("/", "evil.test", "its Host is 'evil.test', which is not 'api.test'"),
        ("/", "api.test:8443", "its Host is 'api.test:8443', which is not 'api.test:80'"),
        (
            "http://evil.test/",
            "api.test",
            "it asks the proxy api.test:80 for http://evil.test, and the target took that from http_proxy or its like",
        ),
        (
            "https://api.test/",
            "api.test",
            "its request-target begins with 'https://api.test', which is not 'http://api.test'",
        ),
    ],
)
def test_what_is_refused_says_for_what(stage: Stage, target: str, host: str, note: str) -> None:
    stage.http("api.test", optional=True)
    assert ask(stage.dial(stage.resolve("api.test"), 80), head(target, host)).status == 421
    assert stage.only(Exchange).note == note


SAME = {
    "as-it-is": ("/it", ["api.test"], "api.test"),
    "port": ("/it", ["api.test:80"], "api.test:80"),
    "empty-port": ("/it", ["api.test:"], "api.test:"),
    "capitals-and-dot": ("/it", ["API.test."], "API.test."),
    "absolute": ("http://api.test/it", ["api.test"], "api.test"),
    "absolute-of-capitals": ("HTTP://API.test:80/it", ["api.test"], "API.test:80"),
    "absolute-and-a-foreign-host": ("http://api.test/it", ["evil.test"], "api.test"),
    "absolute-and-nonsense": ("http://api.test/it", ["a b@["], "api.test"),
    "empty": ("/it", [""], "api.test"),
}


@pytest.mark.parametrize(("target", "hosts", "forwarded"), SAME.values(), ids=SAME.keys())
def test_the_host_that_is_recorded_is_matched_and_forwarded(
    stage: Stage, real: Upstream, target: str, hosts: list[str], forwarded: str
) -> None:
    route = stage.http("api.test", forward(f"http://127.0.0.1:{real.port}"))
    reply = ask(stage.dial(stage.resolve("api.test"), 80), head(target, *hosts))
    assert (reply.status, reply.body.decode()) == (
        200,
        f'{{"real": "/it", "host": "{forwarded}"}}',
    )
    call = route.assert_called_once()
    assert call.request.url == "http://api.test/it"
    assert call.request.headers["host"] in (forwarded, "")


@pytest.mark.parametrize("target", ["/it", "http://api.test/it"])
def test_a_request_without_host_is_forwarded_with_the_one_that_is_recorded(
    stage: Stage, real: Upstream, target: str
) -> None:
    stage.http("api.test", forward(f"http://127.0.0.1:{real.port}"))
    client = stage.dial(stage.resolve("api.test"), 80)
    assert b'"host": "api.test"' in ask(client, head(target, version="1.0")).body


def test_a_name_in_an_absolute_target_is_the_one_that_an_address_is_matched_by(
    stage: Stage, real: Upstream
) -> None:
    stage.http("api.test", forward(f"http://127.0.0.1:{real.port}"))
    evil = stage.http("evil.test", optional=True)
    reply = ask(stage.dial(ADDRESS, 80), head("http://api.test/it", "evil.test"))
    assert reply.body == b'{"real": "/it", "host": "api.test"}'
    assert evil.call_count == 0


@pytest.mark.parametrize("host", ["192.0.2.7", "user@api.test", "api.test:8443", "[", ""])
def test_at_an_address_only_a_name_may_be_another(stage: Stage, host: str) -> None:
    stage.http(ADDRESS, lambda request: request.url)
    reply = ask(stage.dial(ADDRESS, 80), head("/", host))
    assert reply.status == (421 if host else 200)


@pytest.mark.parametrize("target", ["/it", "{scheme}://{host}/it"], ids=["origin", "absolute"])
@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
def test_a_client_that_has_resolved_a_name_may_name_the_address(
    stage: Stage, target: str, secure: bool
) -> None:
    answer = stage.https if secure else stage.http
    route, address = answer("api.test", lambda request: request.url), stage.resolve("api.test")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = stage.tls(None, address, context=context) if secure else stage.dial(address, 80)
    scheme = "https" if secure else "http"
    reply = ask(client, head(target.format(scheme=scheme, host=address), address))
    assert (reply.status, reply.body) == (200, f"{scheme}://api.test/it".encode())
    assert route.call_count == 1


def test_the_address_is_no_name_for_a_client_that_gives_a_server_name(stage: Stage) -> None:
    stage.https("api.test", b"never", optional=True)
    address = stage.resolve("api.test")
    assert ask(stage.tls("api.test", address), head("/", address)).status == 421


def test_an_application_sees_the_host_of_an_absolute_target(stage: Stage) -> None:
    seen: list[str] = []

    @stage.http("api.test")
    def handler(request: Request) -> int:
        seen.append(request.headers["host"])
        return 204

    ask(stage.dial(ADDRESS, 80), head("http://api.test/", "evil.test"))
    assert seen == ["api.test"]


def test_a_host_of_an_international_name_is_its_ascii_form(stage: Stage, real: Upstream) -> None:
    stage.http("münchen.test", forward(f"http://127.0.0.1:{real.port}"))
    client = stage.dial(stage.resolve("xn--mnchen-3ya.test"), 80)
    reply = ask(client, head("/", "xn--mnchen-3ya.TEST"))
    assert reply.body == b'{"real": "/", "host": "xn--mnchen-3ya.TEST"}'
    for spelling in ("münchen.test", "münchen.test".encode().decode("latin-1")):
        with contextlib.closing(stage.dial(stage.resolve("xn--mnchen-3ya.test"), 80)) as other:
            assert ask(other, head("/", spelling)).status == 421
