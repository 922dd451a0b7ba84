"""Helpers for WSGI and ASGI applications as handlers of a route."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pytest_egress.traffic.messages import Headers

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

App = Callable[..., Any]


def is_async(app: App) -> bool:
    """Whether calling an application returns a coroutine, as far as can be told. Calling a class does not."""
    if inspect.isclass(app):
        return False
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(
        getattr(app, "__call__", None)  # noqa: B004 - not whether it is there, but what it is
    )


def name_of(app: App) -> str:
    """The name of an application in an error: the dotted name of a function or class, else its repr."""
    name = getattr(app, "__qualname__", None)
    return f"{app.__module__}.{name}" if name else repr(app)


def declared_length(headers: Headers) -> int | None:
    """The Content-Length of a response, or None where it is absent or no number."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
