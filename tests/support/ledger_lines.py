"""Lines of a `ledger.jsonl` and the facts beside it, as values: for pages that are made without a container."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_egress.evidence.pages.timeline import write_timeline

KEY = "<STRIPE_KEY>"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR4nGP4z8AARAwQCgAf"
    "7gP9i18U1AAAAABJRU5ErkJggg=="
)


def line_of(n: int, kind: str, host: str, at: float, **more: Any) -> dict[str, Any]:
    """An entry of a kind, with what all entries have."""
    return {
        "n": n,
        "kind": kind,
        "container": 0,
        "at": at,
        "host": host,
        "port": 443,
        "outcome": "routed",
        "text": f"{kind.upper()} {host}",
        "fails": False,
        "note": "",
        "route": None,
        "near": [],
        "remedy": [],
        "fault": None,
        "duration": 2.0,
        "connection": None,
        "marks": {},
    } | more


def http_line(
    n: int, at: float, url: str, *, body: str = "", answer: Any = None, **more: Any
) -> dict[str, Any]:
    """An HTTP request and its response."""
    method, _, url = url.rpartition(" ")
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    marks = {name: at + i * 0.4 for i, name in enumerate(("begun", "whole", "called", "answered"))}
    content = {"size": len(body.encode()), "text": body} if body else None
    made = line_of(n, "http", host, at, text=f"{method or 'GET'} {url}", scheme=scheme)
    made["request"] = {
        "method": method or "GET",
        "url": url,
        "path": f"/{path.partition('?')[0]}",
        "query": path.partition("?")[2],
        "http_version": "1.1",
        "headers": [["host", host], ["accept", "*/*"], ["authorization", f"Bearer {KEY}"]],
        "trailers": [],
        "type": "application/json" if body.startswith("{") else "",
        "body": content,
    }
    if answer is not None:
        text = json.dumps(answer)
        made["response"] = {
            "status": 200,
            "reason": "OK",
            "headers": [["content-type", "application/json"]],
            "trailers": [],
            "type": "application/json",
            "body": {"size": len(text), "text": text},
        }
    return made | {"marks": marks | {"sent": at + 2.1}} | more


def story() -> list[dict[str, Any]]:
    """A test with each kind of entry, of two containers; entries 7, 9 and 18 fail it."""
    near = {
        "text": "intercept_https(\"api.stripe.com\", method='POST', path='/v1/charges')",
        "declared_at": "test_checkout.py:12",
        "differences": ["path: '/v1/refunds' is not '/v1/charges'"],
    }
    remedy = [
        [
            "to answer it",
            'egress.intercept_https("api.stripe.com", method="POST", path="/v1/refunds")',
        ]
    ]
    error = {
        "type": "KeyError",
        "text": "'amuont'",
        "traceback": "Traceback (most recent call last):\n  File \"shop.py\", line 20, in charge\nKeyError: 'amuont'",
    }
    image = {
        "status": 200,
        "reason": "OK",
        "headers": [["content-type", "image/png"]],
        "trailers": [],
        "type": "image/png",
        "body": {"size": len(PIXEL), "base64": base64.b64encode(PIXEL).decode()},
    }
    ticks = [
        {"at": 640.0 + i * 12, "from_client": i == 0, "size": 20, "text": f'{{"n": {i}}}'}
        for i in range(9)
    ]
    made = [
        line_of(
            1,
            "dns",
            "api.stripe.com",
            10,
            port=53,
            type="A",
            answer=["198.18.0.1"],
            rcode="NOERROR",
            cnames=[],
            duration=0.3,
            outcome="recorded",
            text="api.stripe.com A",
        ),
        http_line(
            2,
            12,
            "POST https://api.stripe.com/v1/charges",
            body='{"amount": 4200, "card": {"last4": "4242", "expires": {"year": 2031}}}',
            answer={"id": "ch_1", "paid": True},
            connection=1,
            route=0,
            handler="charge at test_checkout.py:18",
        ),
        http_line(
            3,
            80,
            "POST https://api.stripe.com/v1/charges",
            fault="reset()",
            duration=1.5,
            route=1,
            connection=2,
        ),
        http_line(
            4,
            90,
            "https://rates.test/v2/prices?sku=A-100&currency=EUR",
            answer={"price": 12.5},
            route=2,
        ),
        http_line(5, 95, "https://cdn.test/logo.png", route=2) | {"response": image},
        http_line(
            6,
            99,
            "https://index.test/simple/",
            answer=[],
            outcome="passthrough",
            reached=True,
            route=3,
        ),
        http_line(
            7,
            120,
            "POST https://api.stripe.com/v1/refunds",
            body="charge=ch_1&reason=duplicate",
            outcome="unrouted",
            fails=True,
            near=[near],
            remedy=remedy,
            problem="path: '/v1/refunds' is not '/v1/charges'",
        ),
        http_line(8, 150, "POST https://metrics.test/v1/events", outcome="blocked"),
        http_line(
            9,
            180,
            "POST https://pay.test/v1/transfers",
            fails=True,
            error=error,
            route=2,
            problem="its handler raised KeyError: 'amuont'",
        ),
        line_of(
            10,
            "dns",
            "metadata.internal",
            200,
            port=53,
            type="AAAA",
            answer=[],
            rcode="NXDOMAIN",
            cnames=[],
            duration=0.2,
            text="metadata.internal AAAA",
        ),
        line_of(
            11,
            "tcp",
            "redis.test",
            240,
            port=6379,
            text="TCP redis.test:6379",
            address="198.18.0.7",
            sni=None,
            sent=54,
            received=21,
            first="*3",
            messages=[],
            body={"size": 10, "text": "*3\r\n$3\r\nSET"},
            route=2,
        ),
        line_of(
            12,
            "mail",
            "smtp.test",
            260,
            port=587,
            text="mail 'Your order' from <shop@shop.test>",
            address="198.18.0.8",
            sender="shop@shop.test",
            recipients=["ada@example.test"],
            subject="Your order",
            user=None,
            parts=["text/plain"],
            body={"size": 9, "text": "Subject: "},
        ),
        line_of(
            13,
            "udp",
            "statsd.test",
            280,
            port=8125,
            text="UDP statsd.test:8125, 18 bytes",
            outcome="blocked",
            duration=None,
            address="192.0.2.7",
            protocol="UDP",
            size=18,
            body=None,
        ),
        line_of(
            14,
            "websocket",
            "feed.test",
            630,
            container=1,
            text="GET https://feed.test/prices",
            scheme="https",
            duration=3.0,
            messages=ticks,
            websocket={"subprotocol": None, "close_code": 1000, "close_reason": ""},
            unkept=0,
            request=http_line(14, 630, "https://feed.test/prices")["request"],
            marks={"begun": 630, "whole": 630.5, "called": 631, "answered": 632, "sent": 740},
        ),
        line_of(
            15,
            "grpc",
            "payments.test",
            760,
            container=1,
            port=50051,
            text="gRPC https://payments.test:50051/shop.Payments/List",
            scheme="https",
            messages=ticks[:3],
            grpc={
                "service": "shop.Payments",
                "method": "List",
                "path": "/shop.Payments/List",
                "status": "RESOURCE_EXHAUSTED",
                "details": "",
                "timeout": "",
                "metadata": [],
                "trailing_metadata": [],
            },
            request=http_line(15, 760, "POST https://payments.test/shop.Payments/List")["request"],
        ),
        line_of(
            16,
            "kafka",
            "kafka.test",
            800,
            container=1,
            port=9092,
            text="Kafka record of 'orders'",
            topic="orders",
            key="4711",
            partition=0,
            offset=3,
            headers=[],
            body={"size": 2, "text": "{}"},
        ),
        line_of(
            17,
            "proxy",
            "proxy.test",
            820,
            container=1,
            port=3128,
            text="CONNECT api.stripe.com:443 through proxy.test:3128",
            method="CONNECT",
            url="api.stripe.com:443",
            user="ci",
            headers=[["proxy-authorization", "***"]],
            outcome="recorded",
        ),
        line_of(
            18,
            "tls",
            "api.stripe.com",
            1900,
            container=1,
            text="TLS api.stripe.com:443",
            outcome="recorded",
            fails=True,
            reason="untrusted",
            note="its client does not trust the CA of this run; it said so by an alert",
            address="198.18.0.1",
            sni="api.stripe.com",
            problem="its TLS handshake failed: its client does not trust the CA of this run",
        ),
    ]
    return made


def head_of(**more: Any) -> dict[str, Any]:
    """The facts beside the lines of `story`."""
    routes = [
        "intercept_https(\"api.stripe.com\", method='POST', path='/v1/charges')",
        'intercept_https("api.stripe.com", reset())',
        'intercept_https("*.test")',
        'passthrough("index.test")',
    ]
    boxes = [("shop:latest", 0.0, 300.0, 1), ("worker:latest", 600.0, None, None)]
    connections = [
        {
            "id": 1,
            "first": 2,
            "opened": 10.5,
            "hello": 11.0,
            "secured": 11.8,
            "requests": 1,
            "client": ["10.0.0.2", 40000],
            "address": "198.18.0.1",
            "sni": "api.stripe.com",
            "library": "OpenSSL",
            "presented": "a certificate of the run's CA for api.stripe.com",
            "tls": {
                "version": "TLSv1.3",
                "cipher": "TLS_AES_256_GCM_SHA384",
                "alpn": "http/1.1",
                "client_certificate": None,
            },
        },
        {
            "id": 2,
            "first": 3,
            "opened": 78.0,
            "hello": 78.4,
            "secured": 79.5,
            "requests": 1,
            "client": ["10.0.0.2", 40001],
            "address": "198.18.0.1",
            "sni": "api.stripe.com",
            "library": "OpenSSL",
            "presented": None,
            "tls": None,
        },
    ]
    return {
        "format": 1,
        "version": "1.0",
        "test": {
            "id": "tests/test_checkout.py::test_an_order_is_paid",
            "outcome": "failed",
            "duration": 2100.0,
            "when": "2026-12-01 12:00:00 UTC",
            "worker": "",
        },
        "verdict": {
            "error": "HandlerError",
            "headline": "KeyError: 'amuont' in the handler of POST https://pay.test/v1/transfers",
            "text": "KeyError: 'amuont'\n\n1 unrouted attempt of shop:latest",
        },
        "policy": {"unrouted": "fail", "dns": "synthetic"},
        "paste": [
            'egress.intercept_https("api.stripe.com", method="POST", path="/v1/refunds")',
            'egress.block("metrics.test")',
        ],
        "containers": [
            {
                "name": name,
                "image": f"acme/{name}",
                "command": [],
                "started": started,
                "ended": ended,
                "exit_code": code,
            }
            for name, started, ended, code in boxes
        ],
        "routes": [
            {
                "text": text,
                "declared_at": f"test_checkout.py:{12 + i}",
                "scope": "function",
                "times": None,
                "calls": 1,
            }
            for i, text in enumerate(routes)
        ],
        "connections": connections,
        "logs": [
            {
                "container": 0,
                "at": 5.0 + i * 40,
                "stream": "stderr" if i % 3 == 2 else "stdout",
                "text": f"order 4711: step {i}",
            }
            for i in range(8)
        ],
        "files": ["traffic.har", "ledger.jsonl"],
        "index": "../index.html",
    } | more


def write_ledger(folder: Path, lines: Sequence[dict[str, Any]]) -> Path:
    """Write lines to `ledger.jsonl` of a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ledger.jsonl"
    path.write_text(
        "".join(f"{json.dumps(it, separators=(',', ':'), ensure_ascii=False)}\n" for it in lines)
    )
    return path


def write_page_of(folder: Path, lines: Sequence[dict[str, Any]], **head: Any) -> Path:
    """Write the page of a test with these lines."""
    path = folder / "timeline.html"
    write_timeline(path, head_of(**head), write_ledger(folder, lines))
    return path


def row_of(name: str, *hosts: str, outcome: str = "passed") -> dict[str, Any]:
    """What the index has of a test that has asked these destinations once each."""
    cell = {"count": 1, "worst": "routed", "entry": 1, "reached": False}
    return {
        "id": f"tests/test_shop.py::{name}",
        "folder": f"tests-test_shop.py-{name}",
        "outcome": outcome,
        "duration": 1200.0,
        "attempts": len(hosts),
        "headline": "POST https://api.test/ is unrouted" if outcome == "failed" else "",
        "error": "UnroutedError" if outcome == "failed" else "",
        "images": ["acme/shop:latest"],
        "hosts": {host: dict(cell) for host in hosts},
        "paste": [],
        "unrouted": [],
    }
