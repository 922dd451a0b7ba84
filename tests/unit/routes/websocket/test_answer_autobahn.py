"""The Autobahn test suite: what it asks of a server of WebSockets, a handler behind the gateway does.

Without the cases of compression, which take a quarter of an hour: `make autobahn` runs all.
"""

from __future__ import annotations

import pytest

from pytest_egress.routes.websocket.asynchronous import AsyncWebSocket
from pytest_egress.routes.websocket.open import WebSocket
from tests.support.autobahn import COMPRESSION, PASSED, run_cases

pytestmark = pytest.mark.slow


def test_a_handler_passes_every_case() -> None:
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    verdicts = run_cases(echo, COMPRESSION)

    assert len(verdicts) == 301
    assert {case: verdict for case, verdict in verdicts.items() if verdict != PASSED} == {}


def test_an_async_handler_passes_the_cases_of_frames() -> None:
    async def echo(ws: AsyncWebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    verdicts = run_cases(echo, [*COMPRESSION, "6.*", "9.*"])

    assert len(verdicts) > 60
    assert {case: verdict for case, verdict in verdicts.items() if verdict != PASSED} == {}
