"""hypercorn with the least application: it answers at once. Runs in hypercorn's environment.

usage: hypercorn_server.py PORT CERTIFICATE_CHAIN_AND_KEY
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import hypercorn.asyncio
import hypercorn.config

BODY = b'{"ok": true}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


def main() -> None:
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.certfile = config.keyfile = sys.argv[2]
    config.errorlog = None
    config.keep_alive_max_requests = 2**31  # by default it ends a connection after a thousand
    # asyncio warns of each write to a client that has left, as h2load does with requests open when its time is over.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # It would end what it serves first, and say so; a signal just ends this process.
    never = asyncio.Event()
    asyncio.run(hypercorn.asyncio.serve(answer, config, shutdown_trigger=never.wait))


async def answer(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    main()
