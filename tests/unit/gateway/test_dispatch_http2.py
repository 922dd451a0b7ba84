"""A client of HTTP/2 where no route answers requests is told what does."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
import trustme

from pytest_egress.gateway.tls.failures import silent_after_handshake
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.tls.hello import ClientHello
from tests.support.http2_client import Http2Client
from tests.support.stage import ADDRESS, Stage, client_context, end_of, eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
Declare = Callable[[Stage], object]


def http2_alone(ca: trustme.CA) -> ssl.SSLContext:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return context


def test_a_request_that_no_route_answers_is_told_the_line_for_it(stage: Stage) -> None:
    client = Http2Client(stage.dial(ADDRESS, 8443), "http")
    answer = client.ask("/x", host=f"{ADDRESS}:8443")
    line = f'egress.intercept_http("{ADDRESS}:8443", method="GET", path="/x")'
    assert (answer.status, line in answer.body.decode()) == (502, True)
    stage.settle()
    assert f"to answer it: {line}" in str(judge(stage.window, []))


def test_a_client_that_asks_for_nothing_is_told_the_route_that_would_answer(stage: Stage) -> None:
    client = stage.dial(ADDRESS, 8443)
    client.sendall(PREFACE)
    client.close()
    assert eventually(lambda: stage.window.entries)
    stage.settle()
    assert str(judge(stage.window, [])).partition("\n\n")[2] == (
        f"  TCP {ADDRESS}:8443\n"
        "      began HTTP/2 and closed without a request\n"
        f'      to answer it: egress.intercept_http("{ADDRESS}:8443")'
    )


def test_at_a_route_of_tls_the_line_that_is_shown_leads_to_one_without(stage: Stage) -> None:
    stage.tls_route(f"{ADDRESS}:8443", optional=True)
    client = stage.dial(ADDRESS, 8443)
    client.sendall(PREFACE)
    end_of(client)
    verdict = str(judge(stage.window, []))
    assert "expects TLS, and this is none" in verdict
    assert f'to answer it: egress.intercept_http("{ADDRESS}:8443")' in verdict


def test_a_route_that_only_listens_says_that_its_client_waits(stage: Stage) -> None:
    route = stage.tcp(f"{ADDRESS}:8443")
    client = stage.dial(ADDRESS, 8443)
    client.sendall(PREFACE)
    call = route.wait_for_call()
    assert eventually(lambda: call.note)
    assert outcome_text(call).endswith(
        "[the client speaks HTTP/2, and waits for an answer: intercept_http gives one, and forward(...) leads to "
        "a server of it]"
    )


def test_at_a_route_of_what_is_in_tls_the_timeline_says_that_nothing_was_agreed_on(
    stage: Stage, ca: trustme.CA
) -> None:
    route = stage.tls_route("api.test")
    stage.tls(context=http2_alone(ca)).close()
    call = route.wait_for_call()
    assert outcome_text(call) == (
        f"TCP api.test:443 ({ADDRESS})  "
        "[the client offered h2 alone by ALPN, and none was agreed on: alpn=('h2',) agrees]"
    )
    assert call.note.endswith(
        "Let intercept_https answer it, or forward it to a server of HTTP/2 that has a certificate of "
        "egress_ca.issue_cert('api.test')"
    )


@pytest.mark.parametrize("alpn", [("mqtt",), ("spdy/3", "grpc-exp")])
def test_another_protocol_that_is_offered_alone_is_named(alpn: tuple[str, ...]) -> None:
    hello = ClientHello(
        sni="mqtt.test",
        alpn=alpn,
        versions=(0x0304,),
        cipher_suites=(0x1302,),
        extensions=(),
        groups=(),
        signatures=(),
    )
    reason, note = silent_after_handshake("mqtt.test", hello, "TLSv1.3")
    assert reason == "alpn"
    offered = " and ".join(alpn)
    assert note.endswith(
        f"Forward it to a server of {offered} that has a certificate of egress_ca.issue_cert('mqtt.test')"
    )
