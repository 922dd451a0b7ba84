"""`Authority`: the CA that targets trust, and the TLS context with a leaf certificate for each name they ask for.

This module never touches a socket. The latest contexts are cached: making one takes about half a millisecond.

Threads: each connection's own asks for a context. The lock guards which there are; no other is taken while it is held.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import ipaddress
import ssl
import threading
from typing import TYPE_CHECKING, Final

from pytest_egress.gateway.raw_socket import RawTlsSocket
from pytest_egress.traffic.clienthello import X25519, parse_client_hello

if TYPE_CHECKING:
    import trustme
    from cryptography import x509

MAX_CONTEXTS: Final = 4096  # 26 KB each
HTTP1_ALONE: Final = ("http/1.1",)
"""What ALPN offers where no requests are read: a raw handler would otherwise get HTTP/2."""

ALPN: Final = ("h2", *HTTP1_ALONE)
"""What ALPN offers where requests are read."""

# The validity of trustme's own certificates: a target's clock may be years off.
NOT_BEFORE: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
NOT_AFTER: Final = datetime.datetime(2038, 1, 1, tzinfo=datetime.timezone.utc)


def load_cryptography_unfrozen() -> None:
    """Load cryptography while `datetime.datetime` is the real class.

    It keeps the class that it sees first; with freezegun's, no certificate can be made afterwards.

    Raises:
        RuntimeError: It has seen freezegun's.
    """
    import trustme

    seen = datetime.datetime
    datetime.datetime = next(each for each in seen.__mro__ if type(each) is type)  # type: ignore[assignment,misc]
    try:
        trustme.CA()
    except TypeError as error:
        raise RuntimeError(
            f"no certificate can be made: {error}\n"
            "cryptography was first used while freezegun had replaced the class of dates, and takes no other since. "
            "Let it see a real one before: put `import trustme; trustme.CA()` into conftest.py."
        ) from None
    finally:
        datetime.datetime = seen  # type: ignore[misc]


class Authority:
    """Issues a leaf certificate for whatever host a target asks for.

    Args:
        ca: The CA that the targets trust.
    """

    def __init__(self, ca: trustme.CA) -> None:
        self.ca: Final = ca
        self._contexts: dict[tuple[str, str | None, tuple[str, ...], bool], ssl.SSLContext] = {}
        self._lock = threading.Lock()  # guards `_contexts`; no other lock is acquired under it

    @property
    def ca_pem(self) -> bytes:
        """The CA's certificate in PEM."""
        return self.ca.cert_pem.bytes()

    @functools.cached_property
    def ca_subject(self) -> bytes:
        """The CA's subject in DER (RFC 5280 section 4.1.2.6)."""
        from cryptography import x509

        return x509.load_pem_x509_certificate(self.ca_pem).subject.public_bytes()

    def context(
        self,
        host: str,
        client_certificate: str | None = None,
        alpn: tuple[str, ...] = ALPN,
        *,
        x25519: bool = False,
    ) -> ssl.SSLContext:
        """The TLS context of a server whose leaf certificate is for this name or IP address.

        Args:
            client_certificate: "request" or "require" a client certificate that this CA has issued; None for neither.
            alpn: The protocols that are offered, the preferred one first; none for a server without ALPN.
            x25519: Whether the client has sent a key share of X25519. Where that is cheaper, no other group is used.
        """
        key = host, client_certificate, alpn, x25519 and x25519_is_cheaper()
        context = self._contexts.get(key)
        if context is None:
            with self._lock:
                context = self._contexts.get(key) or self._new_context(*key)
                self._contexts[key] = context
                if len(self._contexts) > MAX_CONTEXTS:
                    del self._contexts[next(iter(self._contexts))]
        return context

    def _new_context(
        self, host: str, client_certificate: str | None, alpn: tuple[str, ...], x25519: bool
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if x25519:
            context.set_ecdh_curve("X25519")
        context.sslsocket_class = RawTlsSocket
        issue(self.ca, host).configure_cert(context)
        # No session tickets: they cost time, and without them a client that distrusts the CA says so within the
        # handshake.
        context.num_tickets = 0
        if alpn:
            context.set_alpn_protocols([*alpn])
        if client_certificate is not None:
            required = client_certificate == "require"
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
            self.ca.configure_trust(context)
        return context


@functools.lru_cache(maxsize=1)
def x25519_is_cheaper() -> bool:
    """Whether this process's OpenSSL knows X25519 and prefers another group: its own ClientHello tells.

    From 3.5 on that is X25519MLKEM768, which takes a third of the server's time for a handshake.
    """
    hello, nothing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(nothing, hello, server_hostname="a")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    own = parse_client_hello(hello.read())
    return own is not None and X25519 in own.key_shares[1:]


def issue(ca: trustme.CA, host: str) -> trustme.LeafCert:
    """Issue a leaf certificate for a host, without trustme's help where that refuses the name (underscores, length)."""
    import idna

    try:
        return ca.issue_cert(host)
    except (ValueError, idna.IDNAError):
        return issue_any_name(ca, host)


def issue_any_name(ca: trustme.CA, host: str) -> trustme.LeafCert:
    """Issue a leaf certificate for a name that IDNA refuses: its DNS SAN has it verbatim (RFC 5280 section 4.2.1.6)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID
    from trustme import LeafCert

    ca_certificate = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    ca_key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca_certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(
            x509.SubjectAlternativeName([san(host)]), critical=True
        )  # no subject: RFC 5280 4.2.1.6
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_key_identifier(ca_certificate), critical=False)
        .sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]  # a CA's key can sign
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return LeafCert(private, certificate.public_bytes(pem), [])


def san(host: str) -> x509.GeneralName:
    """The subject alternative name of a host: an IP address or a DNS name."""
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def authority_key_identifier(ca_certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The leaf extension that identifies the CA's key (RFC 5280 section 4.2.1.1); Python 3.13 requires it."""
    from cryptography import x509

    key_id = ca_certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id.value)
