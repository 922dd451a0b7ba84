"""What the target's own kernel does with dials and datagrams: messages that change it, and the rules that they become.

A dial is the first packet of a TCP connection. The test process says which ones are not to be connected, and likewise
which datagrams are let out, each as a list of rules of which the first that fits decides. The kernel applies a message
as a whole or not at all.
"""

from __future__ import annotations

import _socket
import errno
from struct import Struct

from .capture import Refusal, ask, open_netlink
from .netlink import NETFILTER
from .nftables import DROP_UNLOGGED, dial_rule, dial_verdict, no_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netlink import NetlinkRequest

REPLACE, INSERT = b"=", b"+"
"""The first byte of a message. `REPLACE`: its rules replace those that there are. `INSERT`: they come before those."""

DATAGRAMS = b"u"
"""Comes before the first byte of a message whose rules are for datagrams. Any other message is for dials."""

RULE = Struct("!BBBH8s16s")
"""A rule: the verdict, the IP version, the bits of the address that count, the port (0 for any), the first bytes of the
TCP header (zeros for any), and the address."""

CAPTURED, REFUSED, DROPPED, SWALLOWED, LET_OUT = range(5)
"""Verdicts. `CAPTURED`: as any other connection, or datagram, which is refused. `REFUSED` and `DROPPED` are logged; a
`SWALLOWED` dial is dropped too, and not logged again: it repeats one that was. `LET_OUT`: of datagrams alone."""

MAX_RULES = 2048
"""The most rules of a namespace for dials, and the most for datagrams: more than the names that a test looks up. The
kernel reports each that it deletes and adds; this many of both fit into the buffer of a monitor, twice, which would
else report a loss."""

MAX_BYTES = 2 + MAX_RULES * RULE.size

PORT = "dials="
"""Begins the word, among the features in the agent's first message, with the port id of the agent's netlink socket:
changes of the rules that come from it are the agent's own."""

GONE = (
    "The kernel knows no rules of ours to change (ENOENT). Something with CAP_NET_ADMIN in the target's network "
    "namespace has deleted them."
)

_SEND_BYTES = 4 << 20
_SEND_BUFFER_FORCE = 32  # SO_SNDBUFFORCE
_ANY = bytes(8)


class Dials:
    """The rules for the dials of the namespace that this process is in."""

    def __init__(self) -> None:
        self._sock = open_netlink(NETFILTER)
        for option in (_SEND_BUFFER_FORCE, _socket.SO_SNDBUF):
            try:
                self._sock.setsockopt(_socket.SOL_SOCKET, option, _SEND_BYTES)
            except OSError:
                continue  # a user namespace forbids it; the second gives what is allowed
            break

    @property
    def feature(self) -> str:
        """The word for the agent's first message."""
        return f"{PORT}{self._sock.getsockname()[0]}"

    def change(self, data: bytes) -> str:
        """Apply a message; return "" or, where the rules stay as they were, the sentence why."""
        requests = _requests(data)
        try:
            ask(self._sock, requests, wrap=True, acknowledged=len(requests))
        except Refusal as refusal:
            return GONE if refusal.number == errno.ENOENT else str(refusal)
        except OSError as error:
            return f"The kernel was not told its rules: {error}."
        return ""


def _requests(data: bytes) -> list[NetlinkRequest]:
    chain = "dials"
    if data[:1] == DATAGRAMS:
        chain, data = "datagrams", data[1:]
    first = data[:1] == INSERT
    rules = [_rule(chain, *fields, first=first) for fields in RULE.iter_unpack(data[1:])]
    # Each rule is put before those that are there: the last one has to come first.
    return rules[::-1] if first else [no_rules(chain), *rules]


def _rule(
    chain: str,
    verdict: int,
    version: int,
    prefix: int,
    port: int,
    begins: bytes,
    address: bytes,
    *,
    first: bool,
) -> NetlinkRequest:
    packed = address[:4] if version == 4 else address
    ends = {
        CAPTURED: dial_verdict(""),
        REFUSED: dial_verdict("refuse_dial"),
        DROPPED: dial_verdict("drop_dial"),
        SWALLOWED: DROP_UNLOGGED,
        LET_OUT: dial_verdict("let_out"),
    }
    begins = b"" if begins == _ANY else begins
    return dial_rule(packed, prefix, port, begins, ends[verdict], first=first, chain=chain)
