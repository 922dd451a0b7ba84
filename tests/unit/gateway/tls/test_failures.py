"""A handshake that fails at a claimed address fails its test, unless the same client comes back and succeeds."""

from __future__ import annotations

import contextlib
import pickle
import select
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trustme

from pytest_egress.errors import EgressError, HandshakeError, NeverCalledError, UnroutedError
from pytest_egress.gateway import dispatch
from pytest_egress.gateway.tls import handshake as tls_module
from pytest_egress.gateway.tls.failures import broken_handshake, silent_after_handshake
from pytest_egress.ledger.verdict import judge
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import CERTAIN, Exchange, Handshake, TlsFailure, peers_of
from pytest_egress.traffic.tls.hello import ClientHello, client_of, parse_client_hello
from tests.support.stage import (
    FIRST,
    SECOND,
    SECONDS,
    Stage,
    ask,
    client_context,
    eventually,
    hello_bytes,
    leave_within_handshake,
    reset,
)


@pytest.fixture
def stage(stage: Stage) -> Stage:
    stage.https("*.test", optional=True)
    return stage


@pytest.fixture
def short_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_module, "HANDSHAKE_SECONDS", 0.5)


def verdict(stage: Stage) -> EgressError | None:
    stage.settle()
    return judge(stage.window, [])


def distrust(stage: Stage, server_name: str = "api.test") -> None:
    """A client that is like `Stage.tls` to the byte, and does not trust the CA."""
    before = len(stage.window.entries)
    with pytest.raises(ssl.SSLCertVerificationError):
        stage.tls(server_name, context=client_context(trustme.CA()))
    assert eventually(lambda: len(stage.window.entries) > before)


def leave(stage: Stage, ca: trustme.CA) -> None:
    """A client that is like `Stage.tls` to the byte, and breaks off within the handshake without an alert."""
    before = len(stage.window.entries)
    breaks_off(stage, ca)
    assert eventually(lambda: len(stage.window.entries) > before)


def http_client(ca: trustme.CA) -> ssl.SSLContext:
    """A client that means to make requests, by ALPN."""
    context = client_context(ca)
    context.set_alpn_protocols(["http/1.1"])
    return context


def another_client(ca: trustme.CA) -> ssl.SSLContext:
    """A client that trusts the CA, and has other cipher suites."""
    context = client_context(ca)
    context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    return context


# What fails.


def breaks_off(stage: Stage, ca: trustme.CA) -> None:
    leave_within_handshake(stage.dial(), ca, "api.test")


def closes_after_the_handshake(stage: Stage, ca: trustme.CA) -> None:
    """As one that pins another certificate does."""
    stage.tls(context=http_client(ca)).close()


def speaks_http_2_alone(stage: Stage, ca: trustme.CA) -> None:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    stage.tls(context=context).close()


def shares_no_cipher(stage: Stage, ca: trustme.CA) -> None:
    context = client_context(ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256")
    with pytest.raises(OSError, match=r"ALERT|alert|reset"):
        stage.tls(context=context)


def stops_within_its_hello(stage: Stage, ca: trustme.CA) -> None:
    stage.dial().sendall(hello_bytes(ca)[:100])


def stops_after_its_hello(stage: Stage, ca: trustme.CA) -> None:
    stage.dial().sendall(hello_bytes(ca))


def sends_no_hello(stage: Stage, ca: trustme.CA) -> None:
    stage.dial().sendall(b"\x16\x03\x01\x00\x05hello")


def names_no_host(stage: Stage, ca: trustme.CA) -> None:
    stage.dial().sendall(hello_bytes(ca, "api-x.test").replace(b"api-x", b"api x"))


@pytest.mark.parametrize(
    "client",
    [
        lambda stage, _ca: distrust(stage),
        breaks_off,
        closes_after_the_handshake,
        speaks_http_2_alone,
        shares_no_cipher,
        stops_within_its_hello,
        stops_after_its_hello,
        sends_no_hello,
        names_no_host,
    ],
)
def test_a_client_that_never_comes_through_fails_the_test_though_no_route_need_be_called(
    stage: Stage,
    ca: trustme.CA,
    short_handshake: None,
    client: Callable[[Stage, trustme.CA], None],
) -> None:
    stage.https("*", optional=True)  # what has no server name, or none that is a name
    client(stage, ca)
    assert eventually(lambda: stage.window.entries)
    assert isinstance(verdict(stage), HandshakeError)
    stage.window.entries[0].outcome = "blocked"
    assert judge(stage.window, []) is None


def test_a_client_without_the_certificate_that_is_required_fails_the_test(stage: Stage) -> None:
    stage.https("api.test", optional=True, client_certificate="require")
    stage.tls()
    assert eventually(lambda: stage.window.entries)
    assert isinstance(verdict(stage), HandshakeError)


def test_the_verdict_says_which_client_which_host_why_and_what_to_type(stage: Stage) -> None:
    for _ in range(2):
        distrust(stage)
    found = verdict(stage)
    assert str(found) == (
        "2 TLS handshakes of target failed at what a route claims:\n"
        "\n"
        "  TLS api.test:443 (203.0.113.9)  (2 times)\n"
        "      the target (OpenSSL, by its ClientHello) does not trust the CA of this run for 'api.test' "
        "(alert: unknown CA).\n"
        "      The CA is in the image's bundle, in the roots of known SDKs, and where SSL_CERT_FILE and its "
        "like lead;\n"
        '      a client with other roots ignores it: name their file, trust=["/path/of/cacert.pem"], or give '
        "it /etc/pytest-egress/bundle.pem\n"
        '      claimed by: intercept_https("*.test")  declared at test_it.py:7\n'
        '      to expect it, and answer nobody there: egress.block("api.test:443")'
    )
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


def test_a_route_that_was_never_called_quotes_the_distrust_in_its_own_verdict(stage: Stage) -> None:
    route = stage.https("api.test")
    distrust(stage)
    stage.settle()
    found = judge(stage.window, [route])
    assert isinstance(found, NeverCalledError)
    assert "does not trust the CA of this run" in str(found)
    assert isinstance(judge(stage.window, [route], assert_all_called=False), HandshakeError)


def test_where_a_block_expects_it_distrust_fails_nothing(stage: Stage) -> None:
    block = stage.route("block", "api.test:443")
    distrust(stage)
    assert verdict(stage) is None
    assert block.call_count == 1


def test_a_policy_excuses_no_distrust_at_what_a_route_claims(stage: Stage) -> None:
    stage.window.policy = "block"
    distrust(stage)
    assert isinstance(verdict(stage), HandshakeError)


def test_what_its_tests_end_has_cut_is_no_distrust(stage: Stage, ca: trustme.CA) -> None:
    stops_after_its_hello(stage, ca)
    assert eventually(lambda: any(c.destination.hello for c in stage.gateway.connections))
    for connection in list(stage.gateway.connections):
        connection.cut()
    assert verdict(stage) is None
    failure = stage.only(TlsFailure)
    assert (failure.reason, failure.note) == (
        "cut",
        "its handshake had not ended when its test did",
    )


def test_what_is_cut_between_its_hello_and_its_handshake_is_recorded(
    stage: Stage, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.gateway.authority.context

    def cut_meanwhile(*args: Any, **options: Any) -> ssl.SSLContext:
        for connection in list(stage.gateway.connections):
            connection.cut()
        return real(*args, **options)

    monkeypatch.setattr(stage.gateway.authority, "context", cut_meanwhile)
    stops_after_its_hello(stage, ca)
    assert eventually(lambda: stage.window.entries)
    assert stage.only(TlsFailure).reason == "cut"
    assert verdict(stage) is None


# What excuses.


def test_a_client_that_comes_back_with_a_request_is_excused(stage: Stage, ca: trustme.CA) -> None:
    leave(stage, ca)
    assert ask(stage.tls()).status == 200
    assert verdict(stage) is None


def test_a_client_that_comes_back_and_keeps_its_connection_for_later_is_excused(
    stage: Stage, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.3)
    leave(stage, ca)
    stage.tls()
    assert eventually(lambda: stage.window.handshakes)
    assert verdict(stage) is None


def test_a_client_that_comes_back_to_a_raw_route_is_excused(stage: Stage, ca: trustme.CA) -> None:
    stage.tls_route("api.test", b"welcome", optional=True)
    leave(stage, ca)
    assert stage.tls().recv(7) == b"welcome"
    assert verdict(stage) is None


def test_what_a_client_has_said_by_an_alert_no_other_of_its_kind_excuses(stage: Stage) -> None:
    """As of two programs on one library, of which one has roots of its own."""
    distrust(stage)
    assert ask(stage.tls()).status == 200
    found = verdict(stage)
    assert isinstance(found, HandshakeError)
    assert str(found).startswith("a TLS handshake of target failed at what a route claims:\n")


@pytest.mark.parametrize("own", [None, trustme.CA()], ids=["none", "foreign"])
def test_a_client_certificate_that_was_not_given_no_other_clients_excuses(
    stage: Stage, ca: trustme.CA, own: trustme.CA | None
) -> None:
    stage.https("api.test", optional=True, client_certificate="require")
    for issuer in (own, ca):
        context = client_context(ca)
        if issuer is not None:
            issuer.issue_cert("shop@clients.test").configure_cert(context)
        with contextlib.suppress(OSError):
            assert ask(stage.tls(context=context)).status == 200
        stage.settle()
    assert len(stage.entries(TlsFailure)) == len(stage.entries(Exchange)) == 1
    assert isinstance(verdict(stage), HandshakeError)


def test_an_alert_about_something_else_is_certain_too(stage: Stage) -> None:
    reason, text = broken_handshake(
        alert("SSLV3_ALERT_HANDSHAKE_FAILURE"), "api.test", hello_of("OpenSSL")
    )
    assert reason in CERTAIN
    assert text == (
        "the target (OpenSSL, by its ClientHello) refused the handshake for 'api.test' (alert: handshake failure)"
    )


def test_what_succeeded_before_excuses_nothing(stage: Stage, ca: trustme.CA) -> None:
    assert ask(stage.tls()).status == 200
    leave(stage, ca)
    assert isinstance(verdict(stage), HandshakeError)


def test_what_was_opened_before_and_is_used_after_excuses_nothing(
    stage: Stage, ca: trustme.CA
) -> None:
    early = stage.tls()
    leave(stage, ca)
    assert ask(early).status == 200
    assert isinstance(verdict(stage), HandshakeError)


def test_another_client_excuses_nothing(stage: Stage, ca: trustme.CA) -> None:
    leave(stage, ca)
    assert ask(stage.tls(context=another_client(ca))).status == 200
    assert isinstance(verdict(stage), HandshakeError)


def test_another_host_excuses_nothing(stage: Stage, ca: trustme.CA) -> None:
    leave(stage, ca)
    request = b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"
    assert ask(stage.tls("other.test"), request).status == 200
    assert isinstance(verdict(stage), HandshakeError)


def test_another_container_excuses_nothing(stage: Stage, ca: trustme.CA) -> None:
    leave(stage, ca)
    stage.name = "other"
    assert ask(stage.tls()).status == 200
    assert isinstance(verdict(stage), HandshakeError)


def test_a_client_that_sent_no_hello_is_excused_by_nobody(stage: Stage, ca: trustme.CA) -> None:
    stage.https("*", optional=True)
    sends_no_hello(stage, ca)
    assert eventually(lambda: stage.window.entries)
    assert ask(stage.tls()).status == 200
    assert isinstance(verdict(stage), HandshakeError)


def test_a_client_of_another_protocol_may_come_back_with_ours(stage: Stage, ca: trustme.CA) -> None:
    context = client_context(ca)
    context.set_alpn_protocols(["spdy/3"])
    stage.tls(context=context).close()
    assert eventually(lambda: stage.window.entries)
    context.set_alpn_protocols(["http/1.1"])
    assert ask(stage.tls(context=context)).status == 200
    assert verdict(stage) is None


def test_a_client_of_other_protocols_is_another_where_it_distrusts(
    stage: Stage, ca: trustme.CA
) -> None:
    leave(stage, ca)
    assert ask(stage.tls(context=http_client(ca))).status == 200
    assert isinstance(verdict(stage), HandshakeError)


# Clients that check a certificate within the handshake.


def hello_of(library: str) -> ClientHello:
    extensions = {"Go": (18, 43), "Java": (17, 50), "OpenSSL": (22, 35), "GnuTLS": (28,)}
    return ClientHello(
        sni="api.test",
        alpn=("http/1.1",),
        versions=(0x0304,),
        cipher_suites=(0x1301,),
        extensions=extensions[library],
    )


@pytest.mark.parametrize(
    ("library", "within", "after"),
    [
        ("Go", "unused", "unused"),
        ("Java", "likely-untrusted", "unused"),
        ("OpenSSL", "likely-untrusted", "likely-untrusted"),
    ],
)
def test_a_library_that_would_have_said_so_is_not_called_distrustful(
    library: str, within: str, after: str
) -> None:
    hello, broken = hello_of(library), ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    assert broken_handshake(broken, "api.test", hello)[0] == within
    assert silent_after_handshake("api.test", hello)[0] == after
    assert silent_after_handshake("api.test", hello, "TLSv1.2")[0] == after
    assert silent_after_handshake("api.test", hello, "TLSv1.3")[0] == "unused"


def reads_nothing(stage: Stage, ca: trustme.CA) -> None:
    sock = stage.dial()
    sock.sendall(hello_bytes(ca))
    assert select.select([sock], [], [], SECONDS)[0]
    sock.close()


def reads_half(stage: Stage, ca: trustme.CA) -> None:
    sock = stage.dial()
    sock.sendall(hello_bytes(ca))
    assert sock.recv(1)
    reset(sock)


def leaves_at_once(stage: Stage, ca: trustme.CA) -> None:
    sock = stage.dial()
    sock.sendall(hello_bytes(ca))
    sock.close()


@pytest.mark.parametrize("client", [reads_nothing, reads_half, leaves_at_once])
def test_a_client_that_left_before_it_had_read_the_certificate_is_not_called_distrustful(
    stage: Stage, ca: trustme.CA, client: Callable[[Stage, trustme.CA], None]
) -> None:
    """As a thread that still connects when its program ends, after all that was asked for has come."""
    assert ask(stage.tls()).status == 200
    client(stage, ca)
    assert eventually(lambda: any(isinstance(e, TlsFailure) for e in stage.window.entries))
    assert verdict(stage) is None
    (failure,) = stage.entries(TlsFailure)
    assert failure.reason == "unused"
    assert "had not read all that it was sent" in failure.note
    stage.window.handshakes.clear()
    assert isinstance(judge(stage.window, []), HandshakeError)


def test_a_client_that_opens_a_connection_in_vain_beside_one_that_it_uses_is_not_called_distrustful(
    stage: Stage, ca: trustme.CA
) -> None:
    client = http_client(ca)
    stage.tls(context=client).close()
    assert eventually(lambda: any(isinstance(e, TlsFailure) for e in stage.window.entries))
    assert isinstance(verdict(stage), HandshakeError)
    assert ask(stage.tls(context=client)).status == 200
    stage.tls(context=client).close()
    stage.settle()
    assert verdict(stage) is None
    assert {e.reason for e in stage.window.entries if isinstance(e, TlsFailure)} == {"unused"}


@pytest.mark.parametrize(
    ("reason", "succeeded", "is_excused"),
    [
        ("unused", (1.0, FIRST), True),
        ("unused", (3.0, FIRST), True),
        ("unused", None, False),
        ("likely-untrusted", (1.0, SECOND), False),
        ("likely-untrusted", (3.0, FIRST), True),
        # Two addresses at once, of which the client has left one.
        ("likely-untrusted", (1.5, SECOND), True),
        ("likely-untrusted", (1.5, FIRST), False),
        ("untrusted", (1.5, SECOND), False),
    ],
)
def test_a_connection_that_was_opened_in_vain_is_excused_by_any_that_was_used(
    reason: str, succeeded: tuple[float, str] | None, is_excused: bool
) -> None:
    about: dict[str, Any] = {"container": "shop", "started": 2.0, "outcome": "recorded"}
    tls: dict[str, Any] = {"host": "api.test", "port": 443, "address": FIRST, "client": "go"}
    failure = TlsFailure(**about, **tls, reason=reason)
    window = Window(entries=[failure])
    if succeeded is not None:
        window.handshakes[peers_of(failure)] = Handshake(*succeeded)
    assert (judge(window, []) is None) is is_excused


def test_a_pool_of_an_earlier_test_excuses_what_it_opens_in_vain(stage: Stage) -> None:
    pooled = stage.tls()
    assert ask(pooled).status == 200
    stage.settle()
    failure = TlsFailure(
        container=stage.name,
        started=stage.ledger.now(),
        outcome="recorded",
        host="api.test",
        port=443,
        address=FIRST,
        client="",
        reason="unused",
    )
    for client in stage.window.handshakes:
        failure.client = failure.client or client[-1]
    stage.next_window()
    stage.ledger.record(stage.window, failure)
    assert isinstance(verdict(stage), HandshakeError)
    assert ask(pooled).status == 200
    assert verdict(stage) is None


def test_a_pool_of_an_earlier_test_excuses_no_distrust(stage: Stage) -> None:
    pooled = stage.tls()
    assert ask(pooled).status == 200
    stage.settle()
    stage.next_window()
    distrust(stage)
    assert ask(pooled).status == 200
    assert isinstance(verdict(stage), HandshakeError)


# Clients that look whether TLS is spoken, and want no more.


def look(stage: Stage, ca: trustme.CA, *alpn: str) -> None:
    """As `openssl s_client </dev/null` does, and any client that closes as it should."""
    context = client_context(ca)
    if alpn:
        context.set_alpn_protocols([*alpn])
    tls = stage.tls(context=context)
    tls.settimeout(SECONDS)
    if "h2" in alpn:  # a server of HTTP/2 says so before it closes
        with pytest.raises(ssl.SSLError, match="APPLICATION_DATA_AFTER_CLOSE_NOTIFY"):
            tls.unwrap()
    else:
        assert tls.unwrap().recv(1) == b""  # TLS has ended on both sides, and was not reset


def look_at_the_certificate(stage: Stage, ca: trustme.CA) -> None:
    """As `ssl.get_server_certificate` does: it verifies nothing, and closes the TCP connection alone."""
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    stage.tls(context=careless).close()


@pytest.mark.parametrize(
    "client",
    [
        look,
        lambda stage, ca: look(stage, ca, "http/1.1"),
        lambda stage, ca: look(stage, ca, "h2"),
        look_at_the_certificate,
    ],
)
def test_a_health_check_of_tls_is_no_offence_and_no_call(
    stage: Stage, ca: trustme.CA, client: Callable[[Stage, trustme.CA], None]
) -> None:
    route = stage.https("api.test", optional=True)
    client(stage, ca)
    assert eventually(lambda: stage.window.entries)
    assert verdict(stage) is None
    failure = stage.only(TlsFailure)
    assert (failure.outcome, failure.reason, route.call_count) == ("recorded", "probe", 0)


@pytest.mark.parametrize(
    ("library", "alpn", "version"),
    [
        ("GnuTLS", True, "TLSv1.3"),
        ("GnuTLS", False, "TLSv1.3"),
        ("Java", True, "TLSv1.2"),
    ],
)
def test_a_client_that_may_have_looked_at_the_certificate_afterwards_is_no_health_check(
    library: str, alpn: bool, version: str
) -> None:
    """It says close_notify all the same: curl with GnuTLS before 8.9, and Java programs that pin."""
    hello = hello_of(library)
    hello = replace(hello, alpn=("h2", "http/1.1") if alpn else ())
    reason, _ = silent_after_handshake("api.test", hello, version, said_goodbye=True)
    assert reason in ("likely-untrusted", "unused")


def test_a_health_check_of_tls_tells_why_a_route_was_not_called(
    stage: Stage, ca: trustme.CA
) -> None:
    route = stage.https("api.test")
    look(stage, ca)
    stage.settle()
    found = judge(stage.window, [route])
    assert isinstance(found, NeverCalledError)
    text = " ".join(str(found).split())
    assert "made a handshake with 'api.test' and closed, without a request" in text


def test_a_health_check_of_tls_where_no_route_is_declared_is_unrouted(
    stage: Stage, ca: trustme.CA
) -> None:
    for route in stage.table.routes:
        route.remove()
    look(stage, ca)
    assert isinstance(verdict(stage), UnroutedError)


# Clients that reject the name, and not the CA.


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def test_a_client_that_trusts_the_ca_and_rejects_the_name_is_not_called_distrustful(
    stage: Stage,
) -> None:
    """It has looked the name up by itself, and compares with the address."""
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        stage.tls("198.18.0.99", stage.resolve("api.test"))
    assert eventually(lambda: any(isinstance(e, TlsFailure) for e in stage.window.entries))
    (failure,) = stage.entries(TlsFailure)
    assert (failure.reason, failure.note) == (
        "wrong-name",
        "the target (OpenSSL, by its ClientHello) trusts the CA of this run, and rejected the certificate for "
        "'api.test' (alert: bad certificate): it expects another name there. It sent no SNI, so that the certificate "
        "is for what it dialled: have it connect by the name that it compares with",
    )
    assert isinstance(verdict(stage), HandshakeError)


def test_what_it_asked_for_is_quoted_where_it_compares_with_another_name(stage: Stage) -> None:
    reason, text = broken_handshake(
        alert("SSLV3_ALERT_BAD_CERTIFICATE"), "api.test", hello_of("OpenSSL")
    )
    assert reason == "wrong-name"
    assert text.endswith(
        ". By SNI it asked for 'api.test', and compares with a name that is set apart from that"
    )


@pytest.mark.parametrize(
    ("library", "reason", "says"),
    [
        ("OpenSSL", "TLSV1_ALERT_UNKNOWN_CA", " (alert: unknown CA). "),
        ("Go", "SSLV3_ALERT_BAD_CERTIFICATE", ", or expects another name in the certificate "),
        (
            "Java",
            "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
            ", or expects another name in the certificate ",
        ),
    ],
)
def test_an_alert_that_may_mean_either_is_told_as_such(
    library: str, reason: str, says: str
) -> None:
    found, text = broken_handshake(alert(reason), "api.test", hello_of(library))
    assert found == "untrusted"
    assert f"does not trust the CA of this run for 'api.test'{says}" in text


# What tells one client from another.


def changed(hello: ClientHello, **fields: Any) -> ClientHello:
    return ClientHello(**{**vars(hello), **fields})


def real_hello(ca: trustme.CA) -> ClientHello:
    hello = parse_client_hello(hello_bytes(ca))
    assert hello is not None
    return hello


def test_two_hellos_of_one_client_are_one_clients(ca: trustme.CA) -> None:
    first, second = real_hello(ca), real_hello(ca)
    assert first.groups
    assert first.signatures
    assert client_of(first) == client_of(second)


def test_a_retry_is_the_same_clients(ca: trustme.CA) -> None:
    hello = real_hello(ca)
    retries = [
        changed(hello, extensions=hello.extensions[::-1]),
        changed(hello, extensions=(*hello.extensions, 21, 41, 42, 44)),  # padding, PSK, cookie
        changed(hello, extensions=tuple(n for n in hello.extensions if n not in (35, 45, 51))),
        changed(hello, extensions=(0x0A0A, *hello.extensions), groups=(0xFAFA, *hello.groups)),
        changed(hello, cipher_suites=(0x1A1A, *hello.cipher_suites, 0x5600)),
        changed(hello, versions=(0x2A2A, *hello.versions)),
    ]
    assert {client_of(retry) for retry in retries} == {client_of(hello)}


def test_what_differs_in_what_it_can_is_another_client(ca: trustme.CA) -> None:
    hello = real_hello(ca)
    others = [
        changed(hello, cipher_suites=hello.cipher_suites[1:]),
        changed(hello, groups=hello.groups[1:]),
        changed(hello, signatures=hello.signatures[1:]),
        changed(hello, versions=(0x0303,)),
        changed(hello, extensions=(*hello.extensions, 18)),
        changed(hello, alpn=("http/1.1",)),
    ]
    assert len({client_of(each) for each in (hello, *others)}) == 1 + len(others)
