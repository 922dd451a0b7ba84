"""The relay of a run, as this process speaks to it: what it reads and writes, and how a way to it is tried.

Its program is `agent.relay`. A way is of use only if RST passes in both directions, as RST: a client that breaks off
would look like one that ends, and conversely. The proxies of many engines pass an end on for either.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

import pytest_egress.agent.direct as direct
import pytest_egress.agent.relay as program
from pytest_egress.agent.pump import reset
from pytest_egress.base.sockets import Socket

PORT, READY = program.PORT, program.READY
SECRET_PATH, SECRET_BYTES = program.SECRET_PATH, program.SECRET_BYTES
KEY_PATH, KEY_BYTES = direct.KEY_PATH, program.KEY_BYTES
NO_NUMBER: Final = bytes(program.NUMBER_BYTES)  # of a connection for no sidecar
TRY_SECONDS: Final = 1.0  # for each step of a trial


def try_way(
    address: tuple[str, int], secret: bytes, expect: Callable[[bytes, float], None]
) -> None:
    """Raise OSError where no relay with this secret is there, or RST does not pass in both directions.

    Args:
        expect: Waits for a line of the relay's standard output, for so many seconds; OSError where it does not come.
    """
    with connect(address, secret + program.IS_RESET + NO_NUMBER) as sock:
        try:
            sock.recv(1)
        except ConnectionResetError:
            pass
        else:
            raise OSError(errno.EPROTO, "a reset arrives there as an end")
    with connect(address, secret + program.IS_HELD + NO_NUMBER) as sock:
        if not sock.recv(1):
            raise OSError(errno.EPROTO, "it ended the connection")
        reset(sock)
    expect(program.RESET, TRY_SECONDS)


def connect(address: tuple[str, int], words: bytes) -> Socket:
    sock = Socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(TRY_SECONDS)
        sock.connect(address)
        sock.sendall(words)
    except BaseException:
        sock.close()
        raise
    return sock
