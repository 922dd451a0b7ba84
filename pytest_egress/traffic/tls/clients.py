"""Tells the TLS libraries of clients apart, by what their ClientHellos offer."""

from __future__ import annotations

from pytest_egress.traffic.tls.hello import (
    SESSION_TICKET,
    SUPPORTED_VERSIONS,
    ClientHello,
    is_grease,
)

STATUS_REQUEST_V2, SIGNED_TIMESTAMPS, ENCRYPT_THEN_MAC = 17, 18, 22
RECORD_SIZE_LIMIT, DELEGATED_CREDENTIAL = 28, 34
SIGNATURE_ALGORITHMS_CERT, RENEGOTIATION_INFO = 50, 65281
"""Extensions of a ClientHello by which TLS libraries can be told apart."""


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
