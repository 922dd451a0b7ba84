"""gRPC over HTTP/2 as values and bytes: messages, metadata, deadlines and the status of a call.

The rule: no socket, no clock, no thread, and never the package `grpc`. What a client sends malformed is a
`StatusError`, whose code and details are the status that the client gets. The protocol is
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final
from urllib.parse import quote, unquote

from pytest_egress.traffic.http.headers import Headers, raw_value
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.shown import counted, shown

CONTENT_TYPE: Final = "application/grpc"
MAX_MESSAGE_BYTES: Final = 4 << 20  # before and after inflating; grpc's own servers' default
SHOWN_DETAILS: Final = 2000  # characters of a status's text: some clients limit all fields to 8 KiB
PREFIX: Final = 5  # bytes before a message: whether it is compressed, and its length


class Code(IntEnum):
    """The status codes of gRPC; `grpc.StatusCode` has the same names."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StatusError(Exception):
    """A call ends with this status, since what its client sent cannot be read."""

    def __init__(self, code: Code, details: str) -> None:
        super().__init__(code, details)
        self.code, self.details = code, details

    def __str__(self) -> str:
        return self.details


# Calls.

Metadata = tuple[tuple[str, "str | bytes"], ...]
"""Keys with their values: bytes where the key ends in "-bin", else text."""


@dataclass(kw_only=True, eq=False)
class GrpcCall:
    """A call of gRPC: what an `Exchange` adds to its request and response.

    Attributes:
        service: The full name of the service: "shop.v1.Payments".
        method: The name of the method: "Charge".
        metadata: What the client sent with the call. Each is a pair of key and value, a value of bytes where the key
            ends in "-bin"; so are the next two.
        initial_metadata: What the servicer sent before its first message.
        trailing_metadata: What the servicer sent with the status.
        requests: The messages of the client, as the servicer got them. Where the test keeps as much as it may, no
            further one is kept, and the test fails.
        responses: The messages of the servicer, kept likewise.
        is_read_out: Whether `requests` has all messages of the client: its servicer has read them to their end.
        code: The status, as a `Code` and so an int; None while the call runs, and where nobody knows it.
        details: The text of the status, or "".
    """

    service: str
    method: str
    metadata: Metadata = ()
    initial_metadata: Metadata = ()
    trailing_metadata: Metadata = ()
    requests: list[Any] = field(default_factory=list)
    responses: list[Any] = field(default_factory=list)
    is_read_out: bool = False
    code: Code | None = None
    details: str = ""

    @classmethod
    def of(cls, request: Request) -> GrpcCall | None:
        """The call that a request makes; None where the request is not of gRPC."""
        if not is_grpc(request):
            return None
        service, _, method = request.path.removeprefix("/").rpartition("/")
        return cls(service=service, method=method, metadata=metadata_of(request.headers))

    @property
    def path(self) -> str:
        """The full name of the method, as it is in the request: "/shop.v1.Payments/Charge"."""
        return f"/{self.service}/{self.method}" if self.service else f"/{self.method}"

    @property
    def status(self) -> str | None:
        """The name of the status: "OK", "NOT_FOUND"; None while the call runs."""
        return None if self.code is None else self.code.name

    @property
    def request(self) -> Any:
        """The only message of the client.

        Raises:
            ValueError: There is none, or there are several.
        """
        return self._only("request", self.requests)

    @property
    def response(self) -> Any:
        """The only message of the servicer.

        Raises:
            ValueError: There is none, or there are several.
        """
        return self._only("response", self.responses)

    def _only(self, name: str, messages: list[Any]) -> Any:
        if len(messages) == 1:
            return messages[0]
        raise ValueError(f"{self!r} has {len(messages)} messages in {name}s: look at those")

    def __repr__(self) -> str:
        return f"<GrpcCall {self.path} {self.status or 'running'}>"


def is_grpc(request: Request) -> bool:
    """The Content-Type tells; `application/grpc-web` is another protocol."""
    essence = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return essence == CONTENT_TYPE or essence.startswith(f"{CONTENT_TYPE}+")


def registering(service: str) -> str:
    """The name of the generated Python function that registers a servicer of a service."""
    return f"add_{service.rpartition('.')[2]}Servicer_to_server"


# Metadata.

OF_THE_PROTOCOL: Final = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-message",
        "grpc-message-type",
        "grpc-status",
        "grpc-timeout",
        "host",
        "te",
        "transfer-encoding",
    }
)
"""Fields that are no metadata of the application."""

KEY: Final = re.compile(r"[0-9a-z_.-]+")
TEXT: Final = re.compile(r"[\x20-\x7e]*")


def metadata_of(headers: Headers) -> Metadata:
    """Values of a key in "-bin" are decoded; one that is no base64 stays as sent."""
    pairs: list[tuple[str, str | bytes]] = []
    for key, value in headers.raw:
        name = key.lower()
        if name in OF_THE_PROTOCOL or name.startswith(":"):
            continue
        if name.endswith("-bin"):  # several values may be joined by commas
            pairs += [(name, unpadded(each.strip())) for each in value.split(",")]
        else:
            pairs.append((name, value))
    return tuple(pairs)


def unpadded(text: str) -> bytes:
    """A value in base64 comes with padding or without."""
    data = raw_value(text)
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        return data


def checked_metadata(metadata: Iterable[Any] | None) -> Metadata:
    """The checks are those of grpc's own server; TypeError or ValueError quotes the pair that cannot be sent."""
    return tuple(map(checked_pair, metadata or ()))


def checked_pair(pair: Any) -> tuple[str, str | bytes]:
    if isinstance(pair, str) or len(pair) != 2:
        raise TypeError(f"metadata is pairs of key and value, and this is none: {pair!r}")
    key, value = pair
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of metadata: it takes a-z, 0-9, '_', '-' and '.'")
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise TypeError(
                f"metadata {key!r} takes bytes, as its key ends in -bin: {shown(value)}"
            )
        return key, value
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not TEXT.fullmatch(text):
        raise ValueError(
            f"metadata {key!r} takes printable ASCII, not {shown(value)}; bytes go under a key that ends in -bin"
        )
    return key, text.strip(" ")


def metadata_fields(metadata: Metadata) -> list[tuple[str, str]]:
    return [(key, field_value(value)) for key, value in metadata]


def field_value(value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    return base64.b64encode(value).rstrip(b"=").decode("ascii")


# The deadline and the status.

TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def parse_timeout(text: str | None) -> float | None:
    """The seconds of a `grpc-timeout` field; None where there is none. A malformed one raises StatusError."""
    if text is None:
        return None
    found = TIMEOUT.fullmatch(text)
    if found is None:
        raise StatusError(
            Code.INTERNAL,
            f"grpc-timeout is {shown(text)}: it takes at most 8 digits and one of H, M, S, m, u, n",
        )
    return int(found[1]) * UNITS[found[2]]


UNENCODED: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def encode_details(details: str) -> str:
    """The value of `grpc-message` is UTF-8, percent-encoded."""
    text = quote(details, safe=UNENCODED, errors="replace")
    inner = text.strip(" ")  # no field may begin or end with a space
    before = len(text) - len(text.lstrip(" "))
    return f"{'%20' * before}{inner}{'%20' * (len(text) - len(inner) - before)}"


def decode_details(value: str) -> str:
    return unquote(value, errors="replace")


def status_fields(code: int, details: str, metadata: Metadata = ()) -> list[tuple[str, str]]:
    fields = [("grpc-status", str(int(code)))]
    if details:
        fields.append(("grpc-message", encode_details(details)))
    return [*fields, *metadata_fields(metadata)]


def status_in(*several: Headers) -> tuple[Code | None, str]:
    """The status of the first fields that have one, trailers or head; without one (None, "")."""
    for headers in several:
        number = headers.get("grpc-status", "")
        if number.isascii() and number.isdigit() and len(number) < 4:
            known = int(number) <= Code.UNAUTHENTICATED
            code = Code(int(number)) if known else Code.UNKNOWN
            return code, decode_details(headers.get("grpc-message", ""))
    return None, ""


def status_head(code: int, details: str) -> Headers:
    """The head of a response that is a status alone ("Trailers-Only")."""
    return Headers([("content-type", CONTENT_TYPE), *status_fields(code, details)])


# Messages.


class MessageBuffer:
    """Cuts the bytes of a request into messages; `encoding` is that of each whose prefix says that it is compressed."""

    def __init__(self, encoding: str = "identity") -> None:
        self._encoding = encoding
        self._bytes = bytearray()

    @property
    def size(self) -> int:
        return len(self._bytes)

    def receive(self, data: bytes) -> None:
        self._bytes += data

    def next_message(self) -> bytes | None:
        """The next message, inflated; None where its end is still to come. StatusError: unreadable, or too large."""
        buffer = self._bytes
        if len(buffer) < PREFIX:
            return None
        flag, length = buffer[0], int.from_bytes(buffer[1:PREFIX], "big")
        if flag > 1:
            raise StatusError(Code.INTERNAL, f"a message begins with {flag}, and neither 0 nor 1")
        if length > MAX_MESSAGE_BYTES:
            raise too_large(f"a message has {length} bytes")
        if len(buffer) < PREFIX + length:
            return None
        data = bytes(buffer[PREFIX : PREFIX + length])
        del buffer[: PREFIX + length]
        return inflate(data, self._encoding) if flag else data

    def check_end(self) -> None:
        if self._bytes:
            text = f"the request ended within a message, after {counted(len(self._bytes), 'byte')} of it"
            raise StatusError(Code.INTERNAL, text)


def too_large(what: str) -> StatusError:
    text = f"{what}, which is over the limit of {MAX_MESSAGE_BYTES}"
    return StatusError(Code.RESOURCE_EXHAUSTED, text)


def frame(data: bytes, *, compressed: bool = False) -> bytes:
    return b"".join((bytes((compressed,)), len(data).to_bytes(4, "big"), data))


WINDOWS: Final = {"gzip": 31, "deflate": 15}  # zlib's wbits
ENCODINGS: Final = ("identity", *WINDOWS)


def accepted_encodings(headers: Headers) -> frozenset[str]:
    listed = headers.get("grpc-accept-encoding", "").lower().split(",")
    return frozenset(name.strip() for name in listed)


def inflate(data: bytes, encoding: str) -> bytes:
    """A StatusError is raised for a message that cannot be inflated, or is over `MAX_MESSAGE_BYTES` then."""
    if encoding == "identity":
        raise StatusError(Code.INTERNAL, "a message is compressed, and no grpc-encoding says how")
    if encoding not in WINDOWS:
        text = f"grpc-encoding is {shown(encoding)}, and what is inflated here is gzip and deflate"
        raise StatusError(Code.UNIMPLEMENTED, text)
    inflater = zlib.decompressobj(WINDOWS[encoding])
    try:
        whole = inflater.decompress(data, MAX_MESSAGE_BYTES + 1)
    except zlib.error as error:
        raise StatusError(Code.INTERNAL, f"a message is no {encoding}: {error}") from None
    if len(whole) > MAX_MESSAGE_BYTES:
        raise too_large(f"a message of {len(data)} bytes inflates to more")
    if not inflater.eof:
        raise StatusError(Code.INTERNAL, f"a message ends within its {encoding}")
    return whole


def deflate(data: bytes, encoding: str) -> bytes:
    deflater = zlib.compressobj(wbits=WINDOWS[encoding])
    return deflater.compress(data) + deflater.flush()
