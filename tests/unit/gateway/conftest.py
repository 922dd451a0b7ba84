"""The stage of the gateway's tests."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import trustme

from tests.support.stage import SECONDS, Stage, staged


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def stage(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A gateway on loopback; its upstreams are outside of the machine where the test uses `outside`."""
    with staged(ca, request) as stage:
        yield stage


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Gives the URL of a server that answers each request with the pieces given, and closes."""
    with contextlib.ExitStack() as stack:

        def answering(*pieces: bytes) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.callback(listener.shutdown, socket.SHUT_RDWR)

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        sock, _ = listener.accept()
                        with sock:
                            sock.settimeout(SECONDS)
                            sock.recv(65536)
                            for piece in pieces:
                                sock.sendall(piece)
                            sock.shutdown(socket.SHUT_WR)
                            sock.recv(1)

            threading.Thread(target=accept, daemon=True).start()
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield answering
