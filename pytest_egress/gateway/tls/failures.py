"""Explains failed TLS handshakes: a short reason, and a sentence that a user can act on.

This module never touches a socket. It matches `ssl.SSLError.reason`, never the error's text. Half of the clients that
distrust the CA send no alert at all: for those the sentence says "likely".
"""

from __future__ import annotations

import errno
import re
import ssl
from typing import Any, Final

from pytest_egress.routes.certificates import ISSUED_ELSEWHERE, TLS_VERSIONS, USUAL, Presented
from pytest_egress.traffic.entries import LIKELY_REJECTED, REJECTED, server_of
from pytest_egress.traffic.tls.clients import library_of
from pytest_egress.traffic.tls.hello import ClientHello

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
PROBE: Final = (
    "{who} made a handshake with {host!r} and closed, without a request: a health check, or a connection that was "
    "needed no more"
)
LEFT_UNREAD: Final = (
    "{who} left a connection to {host!r} within the handshake, and had not read all that it was sent: it needed the "
    "connection no more, or its program ended"
)
UNTRUSTED: Final = "{who} does not trust the CA of this run for {host!r} (alert: {alert}). {advice}"
UNTRUSTED_OR_NAME: Final = (
    "{who} does not trust the CA of this run for {host!r}, or expects another name in the certificate "
    "(alert: {alert}, which may mean either). {advice}"
)
WRONG_NAME: Final = (
    "{who} trusts the CA of this run, and rejected the certificate for {host!r} (alert: {alert}): "
    "it expects another name there. {asked}"
)
ASKED_FOR: Final = (
    "By SNI it asked for {sni!r}, and compares with a name that is set apart from that"
)
ASKED_FOR_NONE: Final = (
    "It sent no SNI, so that the certificate is for what it dialled: have it connect by the name that it compares "
    "with"
)
REFUSED: Final = "{who} refused the handshake for {host!r} (alert: {alert})"
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
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "certificate expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "certificate revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate unknown",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "unsupported certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "access denied",
}
UNKNOWN_CA: Final = "TLSV1_ALERT_UNKNOWN_CA"
BAD_CERTIFICATE: Final = "SSLV3_ALERT_BAD_CERTIFICATE"
ABOUT_NAMES: Final = (BAD_CERTIFICATE, "SSLV3_ALERT_CERTIFICATE_UNKNOWN")
"""Alerts by which clients reject the name in a certificate. Of many libraries they may as well be about its CA."""

TELL_APART: Final = ("BoringSSL", "NSS", "OpenSSL", "rustls")
"""Libraries whose alert about an unknown CA is "unknown CA", so that "bad certificate" is about the name."""

ALERT: Final = re.compile("(?:SSLV3_ALERT|TLSV13?(?:_ALERT)?)_")
"""Begins OpenSSL's reasons for alerts that have come, and none else (SSL_AD_REASON_OFFSET, ssl.h)."""

ALERTS_OF_REJECTION: Final = ALERTS_OF_DISTRUST | {
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "handshake failure",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": "insufficient security",
    "TLSV1_ALERT_INTERNAL_ERROR": "internal error",
}
"""Alerts by which clients reject a certificate that they have been shown, and that is bad.

Erlang says "handshake failure" about a name. What comes before the certificate is no alert of the client's: then it is
this side that finds no common version or cipher suite, and raises an error of its own.
"""

VERSION_ALERT: Final = "TLSV1_ALERT_PROTOCOL_VERSION"
REJECTED_TEXT: Final = "{who} rejected {what} ({how})"
SAW_NOTHING: Final = "{who} left before it could see {what}, and so has not rejected it"
NOT_OF_THE_FAULT: Final = (
    "A client without that CA rejects every certificate: this does not show that it rejects {what}"
)
NO_COMMON_VERSION: Final = (
    "no TLS connection could be made for {host!r}: "
    "it offers {offered}, and {given} is all that is spoken"
)
BROKEN_OFF: Final = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}  # Python 3.10: as SSLError
PROTOCOL_REASONS: Final = {
    "UNSUPPORTED_PROTOCOL": "it offers only TLS versions older than 1.2",
    "NO_SHARED_CIPHER": "it offers no cipher suite that this Python's OpenSSL accepts",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "it accepts no signature algorithm of the leaf certificate (ECDSA P-256)",
    "WRONG_VERSION_NUMBER": "what it sent is no TLS record",
    "UNKNOWN_PROTOCOL": "it speaks SSL 2",
}


def broken_handshake(
    error: OSError,
    host: str,
    hello: ClientHello | None = None,
    route: object = "a route",
    presented: Presented = USUAL,
    *,
    saw_nothing: bool = False,
) -> tuple[str, str]:
    """The reason and the sentence for a handshake that raised an error.

    Args:
        error: The error that `SSLSocket.do_handshake`, or the first read after it, raised.
        route: The route that requests or requires a client certificate, if one does.
        saw_nothing: Whether the client had closed before it got a byte of that.
    """
    if saw_nothing and presented.is_bad and has_broken_off(error):
        return "silent", SAW_NOTHING.format(who=who_sent(hello), what=presented.to(host))
    if presented.is_bad and (rejection := rejection_by(error, host, hello, presented)) is not None:
        return rejection
    reason, who = getattr(error, "reason", None), who_sent(hello)
    if reason in ALERTS_OF_DISTRUST:
        return distrust(reason, host, hello, presented)
    if reason is not None and (begin := ALERT.match(reason)) is not None:
        alert = reason[begin.end() :].replace("_", " ").lower()
        return "alert", REFUSED.format(who=who, host=host, alert=alert)
    if has_broken_off(error):
        if saw_nothing or is_reset(error):
            return "unused", LEFT_UNREAD.format(who=who, host=host)
        return broken_off(host, hello, "within the handshake", ALERT_ALWAYS)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "client-certificate", NO_CLIENT_CERTIFICATE.format(who=who, host=host, route=route)
    if reason == "CERTIFICATE_VERIFY_FAILED":
        why = getattr(error, "verify_message", "") or reason
        text = FOREIGN_CLIENT_CERTIFICATE.format(who=who, host=host, why=why)
        return "client-certificate", text
    if reason == "UNSUPPORTED_PROTOCOL" and presented.tls_version is not None:
        return "protocol", NO_COMMON_VERSION.format(
            host=host, offered=offered_by(hello), given=presented.given
        )
    if reason in PROTOCOL_REASONS:
        text = f"no TLS connection could be made for {host!r}: {PROTOCOL_REASONS[reason]}"
        return "protocol", text
    if isinstance(error, TimeoutError):
        return "timeout", f"the handshake for {host!r} did not end in time"
    return "handshake", f"the handshake for {host!r} failed: {reason or error}"


def distrust(
    reason: str, host: str, hello: ClientHello | None, presented: Presented
) -> tuple[str, str]:
    """The reason and the sentence for an alert about a certificate that is good: about its CA, or about its name."""
    about: dict[str, Any] = {"who": who_sent(hello), "host": host}
    about["alert"] = ALERTS_OF_DISTRUST[reason]
    if reason == BAD_CERTIFICATE and is_by(hello, TELL_APART):
        sni = hello.sni if hello is not None else None
        asked = ASKED_FOR_NONE if sni is None else ASKED_FOR.format(sni=sni)
        return "wrong-name", WRONG_NAME.format(**about, asked=asked)
    text = UNTRUSTED_OR_NAME if reason in ABOUT_NAMES else UNTRUSTED
    text = text.format(**about, advice=advice_for(hello))
    if presented.is_bad:
        text = f"{text}. {NOT_OF_THE_FAULT.format(what=presented.to(host))}"
    return "untrusted", text


def rejection_by(
    error: OSError, host: str, hello: ClientHello | None, presented: Presented
) -> tuple[str, str] | None:
    """The reason and the sentence for a client that has rejected what was presented.

    Returns:
        None where the error is about something else, or may be: about the CA of the run, or about what comes before
        the certificate.
    """
    reason = getattr(error, "reason", None)
    if presented.has_old_version:
        how = version_rejection(reason, hello, presented)
        return rejected(REJECTED, host, hello, presented, how) if how else None
    if reason in ALERTS_OF_REJECTION:
        if reason == UNKNOWN_CA and presented.certificate not in ISSUED_ELSEWHERE:
            return None
        how = f"alert: {ALERTS_OF_REJECTION[reason]}"
        return rejected(REJECTED, host, hello, presented, how)
    if has_broken_off(error) and not is_by(hello, ALERT_ALWAYS):
        how = "it broke off within the handshake, without an alert"
        return rejected(LIKELY_REJECTED, host, hello, presented, how)
    return None


def version_rejection(reason: str | None, hello: ClientHello | None, presented: Presented) -> str:
    """By what a client has rejected an old version of TLS; "" where it has not, as far as can be known.

    A client that breaks off without an alert may as well distrust the CA, and says nothing.
    """
    if reason == VERSION_ALERT:
        return "alert: protocol version"
    if reason == "UNSUPPORTED_PROTOCOL" and hello is not None:
        ours = number_of(presented)
        newer = range(ours + 1, FIRST_VERSION + len(TLS_VERSIONS))
        if ours not in hello.versions and {*hello.versions} & {*newer}:
            return f"it offers {offered_by(hello)}"
    if reason == "NO_SHARED_CIPHER" and hello is not None and not has_old_suite(hello):
        return "it offers cipher suites of TLS 1.2 and later alone"
    return ""


def has_old_suite(hello: ClientHello) -> bool:
    """Whether a client offers a cipher suite that TLS before 1.2 can use."""
    return any(number in suites for suites in OLD_SUITES for number in hello.cipher_suites)


OLD_SUITES: Final = (
    *(range(0x0001, 0x003B), range(0x0041, 0x0067), range(0x0084, 0x009C)),
    *(range(0xC001, 0xC023), range(0xC033, 0xC03C)),
)
"""Cipher suites that TLS before 1.2 can use (RFC 5246 appendix A.5, RFC 8422 section 6, RFC 4279, 4346, 5054, 5489)."""


def number_of(presented: Presented) -> int:
    """The number on the wire of the only version that is spoken (RFC 8446 section 4.2.1)."""
    assert presented.tls_version is not None
    return FIRST_VERSION + TLS_VERSIONS.index(presented.tls_version)


FIRST_VERSION: Final = 0x0301  # TLS 1.0; each later one has the next number


def offered_by(hello: ClientHello | None) -> str:
    names = dict(enumerate(TLS_VERSIONS, FIRST_VERSION))
    offered = [names[number] for number in (hello.versions if hello else ()) if number in names]
    return f"{' and '.join(offered) or 'no version that is known here'} alone"


def rejected(
    reason: str, host: str, hello: ClientHello | None, presented: Presented, how: str
) -> tuple[str, str]:
    what = presented.to(host)
    return reason, REJECTED_TEXT.format(who=who_sent(hello), what=what, how=how)


def has_broken_off(error: OSError) -> bool:
    """Whether an error says that the client has closed or reset the connection, without an alert about why."""
    if isinstance(error, (ssl.SSLZeroReturnError, ssl.SSLEOFError)):
        return True
    if isinstance(error, ssl.SSLError) and error.library == "SYS":  # of the kernel: a reset
        return True
    reason = getattr(error, "reason", None)
    return reason == "UNEXPECTED_EOF_WHILE_READING" or error.errno in BROKEN_OFF


def is_reset(error: OSError) -> bool:
    """Whether an error says that the client has reset the connection.

    Its kernel does so where it closes before it has read all that had come (RFC 2525 section 2.17), as one does whose
    program ends. One that rejects the certificate without an alert has read all of it, and closes: Node.js, asyncio,
    Java's HttpClient.
    """
    return error.errno in BROKEN_OFF and not isinstance(error, ssl.SSLEOFError)


def is_by(hello: ClientHello | None, libraries: tuple[str, ...]) -> bool:
    return hello is not None and library_of(hello) in libraries


def no_client_certificate(host: str, hello: ClientHello | None, route: object) -> tuple[str, str]:
    """The reason and the sentence for a connection whose handshake ended before a client certificate was required."""
    text = NO_CLIENT_CERTIFICATE.format(who=who_sent(hello), host=host, route=route)
    return "unasked", text


def silent_after_handshake(
    host: str,
    hello: ClientHello | None = None,
    version: str = "",
    presented: Presented = USUAL,
    *,
    said_goodbye: bool = False,
) -> tuple[str, str]:
    """The reason and the sentence for a client that closed right after a successful handshake.

    Such a client `said_goodbye` where it has ended TLS too, by close_notify.
    """
    if hello is not None and hello.alpn and not {*hello.alpn} & {"h2", "http/1.1"}:
        offered = " and ".join(hello.alpn)
        remedy = server_of(offered, host)
        text = NO_COMMON_PROTOCOL.format(who=who_sent(hello), offered=offered, remedy=remedy)
        return "alpn", text
    if not presented.is_bad and is_probe(hello, version, said_goodbye=said_goodbye):
        return "probe", PROBE.format(who=who_sent(hello), host=host)
    return left_after_handshake(host, hello, version, presented)


def is_probe(hello: ClientHello | None, version: str, *, said_goodbye: bool) -> bool:
    """Whether a client that closed right after the handshake has looked whether TLS is spoken, and wanted no more.

    One that rejects the certificate only then closes the TCP connection alone where it uses OpenSSL: curl, Node.js and
    wget do. With other libraries it may end TLS too: curl with GnuTLS before 8.9, and Java programs that pin.
    Python's `ssl.get_server_certificate` ends TCP alone; it offers no protocol, and its library has had no objection
    by then.
    """
    if said_goodbye and is_by(hello, ("OpenSSL",)):
        return True
    return hello is not None and not hello.alpn and is_by(hello, verifying_within(version))


def broken_after_handshake(
    error: OSError, host: str, hello: ClientHello | None, version: str, presented: Presented
) -> tuple[str, str]:
    """The reason and the sentence for an error of the first read after a successful handshake.

    A library that verifies within the handshake has accepted a bad certificate by then, whether it resets or closes.
    """
    if presented.is_bad and has_broken_off(error):
        return left_after_handshake(host, hello, version, presented)
    return broken_handshake(error, host, hello, None, presented)


def left_after_handshake(
    host: str, hello: ClientHello | None, version: str, presented: Presented
) -> tuple[str, str]:
    """The client's protocol was agreed on."""
    if rejects_late(presented, hello):
        how = "it closed right after the handshake, without an alert and without a request"
        return rejected(LIKELY_REJECTED, host, hello, presented, how)
    return broken_off(host, hello, "right after the handshake", verifying_within(version))


def verifying_within(version: str) -> tuple[str, ...]:
    return VERIFY_WITHIN if version != "TLSv1.3" else VERIFY_WITHIN_TLS_1_3


def rejects_late(presented: Presented, hello: ClientHello | None) -> bool:
    """Whether a client that closed right after the handshake has rejected the certificate of it.

    Where its library verifies within the handshake, the name alone may be compared afterwards. An old version of TLS
    was agreed on, and so was not rejected.
    """
    if presented.certificate is None:
        return False
    return presented.certificate == "wrong-host" or not is_by(hello, VERIFY_WITHIN)


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
    library = library_of(hello) if hello is not None else None
    return ADVICE.get(library or "", PINNED)
