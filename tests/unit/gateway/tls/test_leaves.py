"""Leaf certificates with one fault: what OpenSSL says about each, and that the rest of it is in order."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import warnings

import pytest
import trustme
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from pytest_egress.gateway.tls.authority import ALPN, Authority, check_tls_version
from pytest_egress.gateway.tls.leaves import Issuer, Leaves, make_leaf, san
from pytest_egress.routes.certificates import (
    BAD_CERTIFICATES,
    TLS_VERSIONS,
    BadCertificate,
    Presented,
    TlsVersion,
)
from tests.support.stage import SECONDS, client_context

OPENSSL_SAYS: dict[BadCertificate, str] = {
    "expired": "certificate has expired",
    "not-yet-valid": "certificate is not yet valid",
    "wrong-host": "Hostname mismatch, certificate is not valid for 'api.test'.",
    "self-signed": "self-signed certificate",
    "untrusted-root": "unable to get local issuer certificate",
    "incomplete-chain": "unable to get local issuer certificate",
    "wrong-purpose": "unsuitable certificate purpose",
    "weak-key": "EE certificate key too weak",
}


def agreed(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "api.test") -> str | None:
    """The version that a handshake over a pair of sockets agrees on.

    Raises:
        ssl.SSLError: The client's.
    """
    ours, theirs = socket.socketpair()
    theirs.settimeout(SECONDS)

    def serve() -> None:
        with contextlib.suppress(OSError), server.wrap_socket(ours, server_side=True) as tls:
            tls.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=host) as tls:
            return tls.version()
    finally:
        theirs.close()
        thread.join()
        ours.close()


@pytest.fixture(scope="module")
def authority(ca: trustme.CA) -> Authority:
    return Authority(ca)


@pytest.mark.parametrize("certificate", BAD_CERTIFICATES)
def test_each_bad_certificate_has_the_fault_that_it_is_named_after(
    authority: Authority, certificate: BadCertificate
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        agreed(
            authority.context("api.test", presented=Presented(certificate)),
            client_context(authority.ca),
        )
    assert caught.value.verify_message == OPENSSL_SAYS[certificate]


HOSTS = [
    "api.test",
    "192.0.2.7",
    "2001:db8::7",
    "a_b.test",
    "xn--bcher-kva.test",
    f"{'a' * 63}.{'b' * 63}.test",
]


def certificates(leaf: trustme.LeafCert) -> list[x509.Certificate]:
    """The certificates that a handshake shows, the leaf first."""
    return [x509.load_pem_x509_certificate(pem.bytes()) for pem in leaf.cert_chain_pems]


@pytest.mark.parametrize("host", [host for host in HOSTS if "_" not in host])
@pytest.mark.parametrize("depth", [0, 2])
def test_a_good_certificate_satisfies_a_verifier_that_takes_the_rules_at_their_word(
    ca: trustme.CA, host: str, depth: int
) -> None:
    """Those of RFC 5280. Most TLS libraries overlook what breaks them."""
    issuer = ca
    for _ in range(depth):
        issuer = issuer.create_child_ca()
    leaf, *chain = certificates(Leaves(issuer).good(host))
    root = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    verifier = PolicyBuilder().store(Store([root])).build_server_verifier(san(host))
    assert [each.subject for each in verifier.verify(leaf, chain)] == [
        each.subject for each in (leaf, *chain, root)
    ]


def test_a_good_certificate_is_a_servers_and_nothing_else(ca: trustme.CA) -> None:
    (leaf,) = certificates(Leaves(ca).good("api.test"))
    (trustmes,) = certificates(ca.issue_cert("api.test"))
    found = {extension.oid._name: extension for extension in leaf.extensions}
    assert {name for name, extension in found.items() if extension.critical} == {
        "basicConstraints",
        "keyUsage",
    }
    assert [*leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value] == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment) == (True, False)
    dates = (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    assert dates == (trustmes.not_valid_before_utc, trustmes.not_valid_after_utc)


@pytest.mark.parametrize("certificate", BAD_CERTIFICATES)
def test_a_bad_certificate_has_no_other_extensions_than_a_good_one(
    ca: trustme.CA, certificate: BadCertificate
) -> None:
    leaves = Leaves(ca)
    bad, good = (
        {(each.oid, each.critical) for each in certificates(leaf)[0].extensions}
        for leaf in (leaves.bad("api.test", certificate), leaves.good("api.test"))
    )
    assert bad == good


def test_a_chain_that_is_not_the_fault_is_whole(ca: trustme.CA) -> None:
    leaves = Leaves(ca.create_child_ca())
    lengths = {
        fault: len(certificates(leaves.bad("api.test", fault))) for fault in BAD_CERTIFICATES
    }
    shown = {"self-signed": 1, "untrusted-root": 1, "incomplete-chain": 1}
    assert lengths == dict.fromkeys(BAD_CERTIFICATES, 2) | shown


@pytest.mark.parametrize("host", HOSTS)
def test_apart_from_its_fault_such_a_certificate_is_accepted(ca: trustme.CA, host: str) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    make_leaf(host, Issuer.of(ca)).configure_cert(server)
    assert agreed(server, client_context(ca), host) == "TLSv1.3"


@pytest.mark.parametrize("certificate", BAD_CERTIFICATES)
@pytest.mark.parametrize("version", [None, "TLSv1.2"])
def test_a_client_that_verifies_nothing_gets_a_connection(
    authority: Authority, certificate: BadCertificate, version: TlsVersion | None
) -> None:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    context = authority.context("api.test", presented=Presented(certificate, version))
    assert agreed(context, careless) == version or "TLSv1.3"


def test_the_context_of_a_good_certificate_is_no_bad_ones(authority: Authority) -> None:
    bad = authority.context("api.test", None, ALPN, Presented("expired"))
    good = authority.context("api.test")
    assert bad is not good
    assert bad is authority.context("api.test", presented=Presented("expired"))
    assert agreed(good, client_context(authority.ca)) == "TLSv1.3"


def test_an_intermediate_that_is_not_sent_would_make_the_chain_whole(ca: trustme.CA) -> None:
    intermediate = ca.create_child_ca()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    make_leaf("api.test", Issuer.of(intermediate)).configure_cert(server)
    client = client_context(ca)
    client.load_verify_locations(cadata=intermediate.cert_pem.bytes().decode())
    assert agreed(server, client) == "TLSv1.3"


def test_a_frozen_clock_changes_no_date(ca: trustme.CA) -> None:
    freezegun = pytest.importorskip("freezegun")
    with freezegun.freeze_time("2014-06-01"):
        leaf = Leaves(ca).bad("api.test", "expired")
    certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    assert certificate.not_valid_after_utc.year == 2015


# Versions of TLS.


def any_version(ca: trustme.CA) -> ssl.SSLContext:
    """A client of every version that there is."""
    client = client_context(ca)
    client.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = ssl.TLSVersion.TLSv1
    return client


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_a_version_is_spoken_alone(authority: Authority, version: TlsVersion) -> None:
    context = authority.context("api.test", presented=Presented(None, version))
    assert agreed(context, any_version(authority.ca)) == version


def test_an_old_version_warns_nobody(ca: trustme.CA) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Authority(ca).context("api.test", presented=Presented(None, "TLSv1"))


def test_a_version_that_openssl_is_built_without_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_tls_version("TLSv1.1")
    monkeypatch.setattr(ssl, "HAS_TLSv1", False)
    monkeypatch.setattr(ssl, "HAS_TLSv1_1", False)
    with pytest.raises(ValueError, match=r"it has 'TLSv1\.2' or 'TLSv1\.3'") as caught:
        check_tls_version("TLSv1.1")
    text = (
        f"tls_version='TLSv1.1': {ssl.OPENSSL_VERSION}, which this Python uses, is built without it"
    )
    assert str(caught.value).startswith(text)
