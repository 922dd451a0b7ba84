"""Explains failed TLS handshakes: a short reason, and a sentence that a user can act on.

This module never touches a socket. It matches `ssl.SSLError.reason`, never the error's text. Half of the clients that
distrust the CA send no alert at all: for those the sentence says "likely".
"""

from __future__ import annotations

import errno
from typing import Final

from pytest_egress.traffic.clienthello import (
    SESSION_TICKET,
    SUPPORTED_VERSIONS,
    ClientHello,
    is_grease,
)
from pytest_egress.traffic.entries import server_of

STATUS_REQUEST_V2, SIGNED_TIMESTAMPS, ENCRYPT_THEN_MAC = 17, 18, 22
RECORD_SIZE_LIMIT, DELEGATED_CREDENTIAL = 28, 34
SIGNATURE_ALGORITHMS_CERT, RENEGOTIATION_INFO = 50, 65281
"""Extensions of a ClientHello by which TLS libraries can be told apart."""

DISTRUST: Final = ("untrusted", "likely-untrusted")
VERIFY_WITHIN: Final = ("BoringSSL", "Go", "Java", "NSS", "gRPC", "rustls")
"""Libraries that verify the certificate within the handshake.

A client that completes a handshake trusts the CA. If it then sends nothing, it has opened more connections than it
needed, or pins a certificate.
"""

VERIFY_WITHIN_TLS_1_3: Final = (*VERIFY_WITHIN, "OpenSSL")
"""Libraries that verify the certificate within the handshake of TLS 1.3.

OpenSSL is one of them only with that version. Of its users Node.js alone checks the result after the handshake. With
TLS 1.3 it breaks off before we have seen the handshake's end (20 of 20 did), with TLS 1.2 it does not (0 of 10).
"""

ALERT_ALWAYS: Final = ("Go",)
"""Libraries that always send an alert when they distrust the certificate."""

UNUSED: Final = (
    "{who} closed a connection to {host!r} {when}, without an alert and without a request: it pins a certificate, or "
    "needed the connection no more"
)
UNTRUSTED: Final = "{who} does not trust the CA of this run for {host!r} (alert: {alert}). {advice}"
LIKELY_UNTRUSTED: Final = (
    "{who} broke off {when}, with no alert: likely it does not trust the CA of this run for {host!r}. "
    "{advice}"
)
PINNED: Final = (
    "The CA is in the image's bundle, in the roots of known SDKs, and where SSL_CERT_FILE and its like lead; "
    'a client with other roots ignores it: name their file, trust=["/path/of/cacert.pem"], '
    "or give it /etc/pytest-egress/bundle.pem"
)
ADVICE: Final = {
    "Java": (
        "JAVA_TOOL_OPTIONS leads to the CA; a program that makes an SSLContext of its own, or starts Java without "
        'its environment, ignores it: name its keystore, trust=["/app/truststore.jks"], or give it '
        "/etc/pytest-egress/truststore.jks"
    ),
    "rustls": (
        "SSL_CERT_FILE leads to the CA; a program that is built with webpki-roots alone ignores it: only another "
        "build, or an option of its own, helps"
    ),
    "BoringSSL": (
        "a Chromium or Chrome that is where its package puts it gets a policy with the CA; another one, or a headless "
        "shell, reads an NSS database: give it the CA with certutil"
    ),
    "NSS": (
        "a Firefox that is where its package puts it gets a policy with the CA; what else uses NSS reads a database: "
        "give it the CA with certutil"
    ),
}
"""TLS library to the advice that helps its clients; all others get `PINNED`."""

NO_CLIENT_CERTIFICATE: Final = (
    "{who} sent no client certificate to {host!r}, and {route} requires one: give it one of "
    "egress_ca.issue_cert(...) with files="
)
FOREIGN_CLIENT_CERTIFICATE: Final = (
    "the client certificate that {who} sent to {host!r} does not hold ({why}): it has to be one of "
    "egress_ca.issue_cert(...)"
)
NO_COMMON_PROTOCOL: Final = (
    "{who} offered {offered} alone by ALPN and closed right after the handshake: HTTP/2 and HTTP/1.1 are all "
    "that is answered here. {remedy}"
)
ALERTS_OF_DISTRUST: Final = {
    "TLSV1_ALERT_UNKNOWN_CA": "unknown CA",
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate unknown",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "unsupported certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "access denied",
}
BROKEN_OFF: Final = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}  # Python 3.10: as SSLError
PROTOCOL_REASONS: Final = {
    "UNSUPPORTED_PROTOCOL": "it offers only TLS versions older than 1.2",
    "NO_SHARED_CIPHER": "it offers no cipher suite that this Python's OpenSSL accepts",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "it accepts no signature algorithm of the leaf certificate (ECDSA P-256)",
    "WRONG_VERSION_NUMBER": "what it sent is no TLS record",
    "UNKNOWN_PROTOCOL": "it speaks SSL 2",
}


def broken_handshake(
    error: OSError, host: str, hello: ClientHello | None = None, route: object = "a route"
) -> tuple[str, str]:
    """The reason and the sentence for a handshake that raised an error.

    Args:
        error: The error that `SSLSocket.do_handshake`, or the first read after it, raised.
        host: The name that the client asked for.
        hello: The client's ClientHello.
        route: The route that requests or requires a client certificate, if one does.
    """
    reason, who = getattr(error, "reason", None), who_sent(hello)
    if reason in ALERTS_OF_DISTRUST:
        alert, advice = ALERTS_OF_DISTRUST[reason], advice_for(hello)
        return "untrusted", UNTRUSTED.format(who=who, host=host, alert=alert, advice=advice)
    if reason == "UNEXPECTED_EOF_WHILE_READING" or error.errno in BROKEN_OFF:
        return broken_off(host, hello, "within the handshake", ALERT_ALWAYS)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "client-certificate", NO_CLIENT_CERTIFICATE.format(who=who, host=host, route=route)
    if reason == "CERTIFICATE_VERIFY_FAILED":
        why = getattr(error, "verify_message", "") or reason
        text = FOREIGN_CLIENT_CERTIFICATE.format(who=who, host=host, why=why)
        return "client-certificate", text
    if reason in PROTOCOL_REASONS:
        text = f"no TLS connection could be made for {host!r}: {PROTOCOL_REASONS[reason]}"
        return "protocol", text
    if isinstance(error, TimeoutError):
        return "timeout", f"the handshake for {host!r} did not end in time"
    return "handshake", f"the handshake for {host!r} failed: {reason or error}"


def no_client_certificate(host: str, hello: ClientHello | None, route: object) -> tuple[str, str]:
    """The reason and the sentence for a connection whose handshake ended before a client certificate was required."""
    text = NO_CLIENT_CERTIFICATE.format(who=who_sent(hello), host=host, route=route)
    return "client-certificate", text


def silent_after_handshake(
    host: str, hello: ClientHello | None = None, version: str = ""
) -> tuple[str, str]:
    """The reason and the sentence for a client that closed right after a successful handshake.

    Args:
        version: The version of TLS that was agreed on.
    """
    if hello is not None and hello.alpn and not {*hello.alpn} & {"h2", "http/1.1"}:
        offered = " and ".join(hello.alpn)
        remedy = server_of(offered, host)
        text = NO_COMMON_PROTOCOL.format(who=who_sent(hello), offered=offered, remedy=remedy)
        return "alpn", text
    trusting = VERIFY_WITHIN if version != "TLSv1.3" else VERIFY_WITHIN_TLS_1_3
    return broken_off(host, hello, "right after the handshake", trusting)


def broken_off(
    host: str, hello: ClientHello | None, when: str, trusting: tuple[str, ...]
) -> tuple[str, str]:
    """The reason and the sentence for a client that broke off without an alert.

    Args:
        trusting: The libraries whose clients do not break off like this because they distrust the CA.
    """
    who, advice = who_sent(hello), advice_for(hello)
    if hello is not None and library_of(hello) in trusting:
        return "unused", UNUSED.format(who=who, host=host, when=when)
    text = LIKELY_UNTRUSTED.format(who=who, host=host, when=when, advice=advice)
    return "likely-untrusted", text


def who_sent(hello: ClientHello | None) -> str:
    """The subject of a sentence about a client, with its TLS library where the ClientHello shows it."""
    library = library_of(hello) if hello is not None else None
    return f"the target ({library}, by its ClientHello)" if library else "the target"


def advice_for(hello: ClientHello | None) -> str:
    """The advice about a client that does not trust the CA."""
    library = library_of(hello) if hello is not None else None
    return ADVICE.get(library or "", PINNED)


def library_of(hello: ClientHello) -> str | None:
    """The TLS library that sends such a ClientHello, told by its extensions; None where they do not tell.

    Measured with the clients of Debian 13: OpenSSL 3.5, GnuTLS 3.8, Go 1.24, Java 21 and 25, rustls (uv), gRPC.
    """
    has = set(hello.extensions).__contains__
    if any(is_grease(number) for number in (*hello.cipher_suites, *hello.extensions)):
        return "BoringSSL"
    if "grpc-exp" in hello.alpn:
        return "gRPC"
    if has(STATUS_REQUEST_V2) and has(SIGNATURE_ALGORITHMS_CERT):
        return "Java"
    if has(RECORD_SIZE_LIMIT):
        return "NSS" if has(DELEGATED_CREDENTIAL) else "GnuTLS"
    if has(SIGNED_TIMESTAMPS) and not has(SESSION_TICKET):
        return "Go"
    if has(ENCRYPT_THEN_MAC):
        return "OpenSSL"
    return None if has(RENEGOTIATION_INFO) or not has(SUPPORTED_VERSIONS) else "rustls"
