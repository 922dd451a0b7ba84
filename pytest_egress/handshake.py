"""Why a handshake failed, as sentences a user can act on. This module never touches a socket.

`ssl.SSLError.reason` is matched, never its text. Half of the clients that distrust us send no alert at all: those
are called "likely".
"""

from __future__ import annotations

import errno
from typing import Final

DISTRUST: Final = ("untrusted", "likely-untrusted")
UNTRUSTED: Final = (
    "the target does not trust the CA of this run for {host!r} (alert: {alert}). The CA is in the image's bundle, and "
    "SSL_CERT_FILE and its like lead to it; a client that pins certificates or brings its own roots ignores them: give "
    "it /etc/pytest-egress/bundle.pem"
)
LIKELY_UNTRUSTED: Final = (
    "the target broke off {when}, with no alert: likely it does not trust the CA of this run for {host!r}. A client "
    "that pins certificates or brings its own roots ignores the image's bundle: give it /etc/pytest-egress/bundle.pem"
)
NO_CLIENT_CERTIFICATE: Final = (
    "the target sent no client certificate, and the route of {host!r} requires one: give it one of "
    "egress_ca.issue_cert(...) with files="
)
FOREIGN_CLIENT_CERTIFICATE: Final = (
    "the client certificate that the target sent to {host!r} does not hold ({why}): it has to be one of "
    "egress_ca.issue_cert(...)"
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


def broken_handshake(error: OSError, host: str) -> tuple[str, str]:
    """A short reason and a sentence for a handshake that raised.

    Args:
        error: What `SSLSocket.do_handshake`, or the first read after it, raised.
        host: The name the client asked for.
    """
    reason = getattr(error, "reason", None)
    if reason in ALERTS_OF_DISTRUST:
        return "untrusted", UNTRUSTED.format(host=host, alert=ALERTS_OF_DISTRUST[reason])
    if reason == "UNEXPECTED_EOF_WHILE_READING" or error.errno in BROKEN_OFF:
        return "likely-untrusted", LIKELY_UNTRUSTED.format(host=host, when="within the handshake")
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "client-certificate", NO_CLIENT_CERTIFICATE.format(host=host)
    if reason == "CERTIFICATE_VERIFY_FAILED":
        why = getattr(error, "verify_message", "") or reason
        return "client-certificate", FOREIGN_CLIENT_CERTIFICATE.format(host=host, why=why)
    if reason in PROTOCOL_REASONS:
        return (
            "protocol",
            f"no TLS connection could be made for {host!r}: {PROTOCOL_REASONS[reason]}",
        )
    if isinstance(error, TimeoutError):
        return "timeout", f"the handshake for {host!r} did not end in time"
    return "handshake", f"the handshake for {host!r} failed: {reason or error}"


def silent_after_handshake(host: str) -> tuple[str, str]:
    """The same for a client that closed right after a handshake that succeeded."""
    return "likely-untrusted", LIKELY_UNTRUSTED.format(host=host, when="right after the handshake")
