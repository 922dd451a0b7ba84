"""`Shaped` stands between a raw handler and its client, where faults make what the handler sends late, slow or short.

The rule: a fault is read once for each connection, as a `FaultPlan`. `RawServer` carries it out.

Threads: a connection's thread calls everything but `Shaped._run`, which copies on a thread of its own. That one touches
the client's socket and its end of the other connection, and no field of `Connection`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

from pytest_egress.base.acknowledged import await_acknowledged
from pytest_egress.base.pacing import Shape
from pytest_egress.base.relay import Direction, relay
from pytest_egress.base.sockets import shut
from pytest_egress.gateway.connection import Connection
from pytest_egress.link.stream_sockets import loopback_pair
from pytest_egress.routes.faults import Disconnect, End, FaultPlan, Reset, Silence, plan

RETURNABLE: Final = "reset(), disconnect() or silence()"
"""The faults that a raw handler may return."""


def returned_plan(result: End) -> FaultPlan | None:
    """None where a handler may not return the fault."""
    found = plan(result)
    is_returnable = isinstance(result, (Reset, Disconnect, Silence)) and found.answer is None
    return found if is_returnable else None


class Shaped:
    """Another connection between a handler and its client, through which what the handler sends comes in a shape.

    Within the `with` block it is the connection's socket. At its end all that the handler has sent has been passed on,
    and the client's connection is ended as the handler's was, or as the shape says.

    Attributes:
        is_cut: Whether the shape's limit has ended the connection.
    """

    def __init__(self, connection: Connection, shape: Shape, clock: Callable[[], float]) -> None:
        self._connection, self._shape, self._clock = connection, shape, clock
        self.client: socket.socket = connection.sock
        self.is_cut = False
        self._drained = threading.Event()
        self._is_ending = False

    def give_up(self) -> None:
        """Wait for nothing at the end: the client has left."""
        self._drained.set()
        shut(self.client)

    def __enter__(self) -> Shaped:
        connection = self._connection
        inner, self._outer = loopback_pair()
        for sock in (self._outer, self.client):
            connection.adopt(sock)
        connection.replace_by(lambda client: inner)
        self._thread = threading.Thread(target=self._run, name="egress shaping", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        connection = self._connection
        shut(connection.sock)  # the handler's end: what it has sent comes before that
        self._drained.wait()
        self._is_ending = True
        shut(self._outer)
        self._thread.join()
        connection.return_to(self.client)
        if self.is_cut and self._shape.resets:
            connection.reset()
        elif self.is_cut:
            connection.linger(goodbye=False)
        elif connection.is_reset:
            connection.reset()
        else:
            connection.linger()

    def _run(self) -> None:
        """Copy until the handler has ended, or the client, or the limit is reached."""
        try:
            if relay(
                self.client,
                self._outer,
                self._watch,
                shape=self._shape,
                clock=self._clock,
                passes_end=self._passes_end,
            ):
                self._cut()
        except OSError:
            pass  # one side broke off; the other is ended
        finally:
            self._drained.set()
            # Shut alone, it would still take what a handler sends on, until its buffers are full.
            self._connection.release(self._outer)

    def _watch(self, out: Direction, back: Direction) -> bool:
        if back.done or back.refusal is not None:
            self._drained.set()
        return self._is_ending

    def _passes_end(self) -> bool:
        """Whether the handler's end is the client's: a reset comes in its place otherwise."""
        return not self._connection.is_reset

    def _cut(self) -> None:
        """End the client's connection, whatever the handler does."""
        self.is_cut = True
        if self._shape.resets:
            await_acknowledged(self.client)
            self._connection.reset_adopted(self.client)
        else:
            with contextlib.suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(self.client, socket.SHUT_WR)
