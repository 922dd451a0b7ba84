"""What a kernel refuses of the rules, and what it is told to lack."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

import pytest

from pytest_egress.agent import netlink
from pytest_egress.agent.capture import Refusal, ask
from pytest_egress.agent.nftables import PacketMarks, ruleset

MARKS = PacketMarks(bytes(8))


class ScriptedKernel:
    """Stands for the kernel behind a netlink socket: refuses the requests that it is told to."""

    def __init__(self, refusals: Iterable[tuple[int, int]]) -> None:
        self.refusals = dict(refusals)
        self.asked: list[int] = []

    def settimeout(self, _seconds: float | None) -> None: ...

    def send(self, data: bytes) -> int:
        self.asked = [sequence for _, sequence, _ in netlink.messages(data)]
        return len(data)

    def recv(self, _size: int) -> bytes:
        numbers = [(sequence, self.refusals.get(sequence, 0)) for sequence in self.asked]
        return b"".join(
            netlink.message(netlink.ERROR, 0, struct.pack("=i", -number) + bytes(16), sequence)
            for sequence, number in numbers
            if sequence or number
        )


def refusal(*refusals: tuple[int, int]) -> str:
    """What is said when the kernel refuses these of the rule set's requests."""
    with pytest.raises(Refusal) as caught:
        ask(ScriptedKernel(refusals), ruleset((1, 2), None, MARKS), wrap=True)  # type: ignore[arg-type]
    return str(caught.value)


def test_requests_that_are_all_acknowledged_are_done() -> None:
    ask(ScriptedKernel([]), ruleset((1, 2), (3, 4), MARKS), wrap=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "number", [errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT, errno.EINVAL]
)
def test_a_kernel_without_an_expression_is_told_what_it_lacks(number: int) -> None:
    assert refusal((10, number)) == (
        "The kernel refused the nftables rule (redirect of resolver DNS over UDP) "
        f"({errno.errorcode[number]}). It lacks nf_tables NAT (CONFIG_NFT_REDIR), which is neither "
        "built in nor loadable. Use an engine whose kernel has it: without it no target is started."
    )


def test_a_kernel_without_nf_tables_refuses_the_whole_transaction() -> None:
    text = refusal((0, errno.EOPNOTSUPP))
    name = errno.errorcode[errno.EOPNOTSUPP]
    assert text.startswith(f"The kernel refused the table inet egress ({name}). It lacks nf_tables")


def test_the_first_refusal_is_the_one_that_is_told() -> None:
    assert "chain of type nat (ENOENT). It lacks nf_tables NAT (CONFIG_NFT_NAT)" in refusal(
        (2, errno.ENOENT), (5, errno.ENOENT)
    )


def test_a_missing_capability_is_told_apart() -> None:
    assert refusal((1, errno.EPERM)).endswith(
        "(EPERM). The sidecar has no CAP_NET_ADMIN in its own network namespace."
    )


def test_any_other_refusal_is_told_as_it_is() -> None:
    assert refusal((1, errno.EEXIST)) == "The kernel refused the table inet egress (EEXIST)."
