"""Gives up capabilities of this process, for good. CAP_NET_RAW is needed to open a packet socket, and not to use it.

`ctypes` is imported when a capability is given up, since that takes longer than all else that the agent imports.
"""

from __future__ import annotations

from posix import strerror
from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

SETPCAP, NET_ADMIN, NET_RAW, SYS_ADMIN = 8, 12, 13, 21  # capabilities(7)
_CAPBSET_DROP, _NO_NEW_PRIVS = 24, 38  # prctl(2)
_VERSION = 0x20080522  # of the arguments of capset(2)


def forbid(*capabilities: int) -> None:
    """No program that this process runs can have these, nor more than this process has. It needs CAP_SETPCAP."""
    libc = c_library()
    for capability in capabilities:
        check(libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0))
    check(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))


def keep(*capabilities: int) -> None:
    """Give up all others."""
    kept = sum(1 << capability for capability in capabilities)
    check(c_library().capset(pack("=Ii", _VERSION, 0), pack("=6I", kept, kept, 0, 0, 0, 0)))


def keep_for_network() -> None:
    """Keep CAP_NET_ADMIN, and CAP_NET_RAW where there is one."""
    try:
        keep(NET_ADMIN, NET_RAW)
    except PermissionError:
        keep(NET_ADMIN)


def give_up_raw() -> None:
    """Keep CAP_NET_ADMIN alone. A Python without `ctypes` cannot: its agent keeps what its container has."""
    try:
        keep(NET_ADMIN)
    except ImportError:
        return


def c_library() -> CDLL:
    from ctypes import CDLL

    return CDLL(None, use_errno=True)


def check(result: int) -> None:
    """OSError where a call of the C library has failed."""
    if result:
        from ctypes import get_errno

        number = get_errno()
        raise OSError(number, strerror(number))
