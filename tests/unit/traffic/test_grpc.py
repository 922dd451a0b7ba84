"""gRPC's messages, metadata, deadlines and status: what is read, what is refused, and what goes out."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic import grpc as codec
from pytest_egress.traffic.grpc import (
    MAX_MESSAGE_BYTES,
    Code,
    GrpcCall,
    MessageBuffer,
    StatusError,
    accepted_encodings,
    checked_metadata,
    decode_details,
    deflate,
    encode_details,
    frame,
    inflate,
    metadata_fields,
    metadata_of,
    parse_timeout,
    registering,
    status_fields,
    status_head,
    status_in,
)
from pytest_egress.traffic.http.headers import FIELD_VALUE, Headers
from pytest_egress.traffic.http.request import Request

ENCODINGS = ("gzip", "deflate")


def call_of(path: str = "/shop.v1.Payments/Charge", **fields: str) -> GrpcCall | None:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return GrpcCall.of(
        Request(
            method="POST",
            scheme="https",
            host="shop.test",
            port=443,
            path=path,
            headers=Headers({"content-type": "application/grpc", **headers}),
        )
    )


# Calls.


def test_a_call_has_the_service_and_method_of_its_path() -> None:
    call = call_of(x_token="abc")
    assert call is not None
    assert (call.service, call.method, call.path) == (
        "shop.v1.Payments",
        "Charge",
        "/shop.v1.Payments/Charge",
    )
    assert call.metadata == (("x-token", "abc"),)
    assert (call.code, call.status) == (None, None)
    assert repr(call) == "<GrpcCall /shop.v1.Payments/Charge running>"
    call.code = Code.NOT_FOUND
    assert (call.status, repr(call)) == (
        "NOT_FOUND",
        "<GrpcCall /shop.v1.Payments/Charge NOT_FOUND>",
    )


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "application/grpc-web", "application/grpcx"]
)
def test_another_content_type_is_no_call(content_type: str) -> None:
    assert call_of(content_type=content_type) is None


def test_the_only_message_is_had_by_its_name_and_several_are_not() -> None:
    call = GrpcCall(service="s", method="m", requests=["one"], responses=[])
    assert call.request == "one"
    with pytest.raises(ValueError, match="has 0 messages in responses"):
        _ = call.response
    call.responses += ["a", "b"]
    with pytest.raises(ValueError, match="has 2 messages in responses: look at those"):
        _ = call.response


def test_the_generated_function_is_named_after_the_service() -> None:
    assert registering("shop.v1.Payments") == "add_PaymentsServicer_to_server"
    assert registering("Payments") == "add_PaymentsServicer_to_server"


# Metadata.


def test_metadata_is_the_fields_of_the_application() -> None:
    headers = Headers(
        [
            ("Content-Type", "application/grpc"),
            ("te", "trailers"),
            ("host", "shop.test"),
            ("grpc-timeout", "1S"),
            ("grpc-encoding", "gzip"),
            ("X-Token", "abc"),
            ("x-token", "def"),
            ("raw-bin", "AAE=,/w"),
            ("odd-bin", "no base64!"),
        ]
    )
    assert metadata_of(headers) == (
        ("x-token", "abc"),
        ("x-token", "def"),
        ("raw-bin", b"\0\1"),
        ("raw-bin", b"\xff"),
        ("odd-bin", b"no base64!"),
    )


def test_metadata_goes_out_with_bytes_in_base64_without_padding() -> None:
    metadata = checked_metadata([("x-a", "1"), ("x-b", b"2"), ("x-c-bin", b"\0"), ("x-d", " s ")])
    assert metadata_fields(metadata) == [
        ("x-a", "1"),
        ("x-b", "2"),
        ("x-c-bin", "AA"),
        ("x-d", "s"),
    ]
    assert checked_metadata(None) == ()


@pytest.mark.parametrize(
    ("pair", "kind", "text"),
    [
        ("ab", TypeError, "pairs of key and value"),
        (("a", "b", "c"), TypeError, "pairs of key and value"),
        (("X-A", "1"), ValueError, "'X-A' is no key of metadata: it takes a-z"),
        ((b"x", "1"), ValueError, "is no key"),
        (("", "1"), ValueError, "is no key"),
        (("x-bin", "1"), TypeError, "'x-bin' takes bytes, as its key ends in -bin: '1'"),
        (("x", "ü"), ValueError, "takes printable ASCII, not 'ü'; bytes go under a key"),
        (("x", "a\nb"), ValueError, "takes printable ASCII"),
        (("x", 1), ValueError, "takes printable ASCII, not 1"),
    ],
)
def test_metadata_that_cannot_be_sent_is_refused(
    pair: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        checked_metadata([pair])


@given(st.lists(st.tuples(st.from_regex(r"[a-z0-9_.-]{1,20}-bin", fullmatch=True), st.binary())))
def test_bytes_come_back_as_they_went(pairs: list[tuple[str, bytes]]) -> None:
    assert metadata_of(Headers(metadata_fields(checked_metadata(pairs)))) == tuple(pairs)


# The deadline and the status.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4m", 0.004),
        ("5u", 5e-6),
        ("99999999n", 0.099999999),
        ("0S", 0),
    ],
)
def test_a_timeout_is_in_seconds(text: str | None, seconds: float | None) -> None:
    assert parse_timeout(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("text", ["", "1", "S", "1s", "123456789S", "-1S", "1S ", "²S", "1S\n"])
def test_a_malformed_timeout_ends_the_call(text: str) -> None:
    with pytest.raises(StatusError, match="it takes at most 8 digits and one of") as caught:
        parse_timeout(text)
    assert caught.value.code is Code.INTERNAL


def test_details_are_percent_encoded() -> None:
    assert encode_details("100 % ü \n") == "100 %25 %C3%BC %0A"
    assert encode_details(" a b  ") == "%20a b%20%20"
    assert decode_details("100 %25 %C3%BC %0A%zz%ff") == "100 % ü \n%zz\ufffd"


@given(st.text())
def test_any_details_are_a_field_that_says_the_same(details: str) -> None:
    field = encode_details(details)
    assert FIELD_VALUE.fullmatch(field)
    assert field.isascii()
    assert decode_details(field) == details.encode(errors="replace").decode()


def test_a_status_is_fields_and_is_read_from_them() -> None:
    fields = status_fields(Code.NOT_FOUND, "no such", (("x-a", "1"),))
    assert fields == [("grpc-status", "5"), ("grpc-message", "no such"), ("x-a", "1")]
    assert status_in(Headers(fields)) == (Code.NOT_FOUND, "no such")
    assert status_fields(Code.OK, "") == [("grpc-status", "0")]
    assert status_in(Headers(), status_head(Code.ABORTED, "x")) == (Code.ABORTED, "x")
    assert status_head(Code.OK, "")["content-type"] == "application/grpc"


@pytest.mark.parametrize("number", ["17", "999"])
def test_a_status_that_is_none_of_ours_is_unknown(number: str) -> None:
    assert status_in(Headers({"grpc-status": number})) == (Code.UNKNOWN, "")


@pytest.mark.parametrize("number", ["", "-1", "x", "²", "1000"])
def test_what_is_no_status_is_none(number: str) -> None:
    assert status_in(Headers({"grpc-status": number})) == (None, "")


# Messages.


def test_messages_are_cut_wherever_their_bytes_are() -> None:
    data = frame(b"one") + frame(b"") + frame(deflate(b"three", "gzip"), compressed=True)
    for cut in range(len(data)):
        buffer, got = MessageBuffer("gzip"), []
        for piece in (data[:cut], data[cut:]):
            buffer.receive(piece)
            while (message := buffer.next_message()) is not None:
                got.append(message)
        assert got == [b"one", b"", b"three"]
        buffer.check_end()


def refused(data: bytes, encoding: str = "identity") -> StatusError:
    buffer = MessageBuffer(encoding)
    buffer.receive(data)
    with pytest.raises(StatusError) as caught:
        buffer.next_message()
    return caught.value


def test_a_message_that_is_announced_too_large_is_refused_before_it_comes() -> None:
    error = refused(b"\0" + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert str(error) == "a message has 4194305 bytes, which is over the limit of 4194304"


def test_a_message_of_exactly_the_limit_is_taken() -> None:
    data = bytes(MAX_MESSAGE_BYTES)
    for encoding in ENCODINGS:
        assert inflate(deflate(data, encoding), encoding) == data
    buffer = MessageBuffer()
    buffer.receive(frame(data))
    assert buffer.next_message() == data


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_refused(encoding: str) -> None:
    bomb = deflate(bytes(50_000_000), encoding)
    error = refused(frame(bomb, compressed=True), encoding)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert str(error).startswith(f"a message of {len(bomb)} bytes inflates to more")


@pytest.mark.parametrize(
    ("data", "encoding", "code", "text"),
    [
        (b"\2\0\0\0\0", "gzip", Code.INTERNAL, "begins with 2, and neither 0 nor 1"),
        (frame(b"x", compressed=True), "identity", Code.INTERNAL, "no grpc-encoding says how"),
        (frame(b"x", compressed=True), "br", Code.UNIMPLEMENTED, "grpc-encoding is 'br'"),
        (frame(b"xx", compressed=True), "gzip", Code.INTERNAL, "a message is no gzip"),
        (
            frame(zlib.compress(b"x")[:-4], compressed=True),
            "deflate",
            Code.INTERNAL,
            "a message ends within its deflate",
        ),
    ],
)
def test_a_message_that_cannot_be_read_ends_the_call(
    data: bytes, encoding: str, code: Code, text: str
) -> None:
    error = refused(data, encoding)
    assert error.code is code
    assert text in str(error)


def test_a_request_that_ends_within_a_message_ends_the_call() -> None:
    buffer = MessageBuffer()
    buffer.receive(frame(b"whole") + b"\0\0\0")
    assert buffer.next_message() == b"whole"
    assert buffer.next_message() is None
    with pytest.raises(StatusError, match="ended within a message, after 3 bytes of it"):
        buffer.check_end()


def test_the_encodings_that_a_client_takes_are_a_list() -> None:
    headers = Headers({"grpc-accept-encoding": "identity, GZIP,deflate"})
    assert accepted_encodings(headers) == {"identity", "gzip", "deflate"}


def check(error: StatusError) -> None:
    assert error.code in Code
    assert error.details


@given(st.sampled_from(["identity", "gzip", "deflate", "other"]), st.lists(st.binary()))
def test_any_bytes_are_messages_or_ask_for_more_or_are_a_status_error(
    encoding: str, pieces: list[bytes]
) -> None:
    buffer = MessageBuffer(encoding)
    try:
        for piece in pieces:
            buffer.receive(piece)
            while (message := buffer.next_message()) is not None:
                assert isinstance(message, bytes)
        buffer.check_end()
    except StatusError as error:
        check(error)


@given(st.text(), st.text(), st.binary())
def test_any_fields_have_metadata_a_status_and_a_timeout_or_are_a_status_error(
    name: str, value: str, data: bytes
) -> None:
    text = data.decode("latin-1")
    headers = Headers(
        [(name, value), ("x-bin", text), ("grpc-status", text), ("grpc-message", text)]
    )
    for _, each in metadata_of(headers):
        assert isinstance(each, (str, bytes))
    code, details = status_in(headers)
    assert code is None or code in Code
    assert isinstance(details, str)
    try:
        assert (parse_timeout(text) or 0) >= 0
    except StatusError as error:
        check(error)


def test_the_limits_are_those_of_grpc() -> None:
    assert codec.MAX_MESSAGE_BYTES == 4 * 1024 * 1024
    assert [code.value for code in Code] == list(range(17))
