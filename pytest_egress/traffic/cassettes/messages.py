"""The messages of a call of gRPC as a cassette has them: readable where the generated code of the service is imported.

A message with fields is a mapping, as the JSON of protobuf has it, but for integers of 64 bits, which are numbers. Any
other message, and one whose code is not imported, is a text of base64. protobuf is never imported for this: without
generated code there is none.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from pytest_egress.traffic.cassettes.bodies import base64_lines, check_depth_and_text
from pytest_egress.traffic.grpc import MessageBuffer
from pytest_egress.traffic.http.headers import Headers

OWN: Final = "google.protobuf."  # messages whose JSON is their own
HALF_CLOSE: Final = "half-close"
"""In the messages of a call: its client has sent all of its own (RFC 9113 section 5.1)."""


class CallTurn(NamedTuple):
    """What one side of a call has sent.

    Attributes:
        message: None for the end of the client's messages.
    """

    from_client: bool
    message: bytes | None


def messages_in(content: bytes, headers: Headers) -> list[bytes]:
    """The messages of a whole body. StatusError says what is malformed in it."""
    buffer = MessageBuffer(headers.get("grpc-encoding", "identity"))
    buffer.receive(content)
    found = []
    while (message := buffer.next_message()) is not None:
        found.append(message)
    buffer.check_end()
    return found


def class_of(path: str, of: str) -> Any | None:
    """The class of the messages of a method; None where no generated code of its service is imported.

    Args:
        path: That of a request: "/shop.v1.Payments/Charge".
        of: "request" or "response".
    """
    pool = sys.modules.get("google.protobuf.descriptor_pool")
    service, _, name = path.removeprefix("/").rpartition("/")
    if pool is None:
        return None
    try:
        method = pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return None
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(method.input_type if of == "request" else method.output_type)


# As it is written.


def takes_turns(turns: Iterable[CallTurn]) -> bool:
    """Whether the server has sent something, or ended the call, before the end of the client's messages."""
    for turn in turns:
        if not turn.from_client or turn.message is None:
            return not turn.from_client
    return True


def shown_turns(turns: Iterable[CallTurn], path: str) -> list[Any]:
    return [shown_turn(turn, path) for turn in turns]


def shown_turn(turn: CallTurn, path: str) -> Any:
    if turn.message is None:
        return HALF_CLOSE
    direction, of = ("send", "request") if turn.from_client else ("receive", "response")
    return {direction: shown_message(turn.message, class_of(path, of))}


def shown_message(data: bytes, kind: Any | None) -> Any:
    """A mapping where that says all of it, else base64."""
    value = None if kind is None else value_of(data, kind)
    return base64_lines(data) if value is None else value


def value_of(data: bytes, kind: Any) -> dict[str, Any] | None:
    """The fields of a message; None where they lose something, such as a field that the imported code does not know."""
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import Error

    try:
        message = kind.FromString(data)
        found: Any = MessageToDict(message, preserving_proto_field_name=True)
        if not isinstance(found, dict):
            return None
        value = with_numbers(found, kind.DESCRIPTOR)
        check_depth_and_text(value)
        made = made_of(value, kind)
    except (Error, TypeError, ValueError, RecursionError):
        return None
    is_same = made.SerializeToString(deterministic=True) == message.SerializeToString(
        deterministic=True
    )
    return value if is_same else None


def with_numbers(value: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    """Fields of 64 bits as numbers; the JSON of protobuf has them as texts. protobuf limits how deep they nest."""
    if descriptor.full_name.startswith(OWN):
        return value
    fields = descriptor.fields_by_name
    return {
        name: of_field(each, fields[name]) if name in fields else each
        for name, each in value.items()
    }


def of_field(value: Any, field: Any) -> Any:
    if (inner := of_value(field)) is not field:
        return {key: of_field(each, inner) for key, each in value.items()}
    if isinstance(value, list):
        return [of_one(each, field) for each in value]
    return of_one(value, field)


def of_one(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        is_fields = isinstance(value, dict)
        return with_numbers(value, field.message_type) if is_fields else value
    is_long = field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
    return int(value) if is_long else value


def untextual(value: Any, descriptor: Any) -> Iterator[tuple[str, str]]:
    """The texts of a message that are no text of it, such as a number's or bytes', each with its place."""
    if not isinstance(value, dict) or descriptor.full_name.startswith(OWN):
        return
    known = descriptor.fields_by_name
    for name, each in value.items():
        if name in known:
            for place, one in places(name, each, known[name]):
                yield from untextual_of_one(place, one, of_value(known[name]))


def places(name: str, value: Any, field: Any) -> Iterator[tuple[str, Any]]:
    if field is not of_value(field) and isinstance(value, dict):
        yield from ((f"{name}[{key!r}]", each) for key, each in value.items())
    elif isinstance(value, list):
        yield from ((f"{name}[{number}]", each) for number, each in enumerate(value))
    else:
        yield name, value


def of_value(field: Any) -> Any:
    """The field of the values of a map; else the field itself."""
    inner = field.message_type
    is_map = inner is not None and inner.GetOptions().map_entry
    return inner.fields_by_name["value"] if is_map else field


def untextual_of_one(place: str, value: Any, field: Any) -> Iterator[tuple[str, str]]:
    if field.message_type is not None:
        for inner, text in untextual(value, field.message_type):
            yield f"{place}.{inner}", text
    elif isinstance(value, str) and field.type != field.TYPE_STRING:
        yield place, value


# As it is sent again.


def made_of(value: dict[str, Any], kind: Any) -> Any:
    """The message of some fields. ValueError says which is wrong."""
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        return ParseDict(value, kind())
    except ParseError as error:
        raise ValueError(str(error)) from None


def sent_message(value: Any, path: str, of: str) -> bytes:
    """The bytes of a message that was recorded. ValueError says why there are none."""
    if isinstance(value, str):
        return base64.b64decode("".join(value.split()))
    if (kind := class_of(path, of)) is None:
        raise ValueError(not_imported(path))
    data: bytes = made_of(value, kind).SerializeToString()
    return data


def not_imported(path: str) -> str:
    service = path.removeprefix("/").rpartition("/")[0]
    return f"the generated code of {service} is not imported: import its module, such as shop_pb2, in the test"


# What somebody may have written by hand.


def check_messages(value: Any) -> str:
    """Why a value is no list of messages; "" where it is one."""
    if not isinstance(value, list):
        return "it takes a list of messages"
    for number, each in enumerate(value, 1):
        if why := check_message(each):
            return f"message {number} {why}"
    return ""


def check_message(value: Any) -> str:
    if not isinstance(value, (dict, str)):
        return "has its fields, or is a text of base64"
    try:
        base64.b64decode("".join(value.split()) if isinstance(value, str) else "", validate=True)
    except ValueError as error:
        return f"is no base64: {error}"
    return ""


def check_turns(value: Any) -> str:
    """Why a value is no list of the messages of both sides; "" where it is one."""
    if not isinstance(value, list):
        return f"it takes a list of messages, each `send: ...`, `receive: ...` or `{HALF_CLOSE}`"
    has_ended = False
    for number, each in enumerate(value):
        place = f"messages[{number}]"
        if each == HALF_CLOSE and not has_ended:
            has_ended = True
            continue
        if not isinstance(each, dict) or len(each) != 1 or not {*each} <= {"send", "receive"}:
            listed = f"`send: ...` nor `receive: ...`, nor the only `{HALF_CLOSE}`"
            return f"{place} is neither {listed}"
        if has_ended and "send" in each:
            return f"{place}: nothing is sent after `{HALF_CLOSE}`"
        if why := check_message(next(iter(each.values()))):
            return f"{place} {why}"
    return ""
