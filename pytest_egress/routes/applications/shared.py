"""Helpers for WSGI and ASGI applications as handlers of a route."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.response import NO_BODY, Response

App = Callable[..., Any]


def is_async(app: App) -> bool:
    """Whether calling an application returns a coroutine, as far as can be told. Calling a class does not."""
    if inspect.isclass(app):
        return False
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(
        getattr(app, "__call__", None)  # noqa: B004 - not whether it is there, but what it is
    )


def name_of(app: App) -> str:
    name = getattr(app, "__qualname__", None)
    return f"{app.__module__}.{name}" if name else repr(app)


def answer_of(
    head: Response, *, content: bytes | None = None, stream: Iterator[bytes] | None = None
) -> Response:
    """A body where the status has none is not sent, as servers do not send it."""
    fields, reason = head.headers.raw, head.reason
    if head.status_code not in NO_BODY:
        return Response(
            head.status_code, headers=fields, content=content, stream=stream, reason=reason
        )
    response = Response(head.status_code, headers=fields, reason=reason)
    response.stream = stream  # which is closed with the response
    return response


def declared_length(headers: Headers) -> int | None:
    """None where the Content-Length is absent or no number."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
