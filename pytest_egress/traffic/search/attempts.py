"""The pieces of an entry of the ledger: all that its target has sent in it. Responses are no part of that.

What is known to have been sent and was not kept, or came in a form that cannot be read here, is an `Unread`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pytest_egress.errors import ContentError
from pytest_egress.traffic.entries import (
    UDP_HEADER_BYTES,
    Datagram,
    DatagramFlow,
    DnsQuery,
    Entry,
    Exchange,
    KafkaRecord,
    Mail,
    PacketAttempt,
    ProxyCall,
    TcpConnection,
    TlsFailure,
)
from pytest_egress.traffic.grpc import GrpcCall, MessageBuffer, StatusError
from pytest_egress.traffic.http.content_coding import codings, decoded
from pytest_egress.traffic.http.forms import parse_cookies
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.search.contents import (
    ENVELOPE,
    content_pieces,
    encoded_in,
    mail_pieces,
    query_pieces,
    quoted,
    readings,
    under,
)
from pytest_egress.traffic.search.pieces import (
    MAX_PARSED_BYTES,
    Piece,
    PieceStream,
    Room,
    Unread,
    spent,
)

SHOWN_BYTES: Final = 64  # of a packet or of a connection that nobody answered


def pieces_of(entry: Entry, room: Room | None = None) -> PieceStream:
    room = room or Room()
    yield Piece(place="the name of its host", value=entry.host, is_name=True)
    sni = getattr(entry, "sni", None)
    if sni:
        yield Piece(place="the server name of its TLS", value=sni, is_name=True)
    if isinstance(entry, Exchange):
        yield from exchange_pieces(entry, room)
    elif isinstance(entry, TcpConnection):
        yield from connection_pieces(entry, room)
    elif isinstance(entry, Mail):
        yield from all_of_mail(entry, room)
    elif isinstance(entry, KafkaRecord):
        yield from record_pieces(entry, room)
    elif isinstance(entry, Datagram):
        yield from content_pieces("its bytes", entry.content, "", room)
    elif isinstance(entry, DatagramFlow):
        for number, datagram in enumerate([*entry.datagrams], 1):
            yield from content_pieces(f"datagram {number}", datagram.content, "", room)
    elif isinstance(entry, PacketAttempt):
        yield from packet_pieces(entry, room)
    elif isinstance(entry, ProxyCall):
        yield from proxy_pieces(entry, room)
    elif not isinstance(entry, (DnsQuery, TlsFailure)):
        yield Unread(place="it", why=f"is a {type(entry).__name__}, which is not known here")


# Requests.


def exchange_pieces(exchange: Exchange, room: Room) -> PieceStream:
    request = exchange.request
    if request.sni:
        yield Piece(place="the server name of its TLS", value=request.sni, is_name=True)
    yield Piece(place="method", value=request.method)
    yield from url_pieces(request, room)
    for name, value in request.headers.raw:
        yield from field_pieces(f"header {name}", name, value, room)
    if exchange.websocket is not None:
        yield from socket_pieces(exchange, room)
    elif exchange.grpc is not None:
        yield from grpc_pieces(exchange.grpc, request, room)
    else:
        yield from body_pieces(request, room)
    if request.is_whole or request.shown_stream:  # those of a stream are there once it has ended
        yield from trailer_pieces(request.trailers, room)


def proxy_pieces(call: ProxyCall, room: Room) -> PieceStream:
    yield Piece(place="method", value=call.method)
    yield from wire_text("url", call.target, room)
    for name, value in call.headers.raw:
        yield from field_pieces(f"header {name}", name, value, room)


def url_pieces(request: Request, room: Room) -> PieceStream:
    yield from readings("url path", request.path, room)
    yield from query_pieces("url query", request.query_string, room)
    yield from wire_text("url", request.request_target, room)


def field_pieces(place: str, name: str, value: str, room: Room) -> PieceStream:
    yield Piece(place=f"{place} (its name)", value=name, is_name=True)
    if name.lower() == "cookie":
        for cookie, text in parse_cookies([value]).raw:
            yield from readings(f"{place} {quoted(cookie)}", text, room, cookie)
    scheme, space, credentials = value.partition(" ")
    if space and SCHEME.fullmatch(scheme):  # "Basic" and base64, "Bearer" and a token
        yield from under(name, encoded_in(place, credentials.strip(), room))
    yield from wire_text(place, value, room, name)


def wire_text(place: str, text: str, room: Room, name: str = "") -> PieceStream:
    """What was sent in UTF-8 where the wire is ASCII is latin-1 in a `Request`."""
    yield from readings(place, text, room, name)
    if not text.isascii():
        yield Piece(place=place, value=text.encode("latin-1", "replace"), name=name, is_raw=True)


SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")


def trailer_pieces(trailers: Headers, room: Room) -> PieceStream:
    for name, value in trailers.raw:
        yield from field_pieces(f"trailer {name}", name, value, room)


def body_pieces(request: Request, room: Room) -> PieceStream:
    raw = kept_body(request)
    if isinstance(raw, Unread):
        yield raw
        if begun := bytes(getattr(request._body, "so_far", b"")):
            yield Piece(place="body", value=begun, is_raw=True)
        return
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > len(raw):
        yield Unread(place="body", why=f"has come in part: {len(raw)} of {announced} bytes")
    inner = bytearray()
    try:
        content = request.content if is_decoded(request) else within_room(request, raw, room, inner)
    except ContentError as error:
        yield Unread(place="body", why=f"cannot be decoded: {error}")
        content = bytes(inner) or raw
    is_envelope = ENVELOPE_PATH.search(request.path) is not None
    content_type = ENVELOPE if is_envelope else request.headers.get("content-type", "")
    yield from content_pieces("body", content, content_type, room)


def is_decoded(request: Request) -> bool:
    """Whether its content is at hand: nothing has to be decoded for it, or a test has asked for it."""
    return not codings(request.headers.get("content-encoding", "")) or "_content" in vars(request)


def within_room(request: Request, raw: bytes, room: Room, inner: bytearray) -> bytes:
    """Decode a body as far as there is room, into `inner`. Raise ContentError for the rest, as `Request.content`."""
    coding, limit = (
        request.headers.get("content-encoding", ""),
        min(MAX_PARSED_BYTES, room.budget.left),
    )
    for piece in decoded([raw], coding, max(limit, 0)):
        inner += piece
        room.take(len(piece))
    return bytes(inner)


ENVELOPE_PATH: Final = re.compile(r"/api/[^/]+/envelope/?\Z")


def kept_body(request: Request) -> bytes | Unread:
    """The body as it was sent. It is not waited for."""
    if request.shown_stream:
        return Unread(place="body", why=f"was streamed, and is not kept{request.shown_stream}")
    if not request.is_whole:
        return Unread(place="body", why="has not been read to its end")
    return request.raw_content


def grpc_pieces(call: GrpcCall, request: Request, room: Room) -> PieceStream:
    """The messages of a call: as they were sent where its body was kept, else as its servicer got them."""
    for name, value in call.metadata:
        if isinstance(value, bytes):
            place = f"metadata {name}"
            yield from content_pieces(place, value, "", room)
    kept = so_far(request)
    if request.is_cut or not (request.is_whole or call.is_read_out):
        yield Unread(place="body", why="may have more messages than were read")
    messages: Any = call.requests
    if (
        request.is_whole or kept
    ):  # a call of a cassette that its server has ended first is never whole
        messages = framed(kept, request)
    for number, message in enumerate(messages):
        if isinstance(message, (Unread, Piece)):
            yield message
            continue
        yield from message_pieces(f"message {number}", message, room)


def so_far(request: Request) -> bytes:
    """What has come of a body, and was kept. It is not waited for."""
    if request.is_whole and not request.shown_stream:
        return request.raw_content
    return bytes(getattr(request._body, "so_far", b""))


def framed(content: bytes, request: Request) -> Iterator[bytes | Unread | Piece]:
    """The messages in a body, one at a time; and last its rest as it is, with why it is no message."""
    buffer = MessageBuffer(request.headers.get("grpc-encoding", "identity").lower())
    buffer.receive(content)
    left, rest = buffer.size + MAX_PARSED_BYTES, buffer.size
    try:
        while (message := buffer.next_message()) is not None:
            left -= len(message)
            if left < 0:
                yield spent("body")
                break
            rest = buffer.size
            yield message
        else:
            if request.is_whole:
                buffer.check_end()
    except StatusError as error:
        yield Unread(place="body", why=f"cannot be decoded: {error}")
    if rest:
        yield Piece(place="body", value=content[-rest:], is_raw=True)


def message_pieces(place: str, message: Any, room: Room) -> PieceStream:
    """A message of gRPC: bytes, or one of protobuf, whose fields have names."""
    if isinstance(message, str):
        yield from readings(place, message, room)
    elif isinstance(message, bytes):
        yield from content_pieces(place, message, "", room)
    elif hasattr(message, "ListFields") and hasattr(message, "SerializeToString"):
        yield from protobuf_pieces(place, message, room)
        yield Piece(place=place, value=message.SerializeToString(), is_raw=True)
    else:
        yield Unread(place=place, why=f"is a {type(message).__name__}, whose bytes are not kept")


def protobuf_pieces(place: str, message: Any, room: Room) -> PieceStream:
    stack: list[tuple[str, str, Any]] = [("", "", message)]
    while stack:
        path, name, value = stack.pop()
        where = f"{place}: {path}" if path else place
        if hasattr(value, "ListFields"):
            fields = [
                (f"{path}.{f.name}".lstrip("."), f.name, each) for f, each in value.ListFields()
            ]
            stack += reversed(fields)
        elif isinstance(value, str):
            yield from readings(where, value, room, name)
        elif isinstance(value, bytes):
            yield from content_pieces(where, value, "", room)
        elif hasattr(value, "items"):  # a map
            for key, each in value.items():
                yield from readings(f"{where} (a name)", str(key), room)
                stack.append((f"{path}[{quoted(str(key))}]", str(key), each))
        elif hasattr(value, "__len__"):  # a repeated field
            stack += [(f"{path}[{i}]", name, value[i]) for i in reversed(range(len(value)))]


def socket_pieces(exchange: Exchange, room: Room) -> PieceStream:
    """The messages of a WebSocket that the target has sent, and the reason in its close frame."""
    ws = exchange.websocket
    if ws.unkept:
        yield Unread(place="messages", why=f"are not all kept: {ws.unkept} are missing")
    for number, message in enumerate([*exchange.messages]):
        if message.from_client:
            place, content = f"message {number}", message.content
            data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
            yield from content_pieces(place, data, "", room)
    if ws.close_reason:
        yield Piece(place="the reason of its close frame", value=ws.close_reason)


# Everything else.


def connection_pieces(connection: TcpConnection, room: Room) -> PieceStream:
    data = connection.content or connection.first_bytes
    yield from content_pieces("its bytes", data, "", room)
    if connection.unread:
        yield Unread(place="its bytes", why=connection.unread)


def all_of_mail(mail: Mail, room: Room) -> PieceStream:
    for place, texts in (
        ("MAIL FROM", (mail.sender,)),
        ("RCPT TO", mail.recipients),
        ("the name of its login", (mail.user or "",)),
    ):
        for text in filter(None, texts):
            yield Piece(place=place, value=text)
    if not mail.content:
        yield Unread(place="mail", why="has no content that was kept")
    yield from mail_pieces("mail", mail.content, room)
    yield Piece(place="mail", value=mail.content, is_raw=True)


def record_pieces(record: KafkaRecord, room: Room) -> PieceStream:
    for place, text in (
        ("topic", record.topic),
        ("client.id", record.client_id),
        ("the name of its login", record.user or ""),
    ):
        yield from readings(place, text, room)
    for place, data in (("key", record.key), ("value", record.value)):
        yield from content_pieces(place, data or b"", "", room)
    for name, value in record.headers:
        yield Piece(place=f"header {quoted(name)} (its name)", value=name, is_name=True)
        yield from under(name, content_pieces(f"header {quoted(name)}", value or b"", "", room))


def packet_pieces(packet: PacketAttempt, room: Room) -> PieceStream:
    yield from content_pieces("its bytes", packet.first_bytes, "", room)
    size = packet.size - UDP_HEADER_BYTES if packet.protocol == "UDP" else packet.size
    # The first packet of QUIC has a ClientHello, as TLS has, and nothing of the application.
    if len(packet.first_bytes) >= SHOWN_BYTES < size and not packet.is_quic:
        yield Unread(place="its bytes", why=f"are kept in part: the first {SHOWN_BYTES} of {size}")
