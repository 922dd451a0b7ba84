"""The cases of the Autobahn test suite, by kosoku, against a handler behind a gateway on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import kosoku
import trustme

from pytest_egress.routes.websocket import websocket
from tests.support.loopback import LoopbackLink
from tests.support.stage import Stage

COMPRESSION = ("12.*", "13.*")
"""The cases of compression, which take a quarter of an hour."""


def run_cases(handler: Callable[[Any], Any], without: Sequence[str] = ()) -> dict[str, str]:
    """Run cases against a handler that echoes; return the verdict on each, "OK" for one that passed.

    Args:
        without: Cases to leave out, as globs of their numbers.
    """
    link = LoopbackLink()
    (port,) = link.ports.values()
    link.stand_for("127.0.0.1", port)
    stage = Stage(trustme.CA(), link)
    with stage.open:
        stage.gateway.start()
        stage.http(f"*:{port}", websocket(handler))
        run = kosoku.run_fuzzingclient(
            f"ws://127.0.0.1:{port}", exclude_cases=list(without), concurrency=2
        )
        try:
            results = asyncio.run(awaited(run))
        except kosoku.FailureError as error:
            results = error.results
    assert not stage.window.complaints
    return {result.case_id: verdict_on(result) for result in results}


async def awaited(run: Any) -> Any:
    return await run


def verdict_on(result: Any) -> str:
    """What a case found."""
    if result.passed:
        return "OK"
    return f"{result.behavior.value}, {result.behavior_close.value}: {result.result} {result.result_close}"
