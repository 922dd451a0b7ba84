"""What an entry was made of, for a failure at `-v`: the fields and bodies of a request, and bytes both ways.

Secrets are hidden (`traffic.redaction`). `>` is from the container, and `<` is to it.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pytest_egress.base.raising import said_of
from pytest_egress.errors import ContentError
from pytest_egress.traffic.entries import (
    DatagramFlow,
    Entry,
    Exchange,
    Mail,
    PacketAttempt,
    TcpConnection,
    transcript_of,
)
from pytest_egress.traffic.http.content_coding import (
    MAX_BEGINNING,
    BreaksOffError,
    codings,
    decoded,
)
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.redaction.redactor import Redactor, redactor_of
from pytest_egress.traffic.shown import counted, cut

SHOWN_FIELDS: Final = 30  # of a head
SHOWN_LINES: Final = 20  # of a body
SHOWN_LINE: Final = 200  # characters of a field or a line: the middle is left out
SHOWN_DATAGRAMS: Final = 5  # of a flow, and answers of each
SHOWN_GRPC: Final = 10  # messages of a call each way
SHOWN_BYTES: Final = 120  # characters of the bytes that are no text
READ_BYTES: Final = 8192  # of a body, of which no more is looked at; nor is more of it decoded


def detail_lines(entry: Entry) -> list[str]:
    """Lines about what was sent both ways."""
    if isinstance(entry, Exchange):
        return [*request_lines(entry), *response_lines(entry)]
    if isinstance(entry, TcpConnection):
        return [*connection_lines(entry)]
    if isinstance(entry, Mail):
        return [*body_lines(">", ShownBody.of(entry.content), redactor_of(entry))]
    if isinstance(entry, DatagramFlow):
        return [*datagram_lines(entry)]
    if isinstance(entry, PacketAttempt) and entry.first_bytes:
        return [f"> {bytes_text(redactor_of(entry).first_bytes(entry.first_bytes))}"]
    return []


def request_lines(entry: Exchange) -> Iterator[str]:
    request, call, redactor = entry.request, entry.grpc, redactor_of(entry)
    yield from field_lines(">", request.headers, redactor)
    if call is not None and call.requests:
        yield from message_lines(">", call.requests, redactor)
    elif request.is_whole and not request.shown_stream:
        coding = request.headers.get("content-encoding", "")
        yield from read_lines(">", lambda: ShownBody.of(request.raw_content, coding), redactor)


def response_lines(entry: Exchange) -> Iterator[str]:
    response, call, redactor = entry.response, entry.grpc, redactor_of(entry)
    if response is None or is_refusal(entry):
        return
    yield from field_lines("<", response.headers, redactor)
    if call is not None:
        yield from message_lines("<", call.responses, redactor)
        yield from field_lines("<", response.trailers, redactor)
    elif response.stream is None:
        # What `compress=` does happens when it is sent.
        coding = "" if response.compress else response.headers.get("content-encoding", "")
        yield from read_lines("<", lambda: ShownBody.of(response.content, coding), redactor)


def is_refusal(entry: Exchange) -> bool:
    """Whether its client got the text of a refusal, which the failure has already."""
    if entry.outcome not in ("unrouted", "blocked") and entry.error is None:
        return False
    return entry.grpc is not None or entry.response.own_content.startswith(b"pytest-egress: ")


class ShownBody(NamedTuple):
    """The beginning of a body.

    It is decoded here, and not by `request.content`, which decodes the whole body and counts that as kept for a test.
    By the time of its report, that would be the next one.

    Attributes:
        beginning: Its first bytes, without its content coding where they can be decoded.
        is_cut: Whether more of it follows.
        size: How many bytes were sent, in words.
    """

    beginning: bytes
    is_cut: bool
    size: str

    @classmethod
    def of(cls, raw: bytes, coding: str = "") -> ShownBody:
        size, names = counted(len(raw), "byte"), codings(coding)
        if names:
            beginning, is_cut = decoded_beginning(raw, coding)
            if beginning:
                return cls(beginning, is_cut, f"{size} of {', '.join(names)}")
        return cls(bytes(raw[:READ_BYTES]), len(raw) > READ_BYTES, size)


def decoded_beginning(raw: bytes, coding: str) -> tuple[bytes, bool]:
    """The first bytes of a body without its coding, and whether more follows; no bytes where they are not in it."""
    found, is_cut = bytearray(), len(raw) > READ_BYTES
    try:
        for piece in decoded([bytes(raw[:READ_BYTES])], coding, MAX_BEGINNING):
            found += piece
            if len(found) > READ_BYTES:
                return bytes(found[:READ_BYTES]), True
    except BreaksOffError:
        if not is_cut:
            return b"", False
    except ContentError:
        return b"", False
    return bytes(found), is_cut


def read_lines(arrow: str, read: Callable[[], ShownBody], redactor: Redactor) -> Iterator[str]:
    """The lines of a body, or why there is none: it may not be kept."""
    try:
        body = read()
    except Exception as error:  # a report is made in spite of it
        yield arrow
        yield f"{arrow} {cut(f'({redactor.hidden(said_of(error))})', SHOWN_LINE)}"
    else:
        yield from body_lines(arrow, body, redactor)


def field_lines(arrow: str, fields: Headers, redactor: Redactor) -> Iterator[str]:
    for name, value in fields.raw[:SHOWN_FIELDS]:
        shown = f"{redactor.known(name)}: {redactor.field(name, value)}"
        yield f"{arrow} {cut(shown, SHOWN_LINE)}"
    if (more := len(fields.raw) - SHOWN_FIELDS) > 0:
        yield f"{arrow} ... {counted(more, 'more field')}"


def body_lines(arrow: str, body: ShownBody, redactor: Redactor) -> Iterator[str]:
    """A text is shown as its lines, and anything else as bytes."""
    if not body.beginning:
        return
    yield arrow
    text = text_of(body)
    if text is None:
        content = redactor.content(body.beginning, is_cut=body.is_cut)
        yield f"{arrow} {bytes_text(content)}  ({body.size})"
        return
    lines = redactor.text(text, is_cut=body.is_cut).splitlines()
    yield from (f"{arrow} {cut(line, SHOWN_LINE)}" for line in lines[:SHOWN_LINES])
    if len(lines) > SHOWN_LINES or body.is_cut:
        yield f"{arrow} ...  ({body.size})"


def text_of(body: ShownBody) -> str | None:
    """The text that a body is; None where it is none. Its beginning may end within a character."""
    try:
        text, _ = utf_8_decode(body.beginning, "strict", not body.is_cut)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def message_lines(arrow: str, messages: Sequence[Any], redactor: Redactor) -> Iterator[str]:
    """The first messages of a call of gRPC, as protobuf writes them."""
    for message in messages[:SHOWN_GRPC]:
        yield from body_lines(arrow, ShownBody.of(said_of(message).encode()), redactor)
    if (more := len(messages) - SHOWN_GRPC) > 0:
        yield f"{arrow} ... {counted(more, 'more message')}"


def connection_lines(entry: TcpConnection) -> Iterator[str]:
    said = transcript_of(entry).pieces or [(True, bytearray(entry.content or entry.first_bytes))]
    redactor, is_asked = redactor_of(entry), False
    for is_from_client, data in said:
        piece = bytes(data)
        if piece and is_from_client:
            yield f"> {bytes_text(redactor.first_bytes(piece, is_asked=is_asked))}"
        elif piece:
            yield f"< {bytes_text(redactor.content(piece, is_cut=True))}"
            is_asked = redactor.asks_for_login(piece)


def datagram_lines(entry: DatagramFlow) -> Iterator[str]:
    """The first datagrams, each with what answered it."""
    redactor = redactor_of(entry)
    for datagram in entry.datagrams[:SHOWN_DATAGRAMS]:
        yield f"> {bytes_text(redactor.first_bytes(datagram.content))}"
        for reply in datagram.replies[:SHOWN_DATAGRAMS]:
            yield f"< {bytes_text(redactor.content(reply, is_cut=True))}"
    if (more := len(entry.datagrams) - SHOWN_DATAGRAMS) > 0:
        yield f"> ... {counted(more, 'more datagram')}"


def bytes_text(data: bytes) -> str:
    return cut(repr(data), SHOWN_BYTES)
