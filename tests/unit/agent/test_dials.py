"""The agent's rules for dials, as requests to a kernel that does what it is told to."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

import pytest_egress.agent.dials as module
from pytest_egress.agent import netlink
from pytest_egress.agent.capture import Refusal
from pytest_egress.agent.dials import GONE, INSERT, REFUSED, REPLACE, RULE, Dials

RULES = [
    RULE.pack(REFUSED, 4, 32, port, bytes(8), socket.inet_aton("192.0.2.1")) for port in (80, 443)
]
NEW_RULE, DELETE_RULE = 10 << 8 | 6, 10 << 8 | 8
APPENDED = netlink.APPEND


class Asked:
    """What the kernel was asked, in order.

    Attributes:
        error: What the kernel says; None where it does as it is told.
    """

    def __init__(self) -> None:
        self.requests: list[netlink.NetlinkRequest] = []
        self.acknowledged = 0
        self.error: Exception | None = None

    def ask(
        self,
        _sock: object,
        requests: list[netlink.NetlinkRequest],
        *,
        wrap: bool,
        acknowledged: int,
    ) -> None:
        assert wrap
        self.requests, self.acknowledged = requests, acknowledged
        if self.error is not None:
            raise self.error


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(module, "ask", asked.ask)
    return asked


@pytest.fixture
def dials() -> Iterator[Dials]:
    dials = Dials()
    yield dials
    dials._sock.close()


def test_a_replacement_deletes_the_rules_before_it_adds_others(asked: Asked, dials: Dials) -> None:
    assert dials.change(REPLACE + b"".join(RULES)) == ""
    kinds = [request.kind for request in asked.requests]
    assert kinds == [DELETE_RULE, NEW_RULE, NEW_RULE]
    assert all(request.flags & APPENDED for request in asked.requests[1:])
    assert b"\0\x50" in asked.requests[1].body  # port 80 comes first
    assert asked.acknowledged == 3  # alone, since a socket has room for few answers


def test_an_insertion_puts_its_rules_before_the_others_in_their_order(
    asked: Asked, dials: Dials
) -> None:
    assert dials.change(INSERT + b"".join(RULES)) == ""
    assert [request.kind for request in asked.requests] == [NEW_RULE, NEW_RULE]
    assert not any(request.flags & APPENDED for request in asked.requests)
    assert b"\0\x50" in asked.requests[1].body


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOENT, GONE),
        (
            errno.EPERM,
            "The kernel refused the nftables rule (a dial) (EPERM). "
            "The sidecar has no CAP_NET_ADMIN in its own network namespace.",
        ),
    ],
)
def test_a_kernel_that_refuses_is_told_of(
    asked: Asked, dials: Dials, number: int, expected: str
) -> None:
    request = netlink.NetlinkRequest("the nftables rule (a dial)", "", 0, 0, b"")
    asked.error = Refusal(request, number)
    assert dials.change(REPLACE + RULES[0]) == expected


def test_a_message_that_cannot_be_sent_is_told_of(asked: Asked, dials: Dials) -> None:
    asked.error = OSError(errno.EMSGSIZE, "Message too long")
    assert dials.change(REPLACE) == (
        "The kernel was not told its rules: [Errno 90] Message too long."
    )


def test_the_port_id_of_its_socket_is_the_kernels(dials: Dials) -> None:
    assert dials.feature == f"dials={dials._sock.getsockname()[0]}"
    assert dials.feature != "dials=0"
