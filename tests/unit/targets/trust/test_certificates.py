"""Bundles, keystores and hashed names, against trustme, `cryptography` and the `openssl` command."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    pkcs12,
)
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

import pytest_egress.targets.trust.certificates as module
from pytest_egress.gateway.tls.leaves import NOT_AFTER, NOT_BEFORE
from pytest_egress.targets.trust.certificates import (
    JKS_MAGIC,
    append,
    extend_java_keystore,
    from_java_keystore,
    from_pem,
    hashed_name,
    java_keystore,
    merge,
    to_pem,
)

CAS = [trustme.CA() for _ in range(3)]
PEMS = [ca.cert_pem.bytes() for ca in CAS]
DERS = [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in PEMS]


# PEM.


@pytest.mark.parametrize(
    ("bundle", "appended"),
    [(b"", b"pem\n"), (b"roots\n", b"roots\npem\n"), (b"roots", b"roots\npem\n")],
    ids=["empty", "whole", "without-line-feed"],
)
def test_what_is_appended_begins_a_line(bundle: bytes, appended: bytes) -> None:
    assert append(bundle, b"pem\n") == appended


def test_a_bundle_gives_its_certificates_each_once_and_in_order() -> None:
    first, second, third = PEMS
    bundle = (
        b"# First\n" + first + b"\nSecond: \xff\n====\n" + second + first + b"# Third\n" + third
    )
    assert from_pem(bundle) == DERS
    assert from_pem(bundle.replace(b"\n", b"\r\n")) == DERS


def test_what_is_no_certificate_is_left_out_of_a_bundle() -> None:
    def block(content: bytes, kind: bytes = b"CERTIFICATE") -> bytes:
        return b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (kind, content, kind)

    cut = PEMS[1].splitlines()[1]
    spoiled = [block(b"!!!!"), block(b"AAA"), block(b""), block(b"AAAA"), block(cut)]
    bundle = b"".join([PEMS[0], *spoiled, block(cut, b"PRIVATE KEY"), PEMS[2]])
    assert from_pem(bundle) == [DERS[0], DERS[2]]
    torn = PEMS[1].partition(b"-----END")[0]
    assert from_pem(torn + PEMS[2]) == [DERS[2]]


def test_openssls_own_kinds_of_certificate_are_read_without_what_it_adds_to_them() -> None:
    trusted = to_pem(DERS[0] + bytes.fromhex("300a0c0845616d706c652020"))
    trusted = trusted.replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE")
    old = PEMS[1].replace(b" CERTIFICATE", b" X509 CERTIFICATE")
    assert from_pem(trusted + old) == DERS[:2]


@given(st.binary())
def test_any_bytes_are_a_bundle(data: bytes) -> None:
    assert from_pem(data) == []
    block = b"-----BEGIN CERTIFICATE-----" + data + b"-----END CERTIFICATE-----"
    assert from_pem(block + b"\n" + PEMS[0])[-1:] in ([DERS[0]], [])
    assert append(data, PEMS[0]).endswith(PEMS[0])


@given(st.binary(max_size=300))
def test_a_certificate_in_pem_is_read_back(content: bytes) -> None:
    size = len(content)
    der = bytes.fromhex("3082") + size.to_bytes(2, "big") + content
    pem = to_pem(der)
    assert from_pem(pem) == [der]
    assert max(map(len, pem.splitlines())) <= 64


def test_bundles_are_merged_into_the_first() -> None:
    first, second, third = PEMS
    assert merge([]) == b""
    assert merge([b"# As it is" + first]) == b"# As it is" + first
    assert merge([first, first + b"# Again\n"]) == first
    merged = merge([b"# Mine\n" + first.rstrip(), second + first, third + second])
    assert merged.startswith(b"# Mine\n" + first)
    assert from_pem(merged) == DERS


# Java keystores.


def test_a_keystore_gives_back_its_certificates() -> None:
    assert from_java_keystore(java_keystore(DERS)) == DERS
    assert from_java_keystore(java_keystore([])) == []


@given(st.lists(st.binary()))
def test_a_keystore_holds_any_bytes_as_they_are(entries: list[bytes]) -> None:
    assert from_java_keystore(java_keystore(entries)) == entries


PKCS12 = pkcs12.serialize_java_truststore(
    [pkcs12.PKCS12Certificate(x509.load_der_x509_certificate(DERS[0]), None)], NoEncryption()
)
JDK = PKCS12[:2] + (len(PKCS12) - 4 - 67).to_bytes(2, "big") + PKCS12[4:-67]  # without a seal


PKCS12_SEALS: dict[str, KeySerializationEncryption] = {
    "changeit": BestAvailableEncryption(b"changeit"),
    "no-password": NoEncryption(),
}


@pytest.mark.parametrize("seal", PKCS12_SEALS.values(), ids=PKCS12_SEALS)
def test_a_keystore_of_pkcs_12_is_read(seal: KeySerializationEncryption) -> None:
    entries = [
        pkcs12.PKCS12Certificate(x509.load_der_x509_certificate(der), f"root-{number}".encode())
        for number, der in enumerate(DERS)
    ]
    assert from_java_keystore(pkcs12.serialize_java_truststore(entries, seal)) == DERS


def test_a_keystore_with_another_password_is_refused() -> None:
    entry = pkcs12.PKCS12Certificate(x509.load_der_x509_certificate(DERS[0]), None)
    sealed = pkcs12.serialize_java_truststore([entry], BestAvailableEncryption(b"other"))
    with pytest.raises(
        ValueError, match="neither a Java keystore nor one of PKCS #12 that can be read"
    ):
        from_java_keystore(sealed)


def encrypted() -> bytes:
    """A PKCS #12 with a key, encrypted."""
    key, password = ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"changeit")
    return pkcs12.serialize_key_and_certificates(b"key", key, None, None, password)


def sealed(rounds: int) -> bytes:
    """A PKCS #12 without encryption whose seal has so many rounds, of four bytes in place of two."""
    store = bytearray(PKCS12)
    at = store.rindex(b"\x02\x02\x08\x00")
    store[at:] = b"\x02\x04" + rounds.to_bytes(4, "big")
    store[2:4] = (int.from_bytes(store[2:4], "big") + 2).to_bytes(2, "big")
    store[store.rindex(b"\x30\x41\x30\x31") + 1] += 2
    return bytes(store)


@pytest.mark.parametrize(
    ("store", "seconds"),
    [(sealed(0x7FFFFFFF), 1), (encrypted(), 0.01)],
    ids=["2 ** 31 rounds", "a process takes longer"],
)
def test_a_keystore_that_takes_too_long_is_left(
    store: bytes, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", seconds)
    with pytest.raises(ValueError, match=f"cannot be read within {seconds} s: its password is ha"):
        from_java_keystore(store)


def test_a_keystore_that_is_not_encrypted_takes_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_java_keystore(encrypted()) == []
    monkeypatch.delattr(subprocess, "run")
    assert from_java_keystore(PKCS12) == DERS[:1]
    assert from_java_keystore(JDK) == DERS[:1]
    with pytest.raises(AttributeError):
        from_java_keystore(encrypted())


@pytest.mark.parametrize(
    ("start", "error"),
    [
        ("00000002 00000001 00000001", "a Java keystore with private keys is no truststore"),
        ("00000001 00000000", "a Java keystore of an unknown version"),
        ("00000002 ffffffff", "a Java keystore that is cut off"),
        ("0000", "a Java keystore that is cut off"),
    ],
    ids=["private-key", "version", "entries-missing", "head-missing"],
)
def test_a_keystore_of_which_no_roots_can_be_read_is_refused(start: str, error: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_java_keystore(JKS_MAGIC + bytes.fromhex(start))
    assert str(caught.value) == error


def test_a_keystore_that_is_cut_anywhere_is_refused() -> None:
    whole = java_keystore(DERS[:2])
    for size in range(len(whole) - 20):  # what is sealed; the seal itself is not looked at
        with pytest.raises(ValueError):
            from_java_keystore(whole[:size])


def accepted(data: bytes) -> bool:
    """Whether it is a keystore; whatever else than a list or a ValueError comes fails the test."""
    try:
        found = from_java_keystore(data)
    except ValueError:
        return False
    return all(isinstance(der, bytes) for der in found)


def test_a_keystore_that_is_not_quite_der_is_read_without_a_warning() -> None:
    assert from_java_keystore(PKCS12 + b"\0") == DERS[:1]


@given(st.binary())
@example(b"")
def test_any_bytes_are_a_keystore_or_a_value_error(data: bytes) -> None:
    assert not accepted(data)
    accepted(JKS_MAGIC + data)
    accepted(JKS_MAGIC + bytes.fromhex("00000002") + data)


@pytest.mark.parametrize("whole", [java_keystore(DERS), PKCS12], ids=["jks", "pkcs12"])
@given(data=st.data())
def test_a_damaged_keystore_is_a_keystore_or_a_value_error(
    whole: bytes, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(whole) - 1))
    piece = data.draw(st.binary(max_size=8))
    accepted(whole[:position] + piece + whole[position + len(piece) :])
    accepted(whole[:position] + piece + whole[position:])
    assert accepted(whole)


# OpenSSL's names of files.


def certificate(subject: x509.Name) -> bytes:
    """A certificate with this subject, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, NOT_BEFORE, NOT_AFTER)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def by_openssl(pem: bytes) -> str:
    """What `openssl rehash` would call a CA."""
    command = ["openssl", "x509", "-noout", "-hash"]
    return (
        subprocess.run(command, input=pem, stdout=subprocess.PIPE, check=True)
        .stdout.decode()
        .strip()
    )


def text(value: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.COMMON_NAME, value, _type=kind)


def organisation(value: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.ORGANIZATION_NAME, value)


def street(value: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.STREET_ADDRESS, value)


RDN = x509.RelativeDistinguishedName
NAMES: dict[str, x509.Name] = {
    "empty": x509.Name([]),
    "upper-case": x509.Name([text("ACME Root CA")]),
    "white-space": x509.Name([text("  Acme \t Root\n  CA  ")]),
    "only-white-space": x509.Name([text("   ")]),
    "other-scripts": x509.Name([text("Ünïcode ÅÉÎ ΣΊΣΥΦΟΣ İstanbul \N{NO-BREAK SPACE} 中文")]),
    "no-break-space-at-an-end": x509.Name([text("\N{NO-BREAK SPACE}Acme\N{EM SPACE}")]),
    "bmp": x509.Name([text("Büro 中文 CA", _ASN1Type.BMPString)]),
    "universal": x509.Name([text("Büro 中文 \N{GRINNING FACE}", _ASN1Type.UniversalString)]),
    "t61": x509.Name([text("Acme  CA", _ASN1Type.T61String)]),
    "ia5": x509.Name([text("ca@Example.TEST", _ASN1Type.IA5String)]),
    "printable": x509.Name([text("Acme CA", _ASN1Type.PrintableString)]),
    "numeric": x509.Name([text("12  34", _ASN1Type.NumericString)]),
    "several-in-one": x509.Name([RDN([organisation("Acme"), text("ROOT")]), RDN([text("CA")])]),
    "several-whose-order-changes": x509.Name([RDN([text("B  b  b  b"), text("a b c d e")])]),
    "long": x509.Name([street("Long " * 30), street("Longer " * 60), street("x" * 70_000)]),
}


def subject_of(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).subject.public_bytes()


@pytest.mark.parametrize("subject", NAMES.values(), ids=NAMES)
def test_a_name_is_hashed_as_openssl_does(subject: x509.Name) -> None:
    pem = certificate(subject)
    assert hashed_name(subject_of(pem)) == by_openssl(pem)


MAKERS: dict[str, Callable[[], trustme.CA]] = {
    "plain": trustme.CA,
    "named": lambda: trustme.CA(organization_name="Acme  & SÖHNE", organization_unit_name="QA"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_name_of_a_ca_of_trustmes_is_hashed_as_openssl_does(
    make: Callable[[], trustme.CA],
) -> None:
    pem = make().cert_pem.bytes()
    assert hashed_name(subject_of(pem)) == by_openssl(pem)


def test_a_keystore_is_extended_and_keeps_its_names() -> None:
    first, second = (from_pem(trustme.CA().cert_pem.bytes())[0] for _ in range(2))
    before = java_keystore([first])
    extended = extend_java_keystore(before, second)
    assert from_java_keystore(extended) == [first, second]
    assert extended.count(b"root-0") == 1
    assert extend_java_keystore(java_keystore([]), first)[12:].startswith(b"\0\0\0\2")
    assert extended[-20:] != before[-20:]
