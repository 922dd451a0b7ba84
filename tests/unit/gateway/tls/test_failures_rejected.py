"""What is a rejection of a bad certificate or an old version of TLS, what an acceptance, and what is neither."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from typing import Any

import pytest
import trustme

from pytest_egress.errors import (
    CallError,
    CertificateAcceptedError,
    EgressError,
    HandlerError,
    HandshakeError,
    NeverCalledError,
    UnroutedError,
)
from pytest_egress.gateway import dispatch
from pytest_egress.gateway.tls import handshake as tls_module
from pytest_egress.gateway.tls.failures import (
    broken_after_handshake,
    broken_handshake,
    silent_after_handshake,
)
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.certificates import (
    BAD_CERTIFICATES,
    ISSUED_ELSEWHERE,
    BadCertificate,
    Presented,
    TlsVersion,
)
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import presenting_route
from pytest_egress.traffic.entries import Exchange, TlsFailure
from pytest_egress.traffic.tls.clients import library_of
from pytest_egress.traffic.tls.hello import ClientHello, parse_client_hello
from tests.support.http2_client import Http2Client
from tests.support.stage import (
    Stage,
    ask,
    client_context,
    end_of,
    eventually,
    hello_bytes,
    reset,
)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_module, "HANDSHAKE_SECONDS", 2.0)
    monkeypatch.setattr(dispatch, "REJECTION_SECONDS", 0.5)


OF_GO = ClientHello(sni=None, alpn=(), versions=(0x0304,), cipher_suites=(), extensions=(18, 43))


def verdict(stage: Stage, *routes: InnerRoute) -> EgressError | None:
    stage.settle()
    return judge(stage.window, routes)


def careless() -> ssl.SSLContext:
    """A client that verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def fails(stage: Stage, context: ssl.SSLContext | None = None) -> None:
    """A client whose handshake fails, when that has been recorded."""
    before = len(stage.window.entries)
    with pytest.raises(ssl.SSLError):
        stage.tls(context=context)
    assert eventually(lambda: len(stage.window.entries) > before)


def hello(ca: trustme.CA) -> ClientHello:
    parsed = parse_client_hello(hello_bytes(ca))
    assert parsed is not None
    return parsed


# Rejections.


@pytest.mark.parametrize("certificate", BAD_CERTIFICATES)
@pytest.mark.parametrize("latest", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_a_client_that_verifies_has_rejected_it(
    stage: Stage, certificate: BadCertificate, latest: ssl.TLSVersion
) -> None:
    route = stage.https("api.test", certificate=certificate)
    stage.trusting.maximum_version = latest
    fails(stage)
    assert verdict(stage, route) is None
    rejection = route.assert_rejected()
    assert (rejection.reason, rejection.route, rejection.sni) == ("rejected", route, "api.test")
    assert rejection.note.startswith("the target (OpenSSL, by its ClientHello) rejected ")
    assert "(alert: " in rejection.note
    assert route.rejections == [rejection] == stage.entries(TlsFailure)
    assert not route.calls


def test_every_rejection_is_kept_and_those_of_another_test_do_not_count(stage: Stage) -> None:
    route = stage.https("api.test", certificate="expired")
    for _ in range(3):
        fails(stage)
    stage.settle()
    assert len(route.rejections) == 3
    stage.next_window()
    assert route.rejections == []


def test_a_route_within_tls_is_rejected_too(stage: Stage) -> None:
    route = stage.tls_route("api.test", certificate="expired")
    fails(stage)
    assert route.assert_rejected().route is route
    assert verdict(stage, route) is None


def leaves_after_handshake(stage: Stage, *, how: str) -> None:
    sock = stage.tls(context=careless())
    if how == "reset":
        reset(sock)
    else:
        sock.close()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ["https", "tls_route"])
def test_a_client_that_verifies_after_the_handshake_has_rejected_it(
    stage: Stage, how: str, kind: str
) -> None:
    route = getattr(stage, kind)("api.test", certificate="expired")
    leaves_after_handshake(stage, how=how)
    assert eventually(lambda: route.rejections), stage.window.entries[0].note
    assert "without an alert" in route.assert_rejected().note
    assert verdict(stage, route) is None


def test_a_client_that_breaks_off_within_the_handshake_has_rejected_it(
    stage: Stage, ca: trustme.CA
) -> None:
    route = stage.https("api.test", certificate="expired")
    sock = stage.dial()
    sock.sendall(hello_bytes(ca))
    sock.recv(1)
    sock.close()
    assert eventually(lambda: route.rejections)
    assert verdict(stage, route) is None


# What is neither.


def test_without_a_client_it_was_never_called(stage: Stage) -> None:
    route = stage.https("api.test", certificate="expired")
    assert isinstance(verdict(stage, route), NeverCalledError)
    assert verdict(stage, stage.https("b.test", certificate="expired", optional=True)) is None


def test_a_client_that_leaves_without_a_hello_has_rejected_nothing(stage: Stage) -> None:
    route = stage.https("api.test", certificate="expired")
    stage.dial(stage.resolve("api.test")).close()
    assert isinstance(verdict(stage, route), NeverCalledError)
    assert route.rejections == []


def test_a_client_that_leaves_within_its_hello_has_rejected_nothing(
    stage: Stage, ca: trustme.CA
) -> None:
    route = stage.https("api.test", certificate="expired")
    sock = stage.dial(stage.resolve("api.test"))
    sock.sendall(hello_bytes(ca)[:100])
    sock.close()
    assert stage.entries(TlsFailure)
    assert isinstance(verdict(stage, route), NeverCalledError)
    assert route.rejections == []


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_client_that_leaves_before_it_sees_the_certificate_has_rejected_nothing(
    stage: Stage, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch, end: Any
) -> None:
    """As one does that waits less long than a busy machine takes to answer it."""
    asked, left, find = threading.Event(), threading.Event(), presenting_route

    def find_late(*at: Any) -> Any:
        asked.set()
        assert left.wait(60)
        return find(*at)

    monkeypatch.setattr(dispatch, "presenting_route", find_late)
    route = stage.https("api.test", certificate="expired")
    sock = stage.dial(stage.resolve("api.test"))
    sock.sendall(hello_bytes(ca))
    assert asked.wait(60)
    end(sock)
    left.set()
    assert eventually(lambda: stage.entries(TlsFailure))
    found = verdict(stage, route)
    assert isinstance(found, NeverCalledError)
    text = " ".join(str(found).split())
    assert "left before it could see an expired certificate of api.test" in text
    assert route.rejections == []


@pytest.mark.parametrize("certificate", BAD_CERTIFICATES)
def test_a_client_without_our_ca_is_told_of_where_that_would_have_been_enough(
    stage: Stage, certificate: BadCertificate
) -> None:
    route = stage.https("api.test", certificate=certificate, optional=True)
    fails(stage, client_context(trustme.CA()))
    found = verdict(stage, route)
    if certificate in (*ISSUED_ELSEWHERE, "weak-key"):  # OpenSSL looks at the key first
        assert found is None
        assert route.rejections
        return
    assert isinstance(found, HandshakeError)
    text = " ".join(str(found).split())
    assert "does not trust the CA of this run for 'api.test' (alert: unknown CA)" in text
    assert "this does not show that it rejects" in text
    assert route.rejections == []


def test_a_client_without_a_common_cipher_suite_has_rejected_nothing(stage: Stage) -> None:
    route = stage.https("api.test", certificate="expired", optional=True)
    of_rsa = careless()
    of_rsa.maximum_version = ssl.TLSVersion.TLSv1_2
    of_rsa.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
    fails(stage, of_rsa)
    assert isinstance(verdict(stage, route), HandshakeError)
    assert route.rejections == []


@pytest.mark.parametrize("kind", ["https", "tls_route"])
def test_a_client_that_says_nothing_has_neither_accepted_nor_rejected(
    stage: Stage, kind: str
) -> None:
    route = getattr(stage, kind)("api.test", certificate="expired", optional=True)
    sock = stage.tls(context=careless())
    if kind == "https":
        assert eventually(lambda: stage.window.entries)
        sock.close()
        assert verdict(stage, route) is None
    assert route.rejections == []


def test_a_library_that_verifies_within_the_handshake_may_reject_the_name_alone_afterwards(
    ca: trustme.CA,
) -> None:
    assert library_of(OF_GO) == "Go"
    assert silent_after_handshake("a.test", OF_GO, "TLSv1.3", Presented("expired"))[0] == "unused"
    reason, _ = silent_after_handshake("a.test", OF_GO, "TLSv1.3", Presented("wrong-host"))
    assert reason == "likely-rejected"
    reason, _ = silent_after_handshake("a.test", hello(ca), "TLSv1.3", Presented("expired"))
    assert reason == "likely-rejected"


def test_a_reset_after_the_handshake_says_what_a_close_does(ca: trustme.CA) -> None:
    reset, bad = ConnectionResetError(104, "reset"), Presented("expired")
    of_java = ClientHello(
        sni=None, alpn=(), versions=(0x0304,), cipher_suites=(), extensions=(17, 50)
    )
    assert library_of(of_java) == "Java"
    assert broken_handshake(reset, "a.test", of_java, None, bad)[0] == "likely-rejected"
    assert broken_after_handshake(reset, "a.test", of_java, "TLSv1.3", bad)[0] == "unused"
    reason, note = broken_after_handshake(reset, "a.test", hello(ca), "TLSv1.3", bad)
    assert reason == "likely-rejected"
    assert "it closed right after the handshake" in note


def test_a_library_that_always_sends_an_alert_has_not_rejected_without_one() -> None:
    error = ConnectionResetError(104, "reset")
    assert broken_handshake(error, "a.test", OF_GO, None, Presented("expired"))[0] == "unused"


def test_what_ends_with_its_container_is_no_rejection(stage: Stage, ca: trustme.CA) -> None:
    route = stage.https("api.test", certificate="expired")
    sock = stage.dial()
    sock.sendall(hello_bytes(ca))
    sock.recv(1)
    stage.is_ending = True
    sock.close()
    assert stage.only(TlsFailure).reason == "cut"
    assert route.rejections == []


# Acceptance.


@pytest.mark.parametrize("certificate", BAD_CERTIFICATES)
def test_a_request_over_it_fails_the_test(stage: Stage, certificate: BadCertificate) -> None:
    route = stage.https("api.test", {"id": 1}, certificate=certificate)
    assert ask(stage.tls(context=careless())).body == b'{"id": 1}'
    found = verdict(stage, route)
    assert isinstance(found, CertificateAcceptedError)
    lines = str(found).splitlines()
    assert lines[0].startswith("target accepted a")
    assert lines[2:5] == [
        "  GET https://api.test/",
        "      its client's TLS library, by its ClientHello: OpenSSL",
        f"      presented by: {route}  declared at test_it.py:7",
    ]
    assert found.headline.startswith(lines[0].rstrip(":"))
    assert f"certificate={certificate!r}" in str(route)


def test_an_acceptance_is_told_after_a_handlers_error_and_before_what_is_unrouted(
    stage: Stage,
) -> None:
    route = stage.https("api.test", lambda request: 1 / 0, certificate="expired")
    ask(stage.tls(context=careless()))
    assert isinstance(verdict(stage, route), HandlerError)
    route.respond(200)
    stage.next_window()
    ask(stage.tls(context=careless()))
    ask(stage.tls("unclaimed.test"), b"GET / HTTP/1.1\r\nHost: unclaimed.test\r\n\r\n")
    assert isinstance(verdict(stage, route), CertificateAcceptedError)
    route.assert_called_once()
    assert isinstance(verdict(stage, route), UnroutedError)


def test_an_acceptance_whose_body_broke_off_is_one(stage: Stage) -> None:
    route = stage.https("api.test", certificate="expired")
    sock = stage.tls(context=careless())
    sock.sendall(b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 9\r\n\r\nhalf")
    sock.close()
    assert eventually(lambda: stage.window.entries)
    assert isinstance(verdict(stage, route), CertificateAcceptedError)


def test_an_acceptance_whose_head_broke_off_is_one(stage: Stage) -> None:
    route = stage.https("api.test", certificate="expired")
    sock = stage.tls(context=careless())
    sock.sendall(b"GET / HTTP/1.1\r\nHost:")
    sock.close()
    assert eventually(lambda: stage.window.entries)
    assert isinstance(verdict(stage, route), CertificateAcceptedError)


def test_a_request_of_http_2_over_it_fails_the_test(stage: Stage) -> None:
    route = stage.https("api.test", {"id": 1}, certificate="expired")
    context = careless()
    context.set_alpn_protocols(["h2"])
    client = Http2Client(stage.tls(context=context))
    client.ask("/")
    assert stage.only(Exchange).request.http_version == "2"
    assert isinstance(verdict(stage, route), CertificateAcceptedError)


def test_a_byte_within_the_tls_of_a_raw_route_is_an_acceptance(stage: Stage) -> None:
    seen: list[bytes] = []

    def handler(sock: ssl.SSLSocket) -> None:
        buffer = bytearray(3)
        while len(b"".join(seen)) < 12 and (size := sock.recv_into(buffer)):
            seen.append(bytes(buffer[:size]))
        sock.sendall(b"seen")

    route = stage.tls_route("api.test", handler, certificate="expired")
    sock = stage.tls(context=careless())
    sock.sendall(b"hello, world")
    assert sock.recv(10) == b"seen"
    assert b"".join(seen) == b"hello, world"
    assert isinstance(verdict(stage, route), CertificateAcceptedError)


def test_a_client_that_waits_for_a_greeting_has_accepted_it(stage: Stage) -> None:
    route = stage.tls_route("api.test", b"220 welcome", certificate="expired")
    sock = stage.tls(context=careless())
    assert sock.recv(20) == b"220 welcome"
    assert isinstance(verdict(stage, route), CertificateAcceptedError)


@pytest.mark.parametrize("way", ["once", "with", "wait"])
def test_a_test_that_asserts_the_call_has_said_that_acceptance_is_meant(
    stage: Stage, way: str
) -> None:
    route = stage.https("api.test", certificate="expired")
    ask(stage.tls(context=careless()))
    if way == "once":
        route.assert_called_once()
    elif way == "with":
        route.assert_called_with(method="GET")
    else:
        route.wait_for_call()
    assert verdict(stage, route) is None


def test_that_there_was_no_call_does_not_say_that_it_was_rejected(stage: Stage) -> None:
    route = stage.https("api.test", certificate="expired")
    route.assert_not_called()
    assert isinstance(verdict(stage, route), NeverCalledError)


# The assertion.


def test_the_assertion_says_what_came_instead(stage: Stage) -> None:
    route = stage.https("api.test", certificate="expired")
    with pytest.raises(CallError) as caught:
        route.assert_rejected()
    assert str(caught.value) == (
        "intercept_https(\"api.test\", certificate='expired'): expected that an expired certificate of api.test is "
        "rejected, and there was no rejection"
    )
    fails(stage, client_context(trustme.CA()))
    stage.settle()
    with pytest.raises(CallError, match="does not trust the CA of this run"):
        route.assert_rejected()
    ask(stage.tls(context=careless()))
    with pytest.raises(CallError, match=r"it was accepted: there was 1\n  GET https://api.test/"):
        route.assert_rejected()


def test_the_assertion_waits_while_a_container_runs(stage: Stage) -> None:
    stage.ledger.running = lambda: ["shop"]
    route = stage.https("api.test", certificate="expired")
    later = threading.Timer(0.2, fails, [stage])
    later.start()
    assert route.assert_rejected(timeout=30).reason == "rejected"
    later.join()


def test_the_assertion_is_for_what_has_to_be_rejected(stage: Stage) -> None:
    for route in (stage.https("api.test"), stage.https("b.test", tls_version="TLSv1.2")):
        with pytest.raises(TypeError, match="is for a route with certificate="):
            route.assert_rejected()


# Several routes, and connections that are older than a route.


def test_the_first_route_for_the_host_decides_what_is_presented(stage: Stage) -> None:
    stage.https("*.test", optional=True, certificate="self-signed")
    bad = stage.https("api.test", certificate="expired")
    fails(stage)
    assert "certificate expired" in bad.assert_rejected().note
    good = stage.https("api.test", path="/v1")
    sock = stage.tls()
    assert ask(sock, b"GET /v1 HTTP/1.1\r\nHost: api.test\r\n\r\n").status == 200
    assert good.call_count == 1
    assert ask(sock).status == 421  # the route with the bad certificate would answer it
    assert not bad.called
    refused = stage.entries(Exchange)[-1]
    assert refused.outcome == "unrouted"
    assert refused.accepted is None
    assert "its connection has not been shown that certificate='expired'" in refused.note


def test_an_idle_connection_that_was_shown_another_certificate_is_closed(stage: Stage) -> None:
    stage.https("api.test")
    sock = stage.tls()
    ask(sock)
    stage.settle()
    bad = stage.https("api.test", certificate="expired")
    assert end_of(sock) == "closed"
    fails(stage)
    assert bad.assert_rejected().note


def test_a_connection_that_has_accepted_it_is_closed_with_the_route(stage: Stage) -> None:
    bad = stage.https("api.test", certificate="expired")
    sock = stage.tls(context=careless())
    ask(sock)
    stage.settle()
    bad.remove()
    stage.gateway.revise()
    assert end_of(sock) == "closed"


# Old versions of TLS.


def old_client(ca: trustme.CA, latest: ssl.TLSVersion) -> ssl.SSLContext:
    context = client_context(ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = latest
    return context


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1.1"])
@pytest.mark.parametrize("latest", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_a_client_that_offers_newer_versions_alone_has_rejected_an_old_one(
    stage: Stage, version: TlsVersion, latest: ssl.TLSVersion
) -> None:
    route = stage.https("api.test", tls_version=version)
    stage.trusting.maximum_version = latest
    fails(stage)
    assert f"rejected {version} with api.test (" in route.assert_rejected().note
    assert verdict(stage, route) is None


def test_a_client_of_an_old_version_has_accepted_it(stage: Stage, ca: trustme.CA) -> None:
    route = stage.https("api.test", tls_version="TLSv1.1")
    ask(stage.tls(context=old_client(ca, ssl.TLSVersion.TLSv1_2)))
    assert route.calls[0].request.tls.version == "TLSv1.1"
    found = verdict(stage, route)
    assert isinstance(found, CertificateAcceptedError)
    assert str(found).startswith("target accepted TLSv1.1 with api.test:")


def test_a_client_of_still_older_versions_has_rejected_nothing(
    stage: Stage, ca: trustme.CA
) -> None:
    route = stage.https("api.test", tls_version="TLSv1.1", optional=True)
    fails(stage, old_client(ca, ssl.TLSVersion.TLSv1))
    found = verdict(stage, route)
    assert isinstance(found, HandshakeError)
    assert "it offers TLSv1 alone, and tls_version='TLSv1.1' is all" in " ".join(str(found).split())


def test_a_client_of_an_old_version_that_distrusts_the_ca_has_rejected_nothing(
    stage: Stage,
) -> None:
    route = stage.https("api.test", tls_version="TLSv1.1", optional=True)
    fails(stage, old_client(trustme.CA(), ssl.TLSVersion.TLSv1_2))
    assert isinstance(verdict(stage, route), HandshakeError)
    assert route.rejections == []


def test_a_client_of_an_old_version_without_a_common_cipher_suite_has_rejected_nothing(
    stage: Stage, ca: trustme.CA
) -> None:
    route = stage.https("api.test", tls_version="TLSv1.1", optional=True)
    of_rsa = old_client(ca, ssl.TLSVersion.TLSv1_1)
    of_rsa.set_ciphers("AES256-SHA:@SECLEVEL=0")
    fails(stage, of_rsa)
    assert isinstance(verdict(stage, route), HandshakeError)
    assert route.rejections == []


def test_a_client_that_leaves_an_old_version_without_an_alert_has_rejected_nothing(
    ca: trustme.CA,
) -> None:
    """It may as well distrust the CA."""
    old = Presented(None, "TLSv1.1")
    error = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    assert broken_handshake(error, "a.test", hello(ca), None, old)[0] == "likely-untrusted"
    assert silent_after_handshake("a.test", hello(ca), "TLSv1.1", old)[0] == "likely-untrusted"


def test_a_modern_version_alone_is_an_ordinary_restriction(stage: Stage) -> None:
    route = stage.https("api.test", tls_version="TLSv1.2")
    ask(stage.tls())
    assert route.assert_called_once().request.tls.version == "TLSv1.2"
    assert verdict(stage, route) is None
    stage.trusting.minimum_version = ssl.TLSVersion.TLSv1_3
    fails(stage)
    found = verdict(stage, route)
    assert isinstance(found, HandshakeError)
    assert "it offers TLSv1.3 alone, and tls_version='TLSv1.2'" in " ".join(str(found).split())
