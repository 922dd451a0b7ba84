"""A client of HTTP/2 alone is told what is true for what was seen, and what it is told works."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
import trustme

from pytest_egress.gateway.tls_failures import silent_after_handshake
from pytest_egress.ledger.report import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.clienthello import ClientHello
from pytest_egress.traffic.entries import TlsFailure
from tests.support.stage import ADDRESS, Stage, client_context, end_of, eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
Declare = Callable[[Stage], object]


def speak_plainly(stage: Stage) -> None:
    client = stage.dial(ADDRESS, 8443)
    client.sendall(PREFACE)
    end_of(client)


def http2_alone(ca: trustme.CA) -> ssl.SSLContext:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return context


@pytest.mark.parametrize(
    "declare",
    [
        lambda stage: None,
        lambda stage: stage.http(f"{ADDRESS}:8443", optional=True),
        lambda stage: stage.https(f"{ADDRESS}:8443", optional=True),
    ],
    ids=["no route", "intercept_http", "intercept_https"],
)
def test_a_client_that_begins_with_http_2_is_told_so_whatever_is_declared(
    stage: Stage, declare: Declare
) -> None:
    declare(stage)
    speak_plainly(stage)
    assert str(judge(stage.window, [])).partition("\n\n")[2] == (
        f"  TCP {ADDRESS}:8443\n"
        "      the client speaks HTTP/2, and HTTP/1.1 is all that is answered here.\n"
        "      Let it use HTTP/1.1 where it can (gRPC cannot), or forward it to a server of HTTP/2\n"
        f'      to answer it: egress.intercept_tcp("{ADDRESS}:8443", forward("tcp://127.0.0.1:8443"))\n'
        f'      to let the real server answer it: egress.passthrough("{ADDRESS}:8443")'
    )


def test_at_a_route_of_tls_the_line_that_is_shown_leads_to_a_server_too(stage: Stage) -> None:
    stage.tls_route(f"{ADDRESS}:8443", optional=True)
    speak_plainly(stage)
    verdict = str(judge(stage.window, []))
    assert "expects TLS, and this is none" in verdict
    assert f'intercept_tcp("{ADDRESS}:8443", forward("tcp://127.0.0.1:8443"))' in verdict


def test_a_route_that_only_listens_says_that_its_client_waits(stage: Stage) -> None:
    route = stage.tcp(f"{ADDRESS}:8443")
    client = stage.dial(ADDRESS, 8443)
    client.sendall(PREFACE)
    call = route.wait_for_call()
    assert eventually(lambda: call.note)
    assert outcome_text(call).endswith(
        "[the client speaks HTTP/2, and waits for an answer: forward(...) leads to a server of it]"
    )


def test_http_2_in_tls_needs_a_server_with_a_certificate(stage: Stage) -> None:
    client = stage.tls()
    client.sendall(PREFACE)
    end_of(client)
    verdict = str(judge(stage.window, []))
    assert "HTTP/2 that has a certificate of egress_ca.issue_cert('api.test')" in " ".join(
        verdict.split()
    )
    assert 'egress.intercept_tcp("api.test:443", forward("tcp://127.0.0.1:443"))' in verdict


def test_so_does_a_client_that_leaves_since_http_2_was_not_agreed_on(
    stage: Stage, ca: trustme.CA
) -> None:
    stage.tls(context=http2_alone(ca)).close()
    assert stage.only(TlsFailure).needs_server
    assert str(judge(stage.window, [])).partition("\n\n")[2] == (
        f"  TLS api.test:443 ({ADDRESS})\n"
        "      the target (OpenSSL, by its ClientHello) offered h2 alone by ALPN and closed right after the\n"
        "        handshake: HTTP/1.1 is all that is answered here.\n"
        "      Let it use HTTP/1.1 where it can (gRPC cannot), or forward it to a server of HTTP/2 that has a\n"
        "        certificate of egress_ca.issue_cert('api.test')\n"
        '      to answer it: egress.intercept_tcp("api.test:443", forward("tcp://127.0.0.1:443"))\n'
        '      to let the real server answer it: egress.passthrough("api.test:443")'
    )


def test_at_a_route_of_what_is_in_tls_the_timeline_says_that_nothing_was_agreed_on(
    stage: Stage, ca: trustme.CA
) -> None:
    route = stage.tls_route("api.test")
    stage.tls(context=http2_alone(ca)).close()
    assert outcome_text(route.wait_for_call()) == (
        f"TCP api.test:443 ({ADDRESS})  "
        "[the client offered h2 alone by ALPN, and none was agreed on: alpn=('h2',) agrees]"
    )


@pytest.mark.parametrize("optional", [False, True])
def test_where_requests_are_expected_it_is_told_the_same(
    stage: Stage, ca: trustme.CA, optional: bool
) -> None:
    route = stage.https("api.test", optional=optional)
    stage.tls(context=http2_alone(ca)).close()
    assert stage.only(TlsFailure).outcome == "recorded"
    verdict = str(judge(stage.window, [route]))
    assert (
        'to answer it: egress.intercept_tcp("api.test:443", forward("tcp://127.0.0.1:443"))'
        in verdict
    )
    assert "Remove it" not in verdict


def test_another_protocol_that_is_offered_alone_is_named() -> None:
    hello = ClientHello(
        sni="mqtt.test",
        alpn=("mqtt",),
        versions=(0x0304,),
        cipher_suites=(0x1302,),
        extensions=(),
        groups=(),
        signatures=(),
    )
    reason, note = silent_after_handshake("mqtt.test", hello, "TLSv1.3")
    assert reason == "alpn"
    assert note.endswith(
        "Forward it to a server of mqtt that has a certificate of egress_ca.issue_cert('mqtt.test')"
    )
