"""Content codings: what is encoded is decoded, and whatever else comes is bytes or one error of ours."""

from __future__ import annotations

import builtins
import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import brotli
import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_egress.errors import ContentError
from pytest_egress.traffic.http import content_coding
from pytest_egress.traffic.http.content_coding import (
    DECODERS,
    ENCODERS,
    MAX_CODINGS,
    PIECE_BYTES,
    EncodedStream,
    codings,
    decode,
    decoded,
    encode,
    encoder,
)

MIB = 1 << 20
NAMES = sorted(ENCODERS)
BODY = bytes(range(256)) * 2000 + bytes(400_000)


def bare(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


# Round trips.


@pytest.mark.parametrize("name", NAMES)
@given(content=st.binary(max_size=4096), times=st.integers(1, 50))
def test_what_is_encoded_is_decoded(name: str, content: bytes, times: int) -> None:
    content *= times
    packed = encode(content, name)
    assert decode(packed, name, len(content)) == content


@given(
    content=st.binary(max_size=2000), names=st.lists(st.sampled_from(NAMES), max_size=MAX_CODINGS)
)
def test_codings_are_undone_in_the_reverse_of_their_order(content: bytes, names: list[str]) -> None:
    packed = content
    for name in names:
        packed = encode(packed, name)
    assert decode(packed, ", ".join(names), MIB) == content


@pytest.mark.parametrize("name", NAMES)
@given(pieces=st.lists(st.binary(max_size=300), max_size=8), cut=st.integers(1, 100))
def test_each_piece_of_a_stream_can_be_read_as_soon_as_it_has_come(
    name: str, pieces: list[bytes], cut: int
) -> None:
    come: list[bytes] = []

    def wire() -> Iterator[bytes]:
        whole = encoder(name)
        for piece in pieces:
            come.append(piece)
            data = whole.piece(piece)
            yield from (data[at : at + cut] for at in range(0, len(data), cut))
            assert b"".join(read) == b"".join(come)
        yield whole.end()

    read: list[bytes] = []
    for piece in decoded(wire(), name, MIB):
        read.append(piece)
    assert b"".join(read) == b"".join(pieces)


@pytest.mark.parametrize("name", NAMES)
def test_a_long_body_comes_in_short_pieces(name: str) -> None:
    pieces = [*decoded([encode(BODY, name)], name, len(BODY))]
    assert b"".join(pieces) == BODY
    assert all(pieces)
    assert max(map(len, pieces)) <= 2 * PIECE_BYTES  # brotli gives up to twice what is asked for


@pytest.mark.parametrize(
    ("packed", "field"),
    [
        (zlib.compress(BODY), "deflate"),
        (bare(BODY), "deflate"),
        (bare(bytes(10)), "deflate"),
        (gzip.compress(BODY[:1000]) + gzip.compress(BODY[1000:]), "gzip"),
        (gzip.compress(BODY) + bytes(100_000), "gzip"),
        (gzip.compress(BODY), "X-GZip"),
        (gzip.compress(BODY), "identity, GZIP ,,"),
        (encode(BODY[:1000], "zstd") + encode(BODY[1000:], "zstd"), "zstd"),
        (BODY, "identity"),
        (BODY, "amz-1.0"),
        (BODY, ""),
    ],
    ids=[
        *("zlib", "bare", "short bare", "members", "padding", "alias", "case and empty items"),
        *("frames", "identity", "amazon", "none"),
    ],
)
def test_what_clients_send_is_decoded(packed: bytes, field: str) -> None:
    assert decode(packed, field, MIB) in (BODY, bytes(10))


@pytest.mark.parametrize("name", NAMES)
def test_no_bytes_are_no_bytes(name: str) -> None:
    # A response to HEAD, or a GET of a client that sends the field with every request.
    assert decode(b"", name, 0) == b""


def test_the_names_of_a_field_are_in_their_order() -> None:
    assert codings("gzip,\tBR , identity,x-gzip") == ["gzip", "br", "gzip"]


# Amazon S3.

SIGNED = (
    b"5;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\nhello\r\n"
    b"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
)


@given(content=st.binary(max_size=3000), size=st.integers(1, 1000))
def test_what_boto_sends_is_decoded(content: bytes, size: int) -> None:
    sent = AwsChunkedWrapper(
        BytesIO(content), Crc32Checksum, checksum_name="x-amz-checksum-crc32", chunk_size=size
    ).read()
    assert decode(sent, "aws-chunked", 3000) == content
    assert [*decoded([sent[:7], sent[7:]], "aws-chunked", 3000)] != [sent]


@pytest.mark.parametrize("field", ["gzip,aws-chunked", "aws-chunked,gzip"])
def test_the_chunks_of_s3_are_around_all_other_codings(field: str) -> None:
    packed = encode(BODY, "gzip")
    assert decode(b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed), field, MIB) == BODY


def test_chunks_may_be_signed() -> None:
    assert decode(SIGNED, "aws-chunked", 5) == b"hello"
    with pytest.raises(ContentError, match="become more than the limit of 4 bytes"):
        decode(SIGNED, "aws-chunked", 4)


@given(size=st.integers(1, len(SIGNED) - 1))
def test_every_beginning_of_chunks_breaks_off(size: int) -> None:
    with pytest.raises(ContentError, match=f"breaks off: its {size} bytes of aws-chunked have no"):
        decode(SIGNED[:size], "aws-chunked", MIB)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"hello", "breaks off"),
        (b"hello\r\n", "b'hello' is no size of a chunk"),
        (b"-1\r\n", "b'-1' is no size of a chunk"),
        (b"1\r\nab\r\n0\r\n\r\n", "a chunk goes on after its size with b'b'"),
        (b"1;" + b"x" * 5000, "it has a line of more than 4096 bytes"),
        (b"0\r\n\r\ntail", "bytes follow its aws-chunked"),
    ],
)
def test_what_are_no_chunks_is_an_error(content: bytes, text: str) -> None:
    with pytest.raises(ContentError, match=text):
        decode(content, "aws-chunked", MIB)


# What cannot be decoded.


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_every_beginning_of_a_body_breaks_off(name: str, data: st.DataObject) -> None:
    packed = encode(data.draw(st.binary(max_size=500)), name)
    size = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(ContentError, match=f"breaks off: its {size} bytes of {name} have no end"):
        decode(packed[:size], name, MIB)


@given(
    content=st.binary(max_size=400),
    field=st.one_of(
        st.lists(st.sampled_from([*NAMES, "identity", "x-gzip", "lzma"]), max_size=6).map(",".join),
        st.text(max_size=40),
    ),
    wrap=st.lists(st.sampled_from(NAMES), max_size=2),
    flip=st.integers(0, 400),
)
@example(content=b"\x78", field="deflate", wrap=[], flip=0)
@example(content=b"\x0f", field="br", wrap=[], flip=0)
def test_any_body_and_any_field_are_bytes_or_a_content_error(
    content: bytes, field: str, wrap: list[str], flip: int
) -> None:
    for name in wrap:
        content = encode(content, name)
    broken = bytes(byte ^ (at == flip) for at, byte in enumerate(content))
    for body in (content, broken):
        try:
            content, text = decode(body, field, 1000), "the body is decoded"
        except ContentError as error:
            content, text = b"", str(error)
        assert text.startswith("the body ")
        assert len(content) <= max(1000, len(body))


@given(content=st.binary(max_size=500))
def test_any_bytes_are_decoded_or_are_a_content_error(content: bytes) -> None:
    for name in DECODERS:
        whole: list[object] = []
        cut: list[object] = []
        for found, pieces in (whole, [content]), (cut, [content[:3], b"", content[3:]]):
            try:
                found.extend(b"".join(decoded(pieces, name, MIB)))
            except ContentError:  # of a bomb with a broken end, the pieces decide which of the two
                found.append(ContentError)
        assert whole == cut


@pytest.mark.parametrize("name", NAMES)
def test_a_body_of_another_coding_is_named(name: str) -> None:
    with pytest.raises(
        ContentError, match=f"^the body has the content coding {name}, and is no {name}: "
    ):
        decode(b"no " * 100, name, MIB)


@pytest.mark.parametrize("name", NAMES)
def test_what_follows_the_end_is_an_error(name: str) -> None:
    with pytest.raises(ContentError, match=f"no {name}|bytes follow its {name}"):
        decode(encode(b"body", name) + b"tail", name, MIB)
    with pytest.raises(ContentError, match=f"no {name}|bytes follow its {name}"):
        [*decoded([encode(b"body", name), b"tail"], name, MIB)]


def test_an_unknown_coding_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ContentError) as raised:
        decode(b"x", "gzip, LZMA", MIB)
    assert str(raised.value) == (
        "the body has the content coding 'lzma', which is unknown here: "
        "gzip, deflate, br, zstd, aws-chunked are decoded"
    )


def test_many_codings_are_refused() -> None:
    with pytest.raises(ContentError, match="has 5 content codings one over the other, and 4 are"):
        decode(b"x", "gzip, gzip, gzip, gzip, gzip", MIB)


# Bombs.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_is_refused_before_it_is_large(name: str, layers: int) -> None:
    bomb = bytes(16 * MIB)
    for _ in range(layers):
        bomb = encode(bomb, name)
    tracemalloc.start()
    try:
        with pytest.raises(ContentError) as raised:
            decode(bomb, ", ".join([name] * layers), MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(raised.value).startswith("the body is too large: ")
    assert str(raised.value).endswith(f" bytes of {name} become more than the limit of {MIB} bytes")
    assert peak < 8 * MIB


def test_the_limit_is_one_of_each_coding() -> None:
    # Zeros that pad gzip decode to nothing: their own coding refuses them.
    padding = encode(gzip.compress(b"a") + bytes(16 * MIB), "zstd")
    with pytest.raises(ContentError, match="of zstd become more than the limit"):
        decode(padding, "gzip, zstd", MIB)


def test_a_body_may_be_as_long_as_the_limit() -> None:
    packed = encode(bytes(1000), "gzip")
    assert decode(packed, "gzip", 1000) == bytes(1000)
    with pytest.raises(ContentError, match=f"^the body is too large: {len(packed)} bytes of gzip"):
        decode(packed, "gzip", 999)


def test_a_window_of_zstd_over_8_mib_is_refused() -> None:
    library = content_coding.zstd_library("")
    whole = library.ZstdCompressor(options={library.CompressionParameter.window_log: 27})
    packed = whole.compress(BODY) + whole.flush()
    with pytest.raises(ContentError, match="content coding zstd"):
        decode(packed, "zstd", MIB)


# Libraries.


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the import of a package fail."""
    gone: set[str] = set()
    real: Any = builtins.__import__

    def find(name: str, *rest: Any, **others: Any) -> Any:
        if name.partition(".")[0] in gone:
            raise ImportError(name)
        return real(name, *rest, **others)

    monkeypatch.setattr(builtins, "__import__", find)
    return gone.add


@pytest.mark.parametrize(
    ("name", "packages"), [("br", ["brotli", "brotlicffi"]), ("zstd", ["compression", "backports"])]
)
def test_a_library_that_is_missing_is_named_by_what_installs_it(
    name: str, packages: list[str], missing: Callable[[str], None]
) -> None:
    packed = encode(b"body", name)
    for package in packages:
        missing(package)
    rest = "and no library for that is installed: pip install 'pytest-egress[compression]'"
    with pytest.raises(ContentError) as raised:
        decode(packed, name, MIB)
    assert str(raised.value) == f"the body is compressed with {name}, {rest}"
    with pytest.raises(ValueError) as refused:
        encoder(name)
    assert str(refused.value) == f"Response(compress={name!r}) was given, {rest}"


def test_a_brotli_that_cannot_bound_what_it_gives_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(brotli, "Decompressor", SimpleNamespace)
    monkeypatch.setattr(brotli, "__version__", "1.1.0")
    with pytest.raises(ContentError, match=r"brotli 1\.1\.0 cannot bound what it decodes"):
        decode(b"x", "br", MIB)


def test_a_stream_ends_once_and_closes_what_it_encodes() -> None:
    closed = []

    def pieces() -> Iterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    stream = EncodedStream(pieces(), "gzip")
    assert gzip.decompress(b"".join(stream)) == b"ab"
    assert [*stream] == []
    broken_off = EncodedStream(pieces(), "gzip")
    next(broken_off)
    broken_off.close()
    assert closed == [True, True]
    EncodedStream([b"a"], "gzip").close()  # a list has nothing to close


def test_an_unknown_name_is_no_encoder() -> None:
    with pytest.raises(ValueError) as raised:
        encoder("lzma")
    assert str(raised.value) == (
        "compress='lzma' is unknown: it takes 'gzip', 'deflate', 'br', 'zstd'"
    )
