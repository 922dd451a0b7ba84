"""Messages of gRPC in a cassette: readable where that says all of them, else base64."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.struct_pb2 import Struct

from pytest_egress.traffic.cassettes.messages import (
    CallTurn,
    check_messages,
    class_of,
    messages_in,
    sent_message,
    shown_message,
    shown_turns,
)
from pytest_egress.traffic.grpc import StatusError, frame
from pytest_egress.traffic.http.headers import Headers
from tests.support.greeter import pb

UNARY = "/greet.v1.Greeter/Unary"


def test_the_messages_of_a_service_whose_code_is_imported_are_readable_and_others_are_base64() -> (
    None
):
    hello = pb.Hello(name="you", count=2, blob=b"\xff").SerializeToString()
    (shown,) = shown_turns([CallTurn(True, hello)], UNARY)
    assert shown == {"send": {"name": "you", "count": 2, "blob": "/w=="}}
    assert shown_turns([CallTurn(False, b"\x08\x01")], "/greet.v1.Other/Unary") == [
        {"receive": "CAE="}
    ]
    assert class_of("/greet.v1.Greeter/Missing", "request") is None
    assert class_of(UNARY, "response") is pb.Reply


def test_a_message_is_sent_as_it_was() -> None:
    hello = pb.Hello(name="you", count=2)
    value = shown_message(hello.SerializeToString(), pb.Hello)
    assert pb.Hello.FromString(sent_message(value, UNARY, "request")) == hello
    assert sent_message("CA\nE=", UNARY, "request") == b"\x08\x01"


@pytest.mark.parametrize("data", [b"\xff", b"\x78\x01", Struct().SerializeToString() + b"\x7a\0"])
def test_what_the_imported_code_does_not_know_stays_bytes(data: bytes) -> None:
    """A field of a newer version would be lost; 15 is none of Hello's."""
    assert isinstance(shown_message(data, pb.Hello), str)


def test_integers_of_64_bits_are_numbers_at_any_depth() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="cassette_long.proto", package="cassette.long")
    kind = file.message_type.add(name="Long")
    kind.field.add(name="big", number=1, type=3, label=1)
    kind.field.add(name="bigs", number=2, type=4, label=3)
    kind.field.add(name="inner", number=3, type=11, label=1, type_name=".cassette.long.Long")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("cassette.long.Long"))
    message = made(big=2**60, bigs=[1, 2**64 - 1], inner=made(big=-1))
    value = shown_message(message.SerializeToString(), made)
    assert value == {"big": 2**60, "bigs": [1, 2**64 - 1], "inner": {"big": -1}}


def test_a_message_that_cannot_be_made_is_named() -> None:
    with pytest.raises(ValueError, match='no field named "nmae"'):
        sent_message({"nmae": "you"}, UNARY, "request")
    with pytest.raises(ValueError, match=r"code of shop.v1.Pay is not imported: import its module"):
        sent_message({"a": 1}, "/shop.v1.Pay/Charge", "request")


def test_a_body_is_cut_into_its_messages() -> None:
    assert messages_in(frame(b"a") + frame(b""), Headers()) == [b"a", b""]
    with pytest.raises(StatusError, match="ended within a message"):
        messages_in(frame(b"abc")[:-1], Headers())


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([{"a": 1}, "CAE="], ""),
        ({}, "it takes a list of messages"),
        ([1], "message 1 has its fields, or is a text of base64"),
        ([{}, "!"], "message 2 is no base64"),
    ],
)
def test_messages_are_checked(value: object, why: str) -> None:
    assert check_messages(value).startswith(why)
    assert bool(check_messages(value)) == bool(why)
