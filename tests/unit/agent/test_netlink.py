"""Messages of netlink are built and read."""

from __future__ import annotations

import errno
import struct

from pytest_egress.agent import netlink


def test_an_attribute_is_padded_and_a_nested_one_is_marked() -> None:
    assert netlink.attribute(3, b"lo\0") == b"\x07\x00\x03\x00lo\0\0"
    assert netlink.nest(2, netlink.attribute(1)) == b"\x08\x00\x02\x80\x04\x00\x01\x00"


def test_a_message_says_how_long_it_is() -> None:
    assert netlink.message(16, netlink.ACK, b"body", 7).hex() == (
        "14000000" + "1000" + "0500" + "07000000" + "00000000" + b"body".hex()
    )


def test_what_is_built_is_parsed_again() -> None:
    body = netlink.attribute(1, b"one") + netlink.nest(2, netlink.attribute(3, b"three"))
    data = netlink.message(20, 0, body, 1) + netlink.message(21, 0, b"", 2)
    (first, second) = netlink.messages(data)
    assert (first[:2], second) == ((20, 1), (21, 2, b""))
    found = netlink.attributes(first[2])
    assert found[1] == b"one"
    assert netlink.attributes(found[2]) == {3: b"three"}


def test_an_answer_is_an_errno() -> None:
    refused = struct.pack("=i", -errno.EPERM) + bytes(16)
    data = netlink.message(netlink.ERROR, 0, bytes(20), 1) + netlink.message(
        netlink.ERROR, 0, refused, 2
    )
    assert list(netlink.answers(data)) == [(1, 0), (2, errno.EPERM)]


def test_the_messages_of_one_port_are_left_out() -> None:
    others = netlink.message(20, 0, b"ours", 1), netlink.message(21, 0, b"", 2)
    first = bytearray(others[0])
    first[12:16] = struct.pack("=I", 77)
    data = bytes(first) + others[1]
    assert [kind for kind, _, _ in netlink.messages(data, 77)] == [21]
    assert [kind for kind, _, _ in netlink.messages(data)] == [20, 21]


def test_requests_are_acknowledged_from_a_number_on() -> None:
    requests = [netlink.NetlinkRequest("", "", 20, netlink.APPEND, b"") for _ in range(3)]
    flags = [
        struct.unpack_from("=H", netlink.numbered(requests, 3), at + 6)[0] for at in (0, 16, 32)
    ]
    assert [bool(each & netlink.ACK) for each in flags] == [False, False, True]
