"""What WSGI and ASGI applications have in common as handlers of a route."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pytest_egress.traffic.messages import Headers

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

App = Callable[..., Any]


def is_async(app: App) -> bool:
    """Whether calling it gives a coroutine, as far as can be told; a class gives an instance."""
    if inspect.isclass(app):
        return False
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(
        getattr(app, "__call__", None)  # noqa: B004 - not whether it is there, but what it is
    )


def name_of(app: App) -> str:
    """What to call it in an error."""
    name = getattr(app, "__qualname__", None)
    return f"{app.__module__}.{name}" if name else repr(app)


def declared_length(headers: Headers) -> int | None:
    """Content-Length, or None where there is none that counts."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
