"""Makes leaf certificates: good ones for any host, and those with one fault, for `certificate=`.

All are made alike, so that a bad certificate differs from a good one by its fault alone, and a client that rejects it
rejects that. A good one is a server's by RFC 5280, and nothing else: strict verifiers refuse what
`trustme.CA.issue_cert` makes, which is for clients and for code too. No clock is read: dates are fixed, so that a test
which freezes time gets the same certificates. This module never touches a socket, and loads cryptography where it makes
a certificate.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pytest_egress.routes.certificates import WRONG_HOST, BadCertificate

if TYPE_CHECKING:
    import trustme
    from cryptography import x509

# The validity of trustme's own certificates: a target's clock may be years off.
NOT_BEFORE: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
NOT_AFTER: Final = datetime.datetime(3000, 1, 1, tzinfo=datetime.timezone.utc)

EXPIRED_AT: Final = datetime.datetime(2015, 1, 1, tzinfo=datetime.timezone.utc)
VALID_FROM: Final = datetime.datetime(2037, 1, 1, tzinfo=datetime.timezone.utc)
DATES: Final = {
    "expired": (NOT_BEFORE, EXPIRED_AT),
    "not-yet-valid": (VALID_FROM, NOT_AFTER),
}
"""The validity of the certificates whose dates are their fault."""

WEAK_BITS: Final = 1024  # OpenSSL's default security level takes RSA from 2048 bits on (SSL_CTX_set_security_level(3))


@dataclass(frozen=True)
class Issuer:
    """What signs a leaf certificate: the certificate of a CA, and its private key.

    Attributes:
        chain: Certificates in PEM that lead from the leaf to the root, which a handshake shows too; none of a root.
    """

    certificate: x509.Certificate
    key: Any
    chain: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, ca: trustme.CA) -> Issuer:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        certificate = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
        key = load_pem_private_key(ca.private_key_pem.bytes(), None)
        chain, above = [], ca
        while above.parent_cert is not None:
            chain.append(above.cert_pem.bytes())
            above = above.parent_cert
        return cls(certificate, key, tuple(chain))


class Leaves:
    """Makes leaf certificates: good ones, and those of `certificate=`."""

    def __init__(self, ca: trustme.CA) -> None:
        self._ca: Final = ca

    @cached_property
    def _known(self) -> Issuer:
        return Issuer.of(self._ca)

    @cached_property
    def _unknown(self) -> Issuer:
        """A root that no target trusts."""
        from trustme import CA

        return Issuer.of(CA())

    @cached_property
    def _intermediate(self) -> Issuer:
        """An intermediate CA that the CA of the run has issued, and that no handshake shows."""
        return replace(Issuer.of(self._ca.create_child_ca()), chain=())

    def _issuer(self, fault: BadCertificate) -> Issuer | None:
        if fault == "untrusted-root":
            return self._unknown
        if fault == "incomplete-chain":
            return self._intermediate
        return None if fault == "self-signed" else self._known

    def good(self, host: str) -> trustme.LeafCert:
        """The host's name may be one that trustme refuses (underscores, length)."""
        return make_leaf(host, self._known)

    def bad(self, host: str, fault: BadCertificate) -> trustme.LeafCert:
        return make_leaf(
            WRONG_HOST if fault == "wrong-host" else host,
            self._issuer(fault),
            dates=DATES.get(fault, (NOT_BEFORE, NOT_AFTER)),
            for_clients=fault == "wrong-purpose",
            weak_bits=WEAK_BITS if fault == "weak-key" else None,
        )


def make_leaf(
    host: str,
    issuer: Issuer | None,
    *,
    dates: tuple[datetime.datetime, datetime.datetime] = (NOT_BEFORE, NOT_AFTER),
    for_clients: bool = False,
    weak_bits: int | None = None,
) -> trustme.LeafCert:
    """Make a leaf certificate for a name or an IP address.

    Args:
        issuer: The CA that signs it; None for a self-signed one.
        for_clients: Whether it is for TLS clients and not for servers (RFC 5280 section 4.2.1.12).
        weak_bits: The length of an RSA key; None for a key on P-256.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    from trustme import LeafCert

    key: Any = ec.generate_private_key(ec.SECP256R1())
    if weak_bits is not None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=weak_bits)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pytest-egress")])
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if for_clients else ExtendedKeyUsageOID.SERVER_AUTH
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer_id = own_id if issuer is None else key_identifier(issuer.certificate)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
        .add_extension(x509.SubjectAlternativeName([san(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(enciphers=weak_bits is not None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(own_id, critical=False)
        .add_extension(authority_key_identifier(issuer_id), critical=False)
        .sign(key if issuer is None else issuer.key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = [] if issuer is None else [*issuer.chain]
    return LeafCert(private, certificate.public_bytes(pem), chain)


def key_usage(*, enciphers: bool) -> x509.KeyUsage:
    """The key of a server signs in handshakes (RFC 5280 section 4.2.1.3).

    By RSA, TLS before 1.3 can encrypt keys too. A key on a curve cannot (RFC 5480 section 3).
    """
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=enciphers,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def san(host: str) -> x509.DNSName | x509.IPAddress:
    """The subject alternative name of a host: an IP address, or a DNS name, verbatim (RFC 5280 section 4.2.1.6)."""
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def key_identifier(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    from cryptography import x509

    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def authority_key_identifier(issuer_id: x509.SubjectKeyIdentifier) -> x509.AuthorityKeyIdentifier:
    """The leaf extension that identifies the CA's key (RFC 5280 section 4.2.1.1); Python 3.13 requires it."""
    from cryptography import x509

    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id)
