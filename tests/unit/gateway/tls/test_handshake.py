"""TLS of the gateway: the certificate of a name, handshakes that fail, and certificates of clients."""

from __future__ import annotations

import contextlib
import socket
import ssl
import warnings
from collections.abc import Callable

import pytest
import trustme

from pytest_egress.gateway.tls import authority
from pytest_egress.gateway.tls import handshake as tls_module
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.entries import Exchange, TlsFailure
from tests.support.stage import (
    ADDRESS,
    FIRST,
    GET,
    SECONDS,
    Stage,
    ask,
    client_context,
    end_of,
    eventually,
    hello_bytes,
    leave_within_handshake,
    reset,
)


@pytest.fixture
def short_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_module, "HANDSHAKE_SECONDS", 0.5)


# Names and certificates.


@pytest.mark.parametrize(
    "name",
    [
        "api.test",
        "a_b.example.test",
        f"{'x' * 63}.test",
        f"{'y' * 60}.{'z' * 60}.test",
        "xn--bcher-kva.test",
    ],
)
def test_a_name_is_answered_under_a_certificate_of_its_own(stage: Stage, name: str) -> None:
    route = stage.https(name, lambda request: {"host": request.host, "sni": request.sni})
    sock = stage.tls(name)
    reply = ask(sock, b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % name.encode())
    assert reply.body == b'{"host": "%b", "sni": "%b"}' % (name.encode(), name.encode())
    certificate = sock.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", name),)
    assert route.call_count == 1


def test_the_spelling_of_a_server_name_does_not_matter(stage: Stage) -> None:
    stage.https("api.test", b"yes")
    stage.trusting.check_hostname = False
    reply = ask(stage.tls("API.Test"), b"GET / HTTP/1.1\r\nHost: Api.TEST:443\r\n\r\n")
    assert reply.body == b"yes"


def test_an_address_is_answered_under_a_certificate_for_the_address(stage: Stage) -> None:
    stage.https(ADDRESS, lambda request: request.url)
    sock = stage.tls(ADDRESS)  # of an address, a client sends no name
    reply = ask(sock, b"GET /x HTTP/1.1\r\nHost: 203.0.113.9\r\n\r\n")
    assert reply.body == b"https://203.0.113.9/x"
    certificate = sock.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("IP Address", ADDRESS),)


def test_without_a_server_name_the_name_that_was_dialled_counts(stage: Stage) -> None:
    stage.https("api.test", lambda request: f"{request.host} {request.sni}")
    assert stage.resolve("api.test") == FIRST
    context = client_context(trustme.CA())
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    assert ask(stage.tls(None, FIRST, context=context)).body == b"api.test None"


def test_a_hello_that_comes_byte_by_byte_is_answered(stage: Stage, ca: trustme.CA) -> None:
    stage.https("api.test", b"patience")
    sock = stage.dial()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(ca).wrap_bio(incoming, outgoing, server_hostname="api.test")
    sock.settimeout(SECONDS)
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            for byte in outgoing.read():
                sock.sendall(bytes([byte]))
            incoming.write(sock.recv(65536))
    client.write(GET)
    sock.sendall(outgoing.read())
    incoming.write(sock.recv(65536))
    assert client.read().endswith(b"patience")


@pytest.mark.parametrize("group", ["X25519", "prime256v1", "secp384r1", "X448"])
def test_a_client_of_one_group_is_answered(stage: Stage, group: str) -> None:
    stage.https("api.test", b"yes")
    assert ask(stage.tls()).body == b"yes"
    stage.trusting.set_ecdh_curve(group)
    assert ask(stage.tls()).body == b"yes"


def test_a_client_of_tls_1_2_that_knows_x25519_is_answered(stage: Stage) -> None:
    stage.https("api.test", b"yes")
    assert ask(stage.tls()).body == b"yes"
    stage.trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ask(stage.tls()).body == b"yes"


def test_x25519_is_used_where_the_client_has_sent_a_share_of_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.https("api.test", b"yes")
    monkeypatch.setattr(authority, "x25519_is_cheaper", lambda: True)
    assert ask(stage.tls()).body == b"yes"
    stage.trusting.set_ecdh_curve("prime256v1")  # and sends no share of another one
    assert ask(stage.tls()).body == b"yes"
    keys = stage.gateway.authority._contexts
    assert sorted(x25519 for *_, x25519 in keys) == [False, True]


def test_the_handshake_tells_what_it_settled_on(stage: Stage) -> None:
    route = stage.https("api.test")
    stage.trusting.set_alpn_protocols(["spdy/3", "http/1.1"])
    sock = stage.tls()
    ask(sock)
    tls = route.calls[0].request.tls
    assert tls is not None
    assert (tls.version, tls.alpn) == (sock.version(), "http/1.1")
    assert tls.cipher == (sock.cipher() or ("",))[0]


@pytest.mark.parametrize("offered", [["h2"], ["h2", "http/1.1"], ["http/1.1", "h2"]])
def test_http_2_is_agreed_on_wherever_a_client_offers_it_and_requests_are_read(
    stage: Stage, offered: list[str]
) -> None:
    stage.https("api.test")
    stage.trusting.set_alpn_protocols(offered)
    assert stage.tls().selected_alpn_protocol() == "h2"
    assert stage.tls("unclaimed.test").selected_alpn_protocol() == "h2"


def test_a_route_of_what_is_in_tls_agrees_on_http_1_alone(stage: Stage) -> None:
    """A raw handler would otherwise get HTTP/2 of a client that can do both."""
    stage.tls_route("api.test")
    stage.trusting.set_alpn_protocols(["h2", "http/1.1"])
    assert stage.tls().selected_alpn_protocol() == "http/1.1"


# Handshakes that fail.


def breaks_off(stage: Stage, ca: trustme.CA) -> None:
    leave_within_handshake(stage.dial(), ca, "api.test")


def distrusts(stage: Stage, ca: trustme.CA) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        stage.tls(context=client_context(trustme.CA()))


def closes_after_the_handshake(stage: Stage, ca: trustme.CA) -> None:
    context = client_context(ca)
    context.set_alpn_protocols(["http/1.1"])  # it means to make a request
    stage.tls(context=context).close()


def resets_after_its_hello(stage: Stage, ca: trustme.CA) -> None:
    sock = stage.dial()
    sock.sendall(hello_bytes(ca))
    sock.recv(1)
    reset(sock)


def offers_tls_1_1(stage: Stage, ca: trustme.CA) -> None:
    context = client_context(ca)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(OSError, match=r"ALERT|alert|reset"):
        stage.tls(context=context)


def shares_no_cipher(stage: Stage, ca: trustme.CA) -> None:
    context = client_context(ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256")  # RSA key exchange; our leaf is ECDSA
    with pytest.raises(OSError, match=r"ALERT|alert|reset"):
        stage.tls(context=context)


def sends_half_a_hello(stage: Stage, ca: trustme.CA) -> None:
    sock = stage.dial()
    sock.sendall(hello_bytes(ca)[:100])
    sock.shutdown(socket.SHUT_WR)


def stops_within_its_hello(stage: Stage, ca: trustme.CA) -> None:
    beginning = hello_bytes(ca)[:100]
    stage.dial().sendall(beginning)


def stops_after_its_hello(stage: Stage, ca: trustme.CA) -> None:
    stage.dial().sendall(hello_bytes(ca))


def sends_no_hello(stage: Stage, ca: trustme.CA) -> None:
    stage.dial().sendall(b"\x16\x03\x01\x00\x05hello")


def names_no_host(stage: Stage, ca: trustme.CA) -> None:
    hello = hello_bytes(ca, "api-x.test").replace(b"api-x", b"api x")
    stage.dial().sendall(hello)


FAILURES = [
    (
        distrusts,
        "untrusted",
        "does not trust the CA of this run for 'api.test' (alert: unknown CA)",
    ),
    (breaks_off, "likely-untrusted", "broke off within the handshake, with no alert"),
    (resets_after_its_hello, "unused", "left a connection to 'api.test' within the handshake"),
    (
        closes_after_the_handshake,
        "unused",
        "closed a connection to 'api.test' right after the handshake",
    ),
    (offers_tls_1_1, "protocol", "it offers only TLS versions older than 1.2"),
    (shares_no_cipher, "protocol", "it offers no cipher suite that this Python's OpenSSL accepts"),
    (sends_half_a_hello, "incomplete", "it ended, or stopped, within its ClientHello"),
    (stops_within_its_hello, "incomplete", "it ended, or stopped, within its ClientHello"),
    (stops_after_its_hello, "timeout", "the handshake for 'api.test' did not end in time"),
    (sends_no_hello, "protocol", "it sent no ClientHello: "),
    (names_no_host, "sni", "its server name is no host name: 'api x.test' is no host: "),
]


@pytest.mark.parametrize(
    ("client", "reason", "note"), FAILURES, ids=[client.__name__ for client, *_ in FAILURES]
)
@pytest.mark.parametrize("claim", ["intercept_https", "block", None])
def test_a_handshake_that_fails_says_why(
    stage: Stage,
    ca: trustme.CA,
    short_handshake: None,
    client: Callable[[Stage, trustme.CA], None],
    reason: str,
    note: str,
    claim: str | None,
) -> None:
    if claim:
        stage.route(claim, "*")
    client(stage, ca)
    assert eventually(lambda: stage.window.entries)
    failure = stage.only(TlsFailure)
    outcomes = {"intercept_https": "recorded", "block": "blocked", None: "unrouted"}
    assert (failure.outcome, failure.reason) == (outcomes[claim], reason)
    assert note in failure.note
    assert (failure.address, failure.port) == (ADDRESS, 443)


# Client certificates.


def own_certificate(ca: trustme.CA, issuer: trustme.CA | None = None) -> ssl.SSLContext:
    """A client that trusts the CA, and has a certificate of its own."""
    context = client_context(ca)
    (issuer or ca).issue_cert("shop@clients.test").configure_cert(context)
    return context


@pytest.mark.parametrize("wanted", ["request", "require"])
def test_a_client_certificate_is_in_the_request(stage: Stage, ca: trustme.CA, wanted: str) -> None:
    route = stage.https("api.test", {"id": 1}, client_certificate=wanted)
    assert ask(stage.tls(context=own_certificate(ca))).body == b'{"id": 1}'
    tls = route.calls[0].request.tls
    assert tls is not None
    assert tls.client_certificate is not None
    assert b"shop@clients.test" in tls.client_certificate


def test_a_client_certificate_that_is_requested_may_be_absent(stage: Stage) -> None:
    route = stage.https("api.test", client_certificate="request")
    assert ask(stage.tls()).status == 200
    tls = route.calls[0].request.tls
    assert tls is not None
    assert tls.client_certificate is None


def refused(sock: ssl.SSLSocket) -> None:
    """In TLS 1.3 the client hears of it with its first read."""
    with contextlib.suppress(OSError):
        sock.sendall(GET)
        assert sock.recv(1) == b""


def test_without_a_certificate_that_is_required_the_handshake_fails_and_says_so(
    stage: Stage,
) -> None:
    stage.https("api.test", client_certificate="require")
    refused(stage.tls())
    failure = stage.only(TlsFailure)
    assert (failure.outcome, failure.reason) == ("recorded", "client-certificate")
    assert failure.note == (
        "the target (OpenSSL, by its ClientHello) sent no client certificate to 'api.test', and "
        "intercept_https(\"api.test\", client_certificate='require') requires one: give it one of "
        "egress_ca.issue_cert(...) with files="
    )


@pytest.mark.parametrize("wanted", ["request", "require"])
def test_a_client_certificate_of_another_ca_does_not_hold(
    stage: Stage, ca: trustme.CA, wanted: str
) -> None:
    stage.https("api.test", client_certificate=wanted)
    refused(stage.tls(context=own_certificate(ca, trustme.CA())))
    assert stage.only(TlsFailure).note == (
        "the client certificate that the target (OpenSSL, by its ClientHello) sent to 'api.test' does not hold "
        "(unable to get local issuer certificate): it has to be one of egress_ca.issue_cert(...)"
    )


def test_a_client_of_another_protocol_alone_is_not_taken_for_one_that_distrusts(
    stage: Stage, ca: trustme.CA
) -> None:
    context = client_context(ca)
    context.set_alpn_protocols(["spdy/3"])
    stage.tls(context=context).close()
    failure = stage.only(TlsFailure)
    assert (failure.outcome, failure.reason) == ("unrouted", "alpn")
    assert failure.note == (
        "the target (OpenSSL, by its ClientHello) offered spdy/3 alone by ALPN and closed right after the handshake: "
        "HTTP/2 and HTTP/1.1 are all that is answered here. Forward it to a server of spdy/3 that has a certificate of "
        "egress_ca.issue_cert('api.test')"
    )


@pytest.mark.parametrize("first", ["require", "request", None])
def test_the_strictest_route_of_an_address_says_what_is_wanted(
    stage: Stage, ca: trustme.CA, first: str | None
) -> None:
    stage.https("api.test", path="/a", client_certificate="require")
    stage.https("api.test", path="/b", client_certificate=first)
    refused(stage.tls())
    assert "client_certificate='require') requires one" in stage.only(TlsFailure).note
    own = stage.tls(context=own_certificate(ca))
    assert ask(own, GET.replace(b" / ", b" /b ")).status == 200


def test_a_route_of_another_name_wants_nothing(stage: Stage) -> None:
    stage.https("*.internal.test", client_certificate="require")
    stage.https("api.test")
    stage.https("old.test", client_certificate="require").remove()
    assert ask(stage.tls()).status == 200
    assert ask(stage.tls("old.test"), GET.replace(b"api", b"old")).status == 502


def declared_late(stage: Stage, sock: ssl.SSLSocket) -> InnerRoute:
    """A route that requires a certificate, while a request of a connection without one is on its way."""
    sock.sendall(GET[:-2])  # so that it is not idle
    assert eventually(lambda: all(c.idle_since is None for c in stage.gateway.connections))
    return stage.https("api.test", b"proved", client_certificate="require")


def test_a_request_of_a_connection_that_lacks_the_certificate_is_refused_and_says_why(
    stage: Stage,
) -> None:
    earlier = stage.https("*.test", b"unproved")
    sock = stage.tls()
    assert ask(sock).body == b"unproved"
    late = declared_late(stage, sock)
    reply = ask(sock, b"\r\n")
    assert (reply.status, reply.headers["connection"]) == (421, "close")
    assert (
        b"requires a client certificate, and the connection of this request has none" in reply.body
    )
    assert end_of(sock) == "closed"
    (_, refusal) = stage.entries(Exchange)
    assert (refusal.outcome, refusal.route) == ("unrouted", None)
    assert refusal.note == (
        "intercept_https(\"api.test\", client_certificate='require') requires a client certificate, and the "
        "connection of this request has none: it was opened before the route was declared"
    )
    assert (earlier.call_count, late.call_count) == (1, 0)


def test_a_refusal_takes_none_of_the_times_of_its_route(stage: Stage, ca: trustme.CA) -> None:
    stage.https("*.test")
    sock = stage.tls()
    ask(sock)
    late = declared_late(stage, sock)
    late.turns.times = 1
    assert ask(sock, b"\r\n").status == 421
    assert ask(stage.tls(context=own_certificate(ca))).body == b"proved"


def test_an_idle_connection_without_the_certificate_is_closed_and_its_pool_opens_another(
    stage: Stage, ca: trustme.CA
) -> None:
    stage.https("*.test", b"any")
    pooled, other = stage.tls(), stage.tls("other.test")
    ask(pooled)
    ask(other, GET.replace(b"api", b"other"))
    stage.settle()
    route = stage.https("api.test", b"proved", client_certificate="require")
    assert end_of(pooled) == "closed"
    assert ask(stage.tls(context=own_certificate(ca))).body == b"proved"
    assert ask(other, GET.replace(b"api", b"other")).body == b"any"
    assert route.call_count == 1
    assert {exchange.outcome for exchange in stage.entries(Exchange)} == {"routed"}


def test_a_raw_route_that_was_found_by_what_was_dialled_has_its_certificate_too(
    stage: Stage,
) -> None:
    name = stage.resolve("mqtt.test")
    route = stage.tls_route("mqtt.test", b"welcome", client_certificate="require")
    refused(stage.tls("other.test", name))
    failure = stage.entries(TlsFailure)[0]
    assert (failure.reason, route.call_count) == ("client-certificate", 0)


def test_bytes_in_tls_may_need_a_client_certificate_too(stage: Stage, ca: trustme.CA) -> None:
    @stage.tls_route("mqtt.test", client_certificate="require")
    def handler(sock: ssl.SSLSocket) -> None:
        certificate = sock.getpeercert(binary_form=True)
        assert certificate is not None
        sock.sendall(b"welcome")

    client = stage.tls("mqtt.test", context=own_certificate(ca))
    client.settimeout(SECONDS)
    assert client.recv(10) == b"welcome"
