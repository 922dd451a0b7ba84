"""Handshakes of WebSockets as fields, and frames as values."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.websocket import (
    MAX_MESSAGE_BYTES,
    ClosedError,
    Closing,
    Frames,
    OpeningError,
    PingFrame,
    WebSocketMessage,
    accept,
    agreed_deflate,
    asks_for_websocket,
    check_close,
    check_subprotocols,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def request(method: str = "GET", **fields: str | None) -> Request:
    """The handshake of RFC 6455 section 1.2, with other values for some of its fields; None leaves one out."""
    changed = {name.replace("_", "-").lower(): value for name, value in fields.items()}
    kept = {name: value for name, value in HANDSHAKE.items() if name.lower() not in changed}
    given = {name: value for name, value in changed.items() if value is not None}
    return request_with([*kept.items(), *given.items()], method)


def request_with(fields: list[tuple[str, str]], method: str = "GET") -> Request:
    return Request(
        method=method,
        scheme="https",
        host="ws.test",
        port=443,
        path="/chat",
        headers=Headers(fields),
    )


# The handshake.


def test_a_handshake_is_answered_as_rfc_6455_has_it() -> None:
    handshake = accept(request())
    assert handshake.status_code == 101
    assert handshake.headers.raw == (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    )
    assert (handshake.subprotocol, handshake.deflate) == (None, None)


def test_the_first_subprotocol_of_the_server_that_the_client_offers_is_agreed_on() -> None:
    asked = request(Sec_WebSocket_Protocol="chat.v1, chat.v2")
    handshake = accept(asked, ["chat.v3", "chat.v2", "chat.v1"])
    assert handshake.subprotocol == handshake.headers["sec-websocket-protocol"] == "chat.v2"


def test_without_a_common_subprotocol_none_is_agreed_on() -> None:
    handshake = accept(request(Sec_WebSocket_Protocol="Chat"), ["chat"])
    assert handshake.subprotocol is None
    assert "sec-websocket-protocol" not in handshake.headers


def test_an_ordinary_request_is_told_to_upgrade() -> None:
    for plain in (
        request(Upgrade=None),
        request(Connection="keep-alive"),
        request(Upgrade="h2c"),
        request("POST"),
    ):
        with pytest.raises(OpeningError, match="is an ordinary request") as caught:
            accept(plain)
        assert caught.value.status_code == 426
        assert caught.value.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("version", ["8", "13, 8", "", None])
def test_another_version_is_refused_with_the_one_that_is_spoken(version: str | None) -> None:
    with pytest.raises(OpeningError, match="it has to be 13") as caught:
        accept(request(Sec_WebSocket_Version=version))
    assert caught.value.status_code == 426
    assert caught.value.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    "key", [None, "", "c2hvcnQ=", f"{KEY}AAAA", "dGhlIHNhbXBsZSBub25jZQ=*", "ü" * 24]
)
def test_a_key_that_is_not_16_bytes_is_refused(key: str | None) -> None:
    with pytest.raises(OpeningError, match="Sec-WebSocket-Key is") as caught:
        accept(request(Sec_WebSocket_Key=key))
    assert caught.value.status_code == 400


def test_two_keys_are_refused() -> None:
    with pytest.raises(OpeningError, match="once"):
        accept(request_with([*HANDSHAKE.items(), ("Sec-WebSocket-Key", KEY)]))


def test_a_body_is_refused() -> None:
    for fields in ({"Content_Length": "5"}, {"Transfer_Encoding": "chunked"}):
        with pytest.raises(OpeningError, match="has no body"):
            accept(request(**fields))
    assert accept(request(Content_Length="0")).status_code == 101


def test_over_http_2_there_is_no_key_and_the_status_is_200() -> None:
    fields = [("upgrade", "websocket"), ("sec-websocket-version", "13")]
    asked = dataclasses.replace(request_with(fields), http_version="2")
    handshake = accept(asked)
    assert (handshake.status_code, handshake.headers.raw) == (200, ())
    plain = dataclasses.replace(request_with(fields[1:]), http_version="2")
    with pytest.raises(OpeningError, match="is an ordinary request"):
        accept(plain)


def test_names_of_upgrades_compare_without_case() -> None:
    asked = request(Upgrade="WebSocket", Connection="UPGRADE")
    assert asks_for_websocket(asked)
    assert accept(asked).status_code == 101


FIELD = st.tuples(
    st.sampled_from([*HANDSHAKE, "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"]),
    st.text(st.characters(max_codepoint=255), max_size=60)
    | st.sampled_from(
        [
            *HANDSHAKE.values(),
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=10, x",
        ]
    ),
)


@given(st.lists(FIELD, max_size=8), st.booleans(), st.sampled_from(["GET", "POST"]))
def test_any_fields_are_a_handshake_or_a_handshake_error(
    fields: list[tuple[str, str]], whole: bool, method: str
) -> None:
    asked = request_with([*(HANDSHAKE.items() if whole else ()), *fields], method)
    try:
        handshake = accept(asked, ["chat"])
    except OpeningError as refusal:
        status = refusal.status_code
        assert status in (400, 426)
    else:
        assert "".join(value for _, value in handshake.headers.raw).isascii()
        Frames(handshake.deflate).message("text")


# Compression.


@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ("", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate", ""),
        ("permessage-deflate; client_max_window_bits", ""),
        ("permessage-deflate; client_max_window_bits=8", ""),
        ("permessage-deflate; server_max_window_bits=10", "server_max_window_bits=10"),
        ('permessage-deflate; server_max_window_bits="10"', "server_max_window_bits=10"),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "server_no_context_takeover; client_no_context_takeover",
        ),
        ("permessage-deflate; server_max_window_bits=8", None),  # zlib has none
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=010", None),
        ("permessage-deflate; client_max_window_bits=x", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("permessage-deflate; other", None),
        ("permessage-deflate; other, permessage-deflate", ""),
        (
            "x; y, permessage-deflate; server_max_window_bits=9, permessage-deflate",
            "server_max_window_bits=9",
        ),
        (";", None),
    ],
)
def test_the_first_offer_of_compression_that_can_be_met_is_agreed_on(
    offers: str, agreed: str | None
) -> None:
    assert agreed_deflate(offers) == agreed


@pytest.mark.parametrize(
    "deflate",
    [
        None,
        "",
        "server_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=9",
    ],
)
def test_messages_come_out_as_they_went_in(deflate: str | None) -> None:
    client, server = Frames(deflate, of_client=True), Frames(deflate)
    for content in ("text ü", b"\0binary", "", b"", "x" * 100_000, b"x" * 100_000):
        assert [*server.receive(client.message(content))] == [content]
        assert [*client.receive(server.message(content))] == [content]


def test_a_repeated_message_is_sent_compressed() -> None:
    server = Frames("")
    assert len(server.message("x" * 100_000)) < 1000


# Frames.


def test_a_message_may_come_byte_by_byte_and_others_with_it() -> None:
    client, server = Frames(None, of_client=True), Frames(None)
    data = client.message("one") + client.ping(b"p") + client.message(b"two")
    received = [each for byte in data for each in server.receive(bytes([byte]))]
    assert received == ["one", PingFrame(payload=b"p"), b"two"]
    assert [*server.receive(data)] == received


def test_what_comes_is_searched_as_it_comes_of_pings_and_unfinished_messages_too() -> None:
    from wsproto.events import Pong, TextMessage

    client, server = Frames(None, of_client=True), Frames(None)
    found: list[bytes] = []
    server.search = found.append
    data = client.ping(b"ping") + client._sent(Pong(payload=b"pong")) + client.message(b"\xff")
    begun = client._sent(TextMessage(data="begun", message_finished=False))
    assert len([*server.receive(data + begun)]) == 2
    assert b"".join(found) == b"pingpong\xffbegun"


def test_a_close_frame_is_the_end_and_nothing_after_it_counts() -> None:
    client, server = Frames(None, of_client=True), Frames(None)
    late = Frames(None, of_client=True).message("late")
    data = client.message("last") + client.close(4001, "enough") + late
    assert [*server.receive(data)] == ["last", Closing(code=4001, reason="enough", reply=True)]
    assert [*server.receive(late)] == []


def test_what_is_sent_before_the_answer_to_a_close_frame_is_sent_and_nothing_after_it() -> None:
    client, server = Frames("", of_client=True), Frames("")
    assert [*server.receive(client.close(4001))] == [Closing(code=4001, reason="", reply=True)]
    data = server.message("not too late") + server.pong(b"p") + server.close(4001)
    assert [*client.receive(data)] == ["not too late", Closing(code=4001, reason="", reply=False)]
    with pytest.raises(ClosedError):
        server.message("too late")
    with pytest.raises(ClosedError):
        server.ping()
    with pytest.raises(ClosedError):
        server.close(1000)


def test_the_answer_to_our_close_frame_needs_no_answer() -> None:
    client, server = Frames(None, of_client=True), Frames(None)
    assert [*client.receive(server.close(1000))] == [Closing(code=1000, reason="", reply=True)]
    assert [*server.receive(client.close(1000))] == [Closing(code=1000, reason="", reply=False)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (b"\x83\x80\0\0\0\0", 1002),  # opcode 3
        (b"\xc1\x80\0\0\0\0", 1002),  # RSV1 without an extension
        (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),  # a ping of 126 bytes
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),  # no UTF-8
        (b"\x88\x81\0\0\0\0\x03", 1002),  # a close frame of one byte
    ],
)
def test_bytes_that_are_no_frames_close_with_the_code_of_the_rfc(data: bytes, code: int) -> None:
    (closing,) = Frames(None).receive(data)
    assert isinstance(closing, Closing)
    assert (closing.code, closing.reply) == (code, True)


@given(st.binary(max_size=200), st.sampled_from([None, ""]))
def test_any_bytes_are_frames_or_the_end(data: bytes, deflate: str | None) -> None:
    for received in Frames(deflate).receive(data):
        assert isinstance(received, (str, bytes, PingFrame, Closing))


def test_a_message_over_the_limit_closes_with_1009_before_it_is_whole() -> None:
    client, server = Frames(None, of_client=True), Frames(None, most=10)
    whole = client.message(b"0123456789")
    assert [*server.receive(whole)] == [b"0123456789"]
    (closing,) = server.receive(client.message(b"x" * 11)[:-1] + b"x")
    assert closing == Closing(
        code=1009, reason="a message is over 10 bytes", reply=True, is_refusal=True
    )


def test_a_bomb_is_refused_once_it_is_over_the_limit() -> None:
    bomb = zlib.compressobj(wbits=-15)
    chunk = bytes(1 << 20)
    data = b"".join(bomb.compress(chunk) for _ in range(200)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    frame = b"\xc2\xff" + (len(data) - 4).to_bytes(8, "big") + bytes(4) + data[:-4]
    server, ends = Frames(""), []
    for start in range(0, len(frame), 65536):
        ends += [*server.receive(frame[start : start + 65536])]
        if ends:
            break
    assert [getattr(end, "code", end) for end in ends] == [1009]
    assert start < len(frame) - 65536  # before all of it was read
    assert MAX_MESSAGE_BYTES < 200 << 20


# What tests give.


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, "1000", True, None])
def test_a_code_that_is_never_sent_is_refused(code: Any) -> None:
    with pytest.raises(ValueError, match="a close frame takes 1000 to 1003"):
        check_close(code, "")


def test_a_reason_is_at_most_123_bytes() -> None:
    check_close(4000, "ü" * 61)
    with pytest.raises(ValueError, match="124 bytes in UTF-8, and a close frame has room for 123"):
        check_close(1000, "ü" * 62)
    with pytest.raises(TypeError, match="it takes a str"):
        check_close(1000, b"bytes")


@pytest.mark.parametrize("given", ["chat", {"chat"}, None, 1])
def test_subprotocols_are_a_list(given: Any) -> None:
    with pytest.raises(TypeError, match="it takes a list of names"):
        check_subprotocols(given)


@pytest.mark.parametrize("name", ["", "chat v1", "chat,v1", 1])
def test_a_subprotocol_is_a_token(name: Any) -> None:
    with pytest.raises(ValueError, match="is no name of a subprotocol"):
        check_subprotocols([name])


def test_a_message_shows_its_direction_and_masks_secrets() -> None:
    sent = WebSocketMessage(content="hello", from_client=False, at=0)
    got = WebSocketMessage(content=b'{"password": "abcdefgh"}', from_client=True, at=0)
    assert str(sent) == "<- 'hello'"
    assert str(got).startswith("-> b'")
    assert "abcdefgh" not in str(got)
