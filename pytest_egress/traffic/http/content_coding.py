"""Content codings (RFC 9110 section 8.4): gzip, deflate, br and zstd, both ways, piece by piece; and S3's aws-chunked.

The rule: no input makes a decoder yield more than its limit, and each decoder yields bytes or raises `ContentError`.

zlib does gzip and deflate. br is by `brotli` or `brotlicffi`; zstd is by the standard library from Python 3.14 on, else
by `backports.zstd`, which has the same interface. A library is imported when a body needs it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any, Final, Literal, NamedTuple

from pytest_egress.base.account import Hold
from pytest_egress.errors import ContentError

MAX_DECODED_BYTES: Final = 1 << 30  # of a body: as many as one that is not compressed may have
MAX_BEGINNING: Final = 1 << 20  # of a body that is looked at, decoded
PIECE_BYTES: Final = 64 * 1024  # what a decoder gives at a time, so that a bomb is refused soon
FIRST_BYTES: Final = 1024  # read first of a member or a frame, so that many small ones do not copy the rest each time
MAX_CODINGS: Final = 4  # of one body; curl takes 5
MAX_LINE_BYTES: Final = 4096  # of aws-chunked; a signature has 85
WINDOW_LOG: Final = 23  # 8 MiB: the most that RFC 9659 lets zstd ask for
BR_QUALITY: Final = 4  # of 11; the usual one for what is compressed while it is sent
GZIP_WBITS: Final = 31  # of zlib: the window of 32 KiB, in gzip's format
ZLIB_WBITS: Final = 15  # in zlib's format
BARE_WBITS: Final = -15  # without a header

INSTALL: Final = "pip install 'pytest-egress[compression]'"

Coding = Literal["gzip", "deflate", "br", "zstd"]
Pieces = Iterator[bytes]


class MismatchError(ContentError):
    """The bytes of a body are not those of its content coding."""


class BreaksOffError(MismatchError):
    """The bytes of a body begin as those of its content coding, and have no end."""


def codings(content_encoding: str) -> list[str]:
    """The names in a Content-Encoding field, in the order in which the codings were applied; "identity" is none.

    S3's own chunks are around everything else, wherever the field names them.
    """
    names = (name.strip(" \t").lower() for name in content_encoding.split(","))
    applied = [ALIASES.get(name, name) for name in names if name not in NO_CODINGS]
    return sorted(applied, key="aws-chunked".__eq__)


ALIASES: Final = {"x-gzip": "gzip"}  # RFC 9110 section 8.4.1.3
NO_CODINGS: Final = ("", "identity", "amz-1.0")  # the last by clients of Amazon's JSON services


def decode(content: bytes, content_encoding: str, limit: int, hold: Hold | None = None) -> bytes:
    """A whole body without its codings. No bytes are no bytes, whatever the field says.

    Args:
        limit: The most bytes that the body, or what is between two codings, may have.

    Raises:
        OverLimitError: `hold` has no room for it.
        ContentError: The body is not what the field says, or has more bytes, or needs a library.
    """
    if not codings(content_encoding):
        return content
    whole = BytesIO()
    for piece in decoded([content], content_encoding, limit):
        if hold is not None:
            hold.resize(whole.tell() + len(piece))
        whole.write(piece)
    return whole.getvalue()  # it shares its buffer: no second copy


def decoded(pieces: Iterable[bytes], content_encoding: str, limit: int) -> Iterator[bytes]:
    """The pieces of a body without its codings; otherwise as `decode`.

    An error is raised where it is met, so earlier pieces may have been yielded.
    """
    names = codings(content_encoding)
    for name in names:
        if name not in DECODERS:
            raise ContentError(
                f"the body has the content coding {name!r}, which is unknown here: {', '.join(DECODERS)} are decoded"
            )
    if len(names) > MAX_CODINGS:
        raise ContentError(
            f"the body has {len(names)} content codings one over the other, and {MAX_CODINGS} are decoded at most"
        )
    source = iter(pieces)
    for name in reversed(names):
        source = layer(source, name, limit)
    return source


def layer(pieces: Pieces, name: str, limit: int) -> Pieces:
    source = Source(pieces)
    if not source.more():
        return
    total = 0
    try:
        for piece in DECODERS[name](source):
            total += len(piece)
            if total > limit:
                raise ContentError(
                    f"the body is too large: {source.taken} bytes of {name} become more than the limit of {limit} bytes"
                )
            if piece:
                yield piece
    except EOFError:
        raise BreaksOffError(
            f"the body breaks off: its {source.taken} bytes of {name} have no end"
        ) from None
    except (ContentError, GeneratorExit):
        raise
    except Exception as error:  # zlib.error, brotli.error, ZstdError
        raise MismatchError(
            f"the body has the content coding {name}, and is no {name}: {error}"
        ) from error
    if source.more():
        raise MismatchError(f"the body goes on after its end: bytes follow its {name}")


def mismatch(content: bytes, content_encoding: str, *, begins: bool = False) -> str:
    """Why a body is not in the codings of a Content-Encoding field; "" where it is, or that cannot be told.

    Only its first bytes are decoded. With `begins`, more of it follows.
    """
    names = codings(content_encoding)
    if not content or not ENCODERS.keys() >= {*names}:
        return ""
    begins = begins or len(content) > FIRST_BYTES
    try:
        for _ in decoded([content[:FIRST_BYTES]], content_encoding, MAX_BEGINNING):
            pass
    except BreaksOffError as error:
        return "" if begins else str(error)
    except MismatchError as error:
        return str(error)
    except ContentError:  # no library for it, or more than is looked at
        pass
    return ""


class Source:
    """The bytes that a decoder reads. `taken` counts those of all pieces so far."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._piece, self._at = b"", 0
        self.taken = 0

    def more(self) -> bool:
        return bool(self.peek(1))

    def peek(self, size: int) -> bytes:
        """As many bytes as this where there are so many; they are still to be taken."""
        while len(self._piece) - self._at < size and self._fetch():
            pass
        return self._piece[self._at : self._at + size]

    def _fetch(self) -> bool:
        if (piece := next(self._pieces, None)) is None:
            return False
        self._piece, self._at = self._piece[self._at :] + piece, 0
        self.taken += len(piece)
        return True

    def line(self) -> bytes:
        """The next line, taken with its end, which is left out; EOFError without one, ValueError for one too long."""
        while (end := self._piece.find(b"\r\n", self._at, self._at + MAX_LINE_BYTES)) < 0:
            if len(self._piece) - self._at >= MAX_LINE_BYTES:
                raise ValueError(f"it has a line of more than {MAX_LINE_BYTES} bytes")
            if not self._fetch():
                raise EOFError
        line, self._at = self._piece[self._at : end], end + 2
        return line

    def take(self, size: int = PIECE_BYTES) -> bytes:
        """At most as many bytes as this; b"" at the end."""
        self.more()
        data = self._piece[self._at : self._at + size]
        self._at += len(data)
        return data

    def read(self, size: int = PIECE_BYTES) -> bytes:
        """As `take`, but an early end raises EOFError."""
        if data := self.take(size):
            return data
        raise EOFError

    def give_back(self, size: int) -> None:
        self._at -= size


def inflate(source: Source, wbits: int) -> Pieces:
    """Decode one stream of zlib, whose end it knows by itself."""
    inflater = zlib.decompressobj(wbits)
    data, size = b"", FIRST_BYTES
    while not inflater.eof:
        if not data:
            data, size = source.read(size), PIECE_BYTES
        yield inflater.decompress(data, PIECE_BYTES)
        data = inflater.unconsumed_tail
    source.give_back(len(inflater.unused_data))


def gzip(source: Source) -> Pieces:
    """gzip: one member or several (RFC 1952 section 2.2), and zeros, which pad the output of tar."""
    yield from inflate(source, GZIP_WBITS)
    while data := source.take():
        source.give_back(len(data.lstrip(b"\0")))
        if data.strip(b"\0"):
            yield from inflate(source, GZIP_WBITS)


def deflate(source: Source) -> Pieces:
    """Deflate: zlib's format, as RFC 9110 section 8.4.1.2 says, or the bare one, which many clients send."""
    head = source.peek(2)
    # A bare stream of any compressor has other bits: these would be a stored block with bits set in its padding.
    is_zlib = head[0] & 0x0F == 8 and int.from_bytes(head, "big") % 31 == 0
    yield from inflate(source, ZLIB_WBITS if is_zlib else BARE_WBITS)


def br(source: Source) -> Pieces:
    """Brotli (RFC 7932)."""
    decompressor = br_library("the body is compressed with br").Decompressor()
    while not decompressor.is_finished():
        data = source.take() if decompressor.can_accept_more_data() else b""
        piece = decompressor.process(data, output_buffer_limit=PIECE_BYTES)
        # Output may be still to come when all input has been taken: only if neither is left, the end is missing.
        if not (data or piece or decompressor.is_finished()):
            raise EOFError
        yield piece


def zstd(source: Source) -> Pieces:
    """Zstandard: one frame or several (RFC 8878 section 3.1)."""
    library = zstd_library("the body is compressed with zstd")
    options = {library.DecompressionParameter.window_log_max: WINDOW_LOG}
    while source.more():
        decompressor = library.ZstdDecompressor(options=options)
        size = FIRST_BYTES
        while not decompressor.eof:
            data = b""
            if decompressor.needs_input:
                data, size = source.read(size), PIECE_BYTES
            yield decompressor.decompress(data, PIECE_BYTES)
        source.give_back(len(decompressor.unused_data))


def aws_chunked(source: Source) -> Pieces:
    """The chunks of Amazon S3's clients: each with its size, perhaps its signature, and trailers after the last.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
    """
    while size := chunk_size(source.line()):
        while size:
            data = source.read(min(size, PIECE_BYTES))
            size -= len(data)
            yield data
        if rest := source.line():
            raise ValueError(f"a chunk goes on after its size with {rest[:20]!r}")
    while source.line():
        pass


def chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0]
    if not CHUNK_SIZE.fullmatch(digits):
        raise ValueError(f"{digits[:20]!r} is no size of a chunk")
    return int(digits, 16)


CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")

DECODERS: Final[dict[str, Callable[[Source], Pieces]]] = {
    "gzip": gzip,
    "deflate": deflate,
    "br": br,
    "zstd": zstd,
    "aws-chunked": aws_chunked,
}


def br_library(need: str) -> Any:
    """`need` says what needs it; ContentError where none is installed, or it cannot bound what it gives."""
    try:
        import brotli
    except ImportError:
        try:
            import brotlicffi as brotli
        except ImportError:
            raise ContentError(f"{need}, and no library for that is installed: {INSTALL}") from None
    if not hasattr(brotli.Decompressor, "can_accept_more_data"):  # CVE-2025-6176
        old = f"{brotli.__name__} {getattr(brotli, '__version__', '')}"
        raise ContentError(f"{need}, and {old} cannot bound what it decodes, as 1.2 can: {INSTALL}")
    return brotli


def zstd_library(need: str) -> Any:
    try:
        from compression import zstd
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise ContentError(f"{need}, and no library for that is installed: {INSTALL}") from None
    return zstd


# What a response is compressed with.


class Encoder(NamedTuple):
    """The client can decode each piece as soon as it has it: `piece` flushes what it compresses."""

    piece: Callable[[bytes], bytes]
    end: Callable[[], bytes]


def zlib_encoder(wbits: int) -> Encoder:
    made = zlib.compressobj(wbits=wbits)
    return Encoder(lambda data: made.compress(data) + made.flush(zlib.Z_SYNC_FLUSH), made.flush)


def br_encoder() -> Encoder:
    made = br_library(NEEDED.format("br")).Compressor(quality=BR_QUALITY)
    return Encoder(lambda data: made.process(data) + made.flush(), made.finish)


def zstd_encoder() -> Encoder:
    """The library's own level has a window below `WINDOW_LOG`."""
    made = zstd_library(NEEDED.format("zstd")).ZstdCompressor()
    return Encoder(lambda data: made.compress(data, made.FLUSH_BLOCK), made.flush)


NEEDED: Final = "Response(compress={!r}) was given"

ENCODERS: Final[dict[str, Callable[[], Encoder]]] = {
    "gzip": lambda: zlib_encoder(GZIP_WBITS),
    "deflate": lambda: zlib_encoder(ZLIB_WBITS),
    "br": br_encoder,
    "zstd": zstd_encoder,
}


def encoder(name: str) -> Encoder:
    """A ValueError says that the name is unknown, or that its library is not installed."""
    if name not in ENCODERS:
        raise ValueError(f"compress={name!r} is unknown: it takes {', '.join(map(repr, ENCODERS))}")
    return ENCODERS[name]()


def encode(content: bytes, name: str) -> bytes:
    whole = encoder(name)
    return whole.piece(content) + whole.end()


class EncodedStream(Iterator[bytes]):
    """The pieces of a body, each compressed when it is asked for, and a last one that ends them.

    If `pieces` has a method `close`, it is closed with this.
    """

    def __init__(self, pieces: Iterable[bytes], name: str) -> None:
        self._source, self._pieces = pieces, iter(pieces)
        self._encoder: Encoder | None = encoder(name)

    def __next__(self) -> bytes:
        if self._encoder is None:
            raise StopIteration
        for piece in self._pieces:
            return self._encoder.piece(piece)
        end, self._encoder = self._encoder.end(), None
        return end

    def close(self) -> None:
        close: Callable[[], object] = getattr(self._source, "close", lambda: None)
        close()
