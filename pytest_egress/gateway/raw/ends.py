"""`Ends`: which errors of a raw handler came from the end of its client's connection, and not from another one.

A handler may have a server behind it, whose connections raise the same classes of errors. So an error is judged by
where it was raised: by the client's socket, which notes it here, or by a function that had this socket at hand.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import weakref
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Final, TypeVar

from pytest_egress.base.raising import at_hand, claim, is_claimed
from pytest_egress.base.sockets import BLOCKED
from pytest_egress.gateway.raw.hearing import SOURCES, WRITERS, read_by, written_by

READERS: Final = (
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "recvmsg",
    "recvmsg_into",
    "read",
)
OTHERS: Final = (
    *("send", "sendall", "sendmsg", "sendto", "sendfile", "write"),
    *("shutdown", "unwrap", "getpeername"),
)
"""Methods of a socket that fail when its connection has ended."""

Sock = TypeVar("Sock", bound=type)


class Ends:
    """What the sockets of one connection have told its handler of the connection's end.

    Attributes:
        failure: What `starttls` has raised, since there was no handshake; None for nothing.
    """

    def __init__(self) -> None:
        self._mark: Final = object()
        self._is_told = self._is_detached = False
        self._files: weakref.WeakSet[Any] = weakref.WeakSet()
        self.failure: OSError | None = None

    def note(self, error: BaseException) -> None:
        if not isinstance(error, (*BLOCKED, TimeoutError)):
            self._is_told = True
            claim(error, self._mark)

    def note_end(self) -> None:
        self._is_told = True

    def note_detached(self) -> None:
        """Note that the handler has taken a descriptor: no socket of its raises anything any more."""
        self._is_detached = True

    def note_file(self, file: Any) -> Any:
        self._files.add(file)
        return file

    def is_about(self, error: BaseException) -> bool:
        """Whether an error of the handler's is about the connection of its client.

        An error that only Python code makes, such as `ConnectionResetError("the client has closed")`, is so where the
        handler has been told of the end, and the function that raised it had the client's socket. One of the kernel's
        is so too where the handler has taken the descriptor, and the function had no socket: it used a descriptor.
        """
        if is_claimed(error, self._mark) or error is self.failure:
            return True
        if is_of_own_tls(error):
            return True
        if getattr(error, "errno", None) is None:
            return self._is_told and any(map(self._is_of_client, at_hand(error)))
        return self._is_detached and not any(map(socket_of, at_hand(error)))

    def _is_of_client(self, value: object) -> bool:
        sock = socket_of(value)
        is_socket = sock is not None and getattr(sock, "ends", None) is self
        return is_socket or any(file is value for file in self._files)


def socket_of(value: Any) -> socket.socket | None:
    """The socket that a value is, or a stream of asyncio's has; None where it is nothing of that.

    Types are asked for, and not `isinstance`, which runs code of a value that stands for another one.
    """
    kind = type(value)
    if issubclass(kind, (asyncio.StreamReader, asyncio.StreamWriter)):
        return socket_of(vars(value).get("_transport"))
    if issubclass(kind, asyncio.Transport):
        return socket_of(value.get_extra_info("socket"))
    if issubclass(kind, TransportSocket):
        return socket_of(value._sock)
    return value if issubclass(kind, socket.socket) else None


def is_of_own_tls(error: BaseException) -> bool:
    """Whether an error came from TLS that the handler has made by itself, as its server: it detaches our socket."""
    trace = error.__traceback__
    while trace is not None:
        tls: Any = trace.tb_frame.f_locals.get("self")
        if issubclass(type(tls), (ssl.SSLSocket, ssl.SSLObject)) and tls.server_side:
            return True
        trace = trace.tb_next
    return False


def telling(kind: Sock) -> Sock:
    """Have the methods of a class of sockets note in `ends` what they raise, that its client has ended, and files.

    Those that read give `heard` what they have read, and those that write give `said` what they have written. In TLS
    all others read and write by these.
    """
    is_tls = issubclass(kind, ssl.SSLSocket)
    for name in READERS + OTHERS:
        if hasattr(kind, name):
            heard, said = name in SOURCES[is_tls], name in WRITERS[is_tls]
            setattr(kind, name, told(getattr(kind, name), name, is_source=heard, is_writer=said))
    makefile = kind.makefile  # type: ignore[attr-defined]  # each has it

    @wraps(makefile)
    def telling_makefile(self: Any, *arguments: Any, **named: Any) -> Any:
        return self.ends.note_file(makefile(self, *arguments, **named))

    kind.makefile = telling_makefile  # type: ignore[attr-defined]
    return kind


def told(
    method: Callable[..., Any], name: str, *, is_source: bool, is_writer: bool
) -> Callable[..., Any]:
    """The method notes what it raises, and if it reads, that its client has ended.

    Args:
        is_source: Whether it reads by itself, and gives `heard` what it has read.
        is_writer: Whether it writes by itself, and gives `said` what it has written.
    """
    reads = name in READERS

    @wraps(method)
    def telling_method(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            result = method(self, *arguments, **named)
        except OSError as error:
            self.ends.note(error)
            raise
        if reads and not (result[0] if type(result) is tuple else result):
            self.ends.note_end()
        elif is_source:
            for data in read_by(name, result, arguments, named):
                self.heard(data)
        elif is_writer:
            with suppress(TypeError, ValueError):  # buffers of any kind, which the method has taken
                for data in written_by(result, arguments, named):
                    self.said(data)
        return result

    return telling_method
