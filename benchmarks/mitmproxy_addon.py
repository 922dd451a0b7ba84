"""What mitmproxy loads: it answers every request itself, and asks no upstream."""

from __future__ import annotations

from mitmproxy import http

BODY = b'{"ok": true}'


def request(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(200, BODY, {"content-type": "application/json"})
