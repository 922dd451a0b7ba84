"""Clients of WebSockets for a gateway on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.stage import Stage


@contextlib.contextmanager
def websocket_client(
    stage: Stage, path: str = "/", *, secure: bool = True, **options: Any
) -> Iterator[ClientConnection]:
    """Open a WebSocket of api.test: by TLS to port 443, or without to port 80."""
    sock = stage.link.dial("203.0.113.9", 443 if secure else 80)
    scheme, ssl = ("wss", stage.trusting) if secure else ("ws", None)
    with connect(f"{scheme}://api.test{path}", sock=sock, ssl=ssl, proxy=None, **options) as client:
        yield client
