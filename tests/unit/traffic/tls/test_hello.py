"""Real hellos from OpenSSL in memory, cut at every byte; hellos by hand; and garbage."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_egress.errors import ClientHelloError
from pytest_egress.traffic.tls.clients import library_of
from pytest_egress.traffic.tls.hello import (
    MAX_HELLO_BYTES,
    X25519,
    ClientHello,
    bytes_needed,
    parse_client_hello,
)

TLS_1_2, TLS_1_3 = 0x0303, 0x0304
SERVER_NAME, ALPN, SUPPORTED_VERSIONS, KEY_SHARE = 0, 16, 43, 51


def openssl_hello(
    sni: str | None = "api.example.com",
    alpn: Sequence[str] = (),
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.maximum_version = maximum
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=sni)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLO = openssl_hello(alpn=["h2", "http/1.1"])
PADDED_HELLO = openssl_hello(alpn=[f"{number:0>200}" for number in range(100)])


def record(fragment: bytes, *, kind: int = 22, major: int = 3) -> bytes:
    return bytes([kind, major, 1]) + len(fragment).to_bytes(2, "big") + fragment


def vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, content)


def message(body: bytes, *, kind: int = 1) -> bytes:
    return bytes([kind]) + vector(3, body)


def body(after_compression: bytes) -> bytes:
    return (
        b"\x03\x03"
        + bytes(32)
        + b"\x00"
        + vector(2, b"\x13\x01\xc0\x2f")
        + b"\x01\x00"
        + (after_compression)
    )


def hello(*extensions: bytes) -> bytes:
    return record(message(body(vector(2, b"".join(extensions)))))


def server_name(name: bytes, *, kind: int = 0) -> bytes:
    return extension(SERVER_NAME, vector(2, bytes([kind]) + vector(2, name)))


def parsed(data: bytes) -> ClientHello:
    client_hello = parse_client_hello(data)
    assert client_hello is not None
    return client_hello


def waits(data: bytes) -> list[int]:
    """What `bytes_needed` asks for, when each time exactly so many bytes arrive."""
    asked = []
    have = 0
    while needed := bytes_needed(data[:have]):
        assert have < needed <= len(data)
        have = needed
        asked.append(needed)
    return asked


# What a client asked for


def test_a_hello_tells_name_protocols_versions_and_suites() -> None:
    client_hello = parsed(HELLO)
    assert client_hello.sni == "api.example.com"
    assert client_hello.alpn == ("h2", "http/1.1")
    assert client_hello.versions == (TLS_1_3, TLS_1_2)
    assert {0x1301, 0x1302, 0xC02F} <= set(client_hello.cipher_suites)
    assert {SERVER_NAME, ALPN, SUPPORTED_VERSIONS} <= set(client_hello.extensions)
    assert X25519 in client_hello.groups
    assert X25519 in client_hello.key_shares


@pytest.mark.parametrize(
    ("shares", "groups"),
    [
        ("", ()),
        ("0000", ()),
        ("0006 001d 0002 abcd", (29,)),
        ("000d 0a0a 0001 00 001d 0004 abcdabcd", (0x0A0A, 29)),
        ("0006 001d 0002 ab", (29,)),  # OpenSSL says what is wrong
        ("0006 001d 00", ()),
    ],
)
def test_key_shares_are_read_as_far_as_they_go(shares: str, groups: tuple[int, ...]) -> None:
    data = hello(extension(KEY_SHARE, bytes.fromhex(shares)))
    assert parsed(data).key_shares == groups


def test_a_client_without_a_name_or_protocols_has_none() -> None:
    client_hello = parsed(openssl_hello(sni=None))
    assert (client_hello.sni, client_hello.alpn) == (None, ())


def test_a_client_of_tls_1_2_offers_its_legacy_version() -> None:
    client_hello = parsed(openssl_hello(maximum=ssl.TLSVersion.TLSv1_2))
    assert client_hello.versions == (TLS_1_2,)
    assert SUPPORTED_VERSIONS not in client_hello.extensions


def test_an_internationalised_name_is_as_it_was_on_the_wire() -> None:
    assert parsed(openssl_hello(sni="münchen.test")).sni == "xn--mnchen-3ya.test"


@pytest.mark.parametrize(
    ("wire", "sni"),
    [
        (b"API.Example.com.", "API.Example.com."),
        (b"m\xc3\xbcnchen.test", "m\\xc3\\xbcnchen.test"),
        (b"nul\x00.test", "nul\x00.test"),
        (b"", ""),
    ],
)
def test_a_name_on_the_wire_is_not_normalised(wire: bytes, sni: str) -> None:
    assert parsed(hello(server_name(wire))).sni == sni


def test_protocols_beyond_ascii_are_escaped() -> None:
    grease = extension(ALPN, vector(2, vector(1, b"\xca\xca") + vector(1, b"h2")))
    assert parsed(hello(grease)).alpn == ("\\xca\\xca", "h2")


def test_a_name_of_an_unknown_type_is_no_name() -> None:
    assert parsed(hello(server_name(b"x", kind=7))).sni is None


def test_extensions_and_suites_keep_their_order() -> None:
    client_hello = parsed(hello(extension(0x5A5A, b""), server_name(b"x.test"), extension(23, b"")))
    assert client_hello.extensions == (0x5A5A, SERVER_NAME, 23)
    assert client_hello.cipher_suites == (0x1301, 0xC02F)


def test_a_hello_without_any_extensions_is_one() -> None:
    assert parsed(record(message(body(b"")))) == ClientHello(
        sni=None,
        alpn=(),
        versions=(TLS_1_2,),
        cipher_suites=(0x1301, 0xC02F),
        extensions=(),
    )


def test_bytes_after_the_hello_are_left_alone() -> None:
    assert parsed(HELLO + record(b"\x01", kind=20) + b"early data") == parsed(HELLO)
    assert bytes_needed(HELLO + b"early data") == 0


# How much to wait for


@pytest.mark.parametrize("whole", [HELLO, PADDED_HELLO], ids=["usual", "padded"])
def test_a_hello_cut_at_any_byte_asks_for_more_and_never_for_too_much(whole: bytes) -> None:
    for cut in range(len(whole)):
        assert cut < bytes_needed(whole[:cut]) <= len(whole)
        assert parse_client_hello(whole[:cut]) is None
    assert bytes_needed(whole) == 0


def test_a_hello_in_one_record_takes_three_waits() -> None:
    assert waits(HELLO) == [1, 5, len(HELLO)]


def test_a_hello_may_be_split_over_two_records_at_any_byte() -> None:
    handshake = HELLO[5:]
    for cut in range(1, len(handshake)):
        split = record(handshake[:cut]) + record(handshake[cut:])
        assert parsed(split) == parsed(HELLO)
        assert waits(split)[-1] == len(split)


def test_a_hello_may_come_in_records_of_one_byte() -> None:
    split = b"".join(record(bytes([byte])) for byte in HELLO[5:])
    assert parsed(split) == parsed(HELLO)
    assert len(waits(split)) < 60  # not one wait, and one reading of everything, for each record


def test_openssl_splits_a_hello_that_is_longer_than_a_record() -> None:
    assert len(PADDED_HELLO) > 2**14 + 10
    assert parsed(PADDED_HELLO).alpn[99] == f"{99:0>200}"


# What is no hello


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"G", "no TLS handshake: record type 71, not 22"),
        (b"\x80\x2e\x01\x00\x02", "no TLS handshake: record type 128, not 22"),
        (b"\x16\x02", "no TLS handshake: major version 2, not 3"),
        (b"\x16\x03\x01\x00\x00", "no TLS handshake: a record of 0 bytes, not 1 to 16384"),
        (b"\x16\x03\x01\x40\x01", "no TLS handshake: a record of 16385 bytes, not 1 to 16384"),
        (record(b"\x02"), "no ClientHello: handshake type 2, not 1"),
        (
            record(HELLO[5:11] + bytes(9)) + record(b"", kind=23),
            "no TLS handshake: record type 23, not 22",
        ),
        (
            record(b"\x01\x00\x80\x00"),
            "a ClientHello of 32777 bytes or more; the limit is 32768",
        ),
    ],
)
def test_what_cannot_begin_a_hello_is_refused_as_soon_as_it_is_seen(
    data: bytes, reason: str
) -> None:
    for function in (bytes_needed, parse_client_hello):
        with pytest.raises(ClientHelloError, match=f"^{reason}"):
            function(data)


def test_a_hello_of_the_longest_length_is_read_and_one_byte_more_is_not() -> None:
    def padded(length: int) -> bytes:
        whole = message(body(vector(2, extension(21, bytes(length)))))
        return b"".join(record(whole[at : at + 2**14]) for at in range(0, len(whole), 2**14))

    room = MAX_HELLO_BYTES - len(padded(MAX_HELLO_BYTES - 100)) + MAX_HELLO_BYTES - 100
    assert len(padded(room)) == MAX_HELLO_BYTES
    assert parsed(padded(room)).extensions == (21,)
    with pytest.raises(ClientHelloError, match="the limit is"):
        parse_client_hello(padded(room + 1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (record(message(b"\x03\x03")), "a field runs past the end of its structure"),
        (record(message(body(b"\x00\x05\x00"))), "a field runs past the end of its structure"),
        (record(message(body(b"\x00\x00\x00"))), "bytes after the end of a structure"),
        (hello(extension(23, b""), extension(23, b"")), "extension 23 occurs twice"),
        (hello(extension(SERVER_NAME, b"")), "a field runs past the end of its structure"),
        (hello(extension(ALPN, vector(2, b"\x03h2"))), "a field runs past the end"),
        (hello(extension(ALPN, vector(2, b"") + b"x")), "bytes after the end of a structure"),
        (hello(extension(SUPPORTED_VERSIONS, vector(1, b"\x03"))), "a field runs past the end"),
    ],
)
def test_a_malformed_hello_is_refused(data: bytes, reason: str) -> None:
    assert bytes_needed(data) == 0
    with pytest.raises(ClientHelloError, match=f"^malformed ClientHello: {reason}"):
        parse_client_hello(data)


# Properties


def read(data: bytes) -> ClientHello | ClientHelloError | None:
    """What both functions say of `data`, and that they agree."""
    try:
        needed = bytes_needed(data)
    except ClientHelloError as error:
        with pytest.raises(ClientHelloError):
            parse_client_hello(data)
        return error
    assert needed == 0 or needed > len(data)
    try:
        client_hello = parse_client_hello(data)
    except ClientHelloError as error:
        return error
    assert (client_hello is None) == (needed > 0)
    return client_hello


BODIES = st.binary(max_size=80).map(lambda rest: record(message(body(rest))))
FRAGMENTS = st.lists(st.binary(min_size=1, max_size=40).map(record)).map(b"".join)


@given(st.binary() | FRAGMENTS | BODIES)
@example(b"\x16")
def test_any_bytes_are_a_hello_or_ask_for_more_or_are_a_client_hello_error(data: bytes) -> None:
    assert isinstance(read(data), ClientHello | ClientHelloError | None)


@given(st.integers(0, len(HELLO) - 1), st.integers(0, 255))
def test_a_hello_with_a_changed_byte_is_read_or_refused(position: int, byte: int) -> None:
    changed = HELLO[:position] + bytes([byte]) + HELLO[position + 1 :]
    assert isinstance(read(changed), ClientHello | ClientHelloError | None)


@given(st.lists(st.integers(1, len(HELLO) - 6), max_size=20))
def test_a_hello_reads_the_same_however_it_is_split_into_records(cuts: list[int]) -> None:
    handshake = HELLO[5:]
    edges = sorted({0, *cuts, len(handshake)})
    split = b"".join(record(handshake[a:b]) for a, b in itertools.pairwise(edges))
    assert parsed(split) == parsed(HELLO)
    assert waits(split)[-1] == len(split)


OPENSSL = (65281, 0, 11, 10, 35, 16, 22, 23, 49, 13, 43, 45, 51, 27)
HELLOS = {
    "curl, Python, Ruby": ((0x1302, 0x1303), OPENSSL, ("http/1.1",), "OpenSSL"),
    "PHP": ((0x1302, 0x1303), (65281, 0, 11, 10, 35, 22, 23, 13, 43, 45, 51), (), "OpenSSL"),
    "Java": (
        (0x1302, 0x1301),
        (0, 5, 10, 11, 16, 17, 23, 35, 13, 43, 45, 50, 51),
        ("h2", "http/1.1"),
        "Java",
    ),
    "Go": (
        (0xC02B, 0xC02F),
        (0, 11, 65281, 23, 18, 5, 10, 13, 16, 43, 51),
        ("h2", "http/1.1"),
        "Go",
    ),
    "git": (
        (0x1302, 0x1303),
        (51, 16, 45, 65281, 28, 13, 10, 43, 22, 35, 5, 0, 23, 11),
        ("h2", "http/1.1"),
        "GnuTLS",
    ),
    "uv": (
        (0x1302, 0x1301),
        (5, 43, 11, 0, 45, 10, 13, 35, 51, 23, 16),
        ("h2", "http/1.1"),
        "rustls",
    ),
    "gRPC": ((0x1302, 0x1303), OPENSSL, ("grpc-exp", "h2"), "gRPC"),
    "Chromium": ((0x3A3A, 0x1301), (0x1A1A, 0, 23, 65281, 10), ("h2",), "BoringSSL"),
    "TLS 1.2 alone": ((0xC02B,), (0, 10, 11, 13), (), None),
}


@pytest.mark.parametrize("client", HELLOS)
def test_a_hello_tells_the_library_that_sent_it(client: str) -> None:
    cipher_suites, extensions, alpn, library = HELLOS[client]
    hello = ClientHello(
        sni="api.test",
        alpn=alpn,
        versions=(0x304,),
        cipher_suites=cipher_suites,
        extensions=extensions,
    )
    assert library_of(hello) == library
