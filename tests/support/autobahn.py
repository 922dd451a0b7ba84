"""The cases of the Autobahn test suite, by kosoku, against a handler behind a gateway on loopback.

Run as a program, this module is the client: kosoku puts modules of its own, a `pkg_resources` among them, where the
whole process imports from.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import trustme

from pytest_egress.routes.websocket.answer import websocket
from tests.support.loopback import LoopbackLink
from tests.support.project import ROOT
from tests.support.stage import Stage

COMPRESSION = ("12.*", "13.*")
"""The cases of compression, which take a quarter of an hour."""

PASSED = "OK"


def run_cases(handler: Callable[[Any], Any], without: Sequence[str] = ()) -> dict[str, str]:
    """Run cases against a handler that echoes; return the verdict on each.

    Args:
        without: Cases to leave out, as globs of their numbers.
    """
    link = LoopbackLink()
    (port,) = link.ports.values()
    link.stand_for("127.0.0.1", port)
    stage = Stage(trustme.CA(), link)
    with stage.open:
        stage.gateway.start()
        route = stage.http(f"*:{port}", websocket(handler))
        client = [sys.executable, "-m", __name__, f"ws://127.0.0.1:{port}", *without]
        said = subprocess.run(client, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        verdicts: dict[str, str] = json.loads(said)
        assert len(route.calls) >= len(verdicts)
    assert not stage.window.complaints
    return verdicts


def verdicts_on(url: str, without: Sequence[str]) -> dict[str, str]:
    """Run cases against a server; return the verdict on each.

    One that fails is run once more, alone: it gives a server a second, which a busy machine may take from it.
    """
    verdicts = verdicts_of(url, exclude_cases=[*without], concurrency=2)
    if failed := [case for case, verdict in verdicts.items() if verdict != PASSED]:
        verdicts |= verdicts_of(url, cases=failed)
    return verdicts


def verdicts_of(url: str, **options: Any) -> dict[str, str]:
    """Run kosoku with its own options; return the verdict on each case."""
    import kosoku

    run = kosoku.run_fuzzingclient(url, **options)
    try:
        results = asyncio.run(awaited(run))
    except kosoku.FailureError as error:
        results = error.results
    return {result.case_id: verdict_on(result) for result in results}


async def awaited(run: Any) -> Any:
    return await run


def verdict_on(result: Any) -> str:
    """What a case found."""
    if result.passed:
        return PASSED
    return f"{result.behavior.value}, {result.behavior_close.value}: {result.result} {result.result_close}"


if __name__ == "__main__":
    print(json.dumps(verdicts_on(sys.argv[1], sys.argv[2:])), flush=True)
    os._exit(0)  # kosoku's own threads abort one interpreter of twelve that ends while they run
