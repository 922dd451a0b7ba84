"""What an entry was made of, for a failure at `-v`: the fields and bodies of a request, and bytes both ways.

Secrets are masked where their name tells them. `>` is from the container, and `<` is to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pytest_egress.traffic.entries import (
    Entry,
    Exchange,
    Mail,
    PacketAttempt,
    TcpConnection,
    transcript_of,
)
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.redaction import masked_bytes, masked_field, masked_text
from pytest_egress.traffic.shown import counted, cut

SHOWN_FIELDS: Final = 30  # of a head
SHOWN_LINES: Final = 20  # of a body
SHOWN_LINE: Final = 200  # characters of a field or a line: the middle is left out
SHOWN_BYTES: Final = 120  # characters of the bytes that are no text
READ_BYTES: Final = 8192  # of a body, of which no more is looked at


def detail_lines(entry: Entry) -> list[str]:
    """Lines about what was sent both ways."""
    if isinstance(entry, Exchange):
        return [*request_lines(entry), *response_lines(entry)]
    if isinstance(entry, TcpConnection):
        return [*connection_lines(entry)]
    if isinstance(entry, Mail):
        return [*body_lines(">", entry.content)]
    if isinstance(entry, PacketAttempt) and entry.first_bytes:
        return [f"> {bytes_text(entry.first_bytes)}"]
    return []


def request_lines(entry: Exchange) -> Iterator[str]:
    request, call = entry.request, entry.grpc
    yield from field_lines(">", request.headers)
    if call is not None and call.requests:
        yield from message_lines(">", call.requests)
    elif request.is_whole and not request.shown_stream:
        yield from body_lines(">", content_of(request, "content", "raw_content"))


def response_lines(entry: Exchange) -> Iterator[str]:
    response, call = entry.response, entry.grpc
    if response is None or is_refusal(entry):
        return
    yield from field_lines("<", response.headers)
    if call is not None:
        yield from message_lines("<", call.responses)
        yield from field_lines("<", response.trailers)
    elif response.stream is None:
        yield from body_lines("<", content_of(response, "content"))


def is_refusal(entry: Exchange) -> bool:
    """Whether its client got the text of a refusal, which the failure has already."""
    if entry.outcome not in ("unrouted", "blocked") and entry.error is None:
        return False
    return entry.grpc is not None or entry.response.own_content.startswith(b"pytest-egress: ")


def content_of(message: Any, *names: str) -> bytes | str:
    """The first of these attributes that can be read, or why there is none: a body may not be kept, or not decoded."""
    why = ""
    for name in names:
        try:
            content: bytes = getattr(message, name)
        except Exception as error:  # of any decoder; a report is made in spite of it
            why = why or f"({error})"
        else:
            return content
    return why


def field_lines(arrow: str, fields: Headers) -> Iterator[str]:
    for name, value in fields.raw[:SHOWN_FIELDS]:
        yield f"{arrow} {cut(f'{name}: {masked_field(name, value)}', SHOWN_LINE)}"
    if (more := len(fields.raw) - SHOWN_FIELDS) > 0:
        yield f"{arrow} ... {counted(more, 'more field')}"


def body_lines(arrow: str, body: bytes | str) -> Iterator[str]:
    """A text is shown as its lines, and anything else as bytes."""
    if not body:
        return
    yield arrow
    if isinstance(body, str):
        yield f"{arrow} {cut(body, SHOWN_LINE)}"
        return
    text = text_of(body[:READ_BYTES])
    if text is None:
        yield f"{arrow} {bytes_text(body[:READ_BYTES])}  ({counted(len(body), 'byte')})"
        return
    lines = masked_text(text).splitlines()
    yield from (f"{arrow} {cut(line, SHOWN_LINE)}" for line in lines[:SHOWN_LINES])
    if len(lines) > SHOWN_LINES or len(body) > READ_BYTES:
        yield f"{arrow} ...  ({counted(len(body), 'byte')})"


def text_of(body: bytes) -> str | None:
    """The text that a body is; None where it is none. Its end may be within a character."""
    try:
        text = body.decode("utf-8", "strict" if len(body) < READ_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def message_lines(arrow: str, messages: Iterable[Any]) -> Iterator[str]:
    """The messages of a call of gRPC, as protobuf writes them."""
    for message in messages:
        yield from body_lines(arrow, f"{message}".encode(errors="backslashreplace"))


def connection_lines(entry: TcpConnection) -> Iterator[str]:
    said = transcript_of(entry).pieces or [(True, bytearray(entry.content or entry.first_bytes))]
    for is_from_client, data in said:
        if data:
            yield f"{'>' if is_from_client else '<'} {bytes_text(bytes(data))}"


def bytes_text(data: bytes) -> str:
    return cut(repr(masked_bytes(data)), SHOWN_BYTES)
