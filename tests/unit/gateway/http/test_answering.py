"""Requests are answered apart from the wire: without a client's socket, and whatever version of HTTP they came by."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import pytest

from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.destination import Destination
from pytest_egress.gateway.dns.names import Names
from pytest_egress.gateway.http.answering import Answering
from pytest_egress.gateway.http.incoming import Incoming
from pytest_egress.gateway.lasting import Lasting
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.gateway.upstream.upstreams import Upstreams
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import Activity, AttemptContext, Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import KINDS
from pytest_egress.routes.table import RouteTable
from pytest_egress.traffic.dns.answers import NameAnswer
from pytest_egress.traffic.entries import Entry, Exchange
from pytest_egress.traffic.http.head import Head
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request, TlsInfo
from pytest_egress.traffic.http.response import Response
from tests.support.duplexes import FakeDuplex

ADDRESS = "203.0.113.9"
KIND_OF = {kind.method: kind for kind in KINDS}
SECONDS = 10.0


class AnsweringScene:
    """A target, its routes and its ledger, and a connection that carries nothing."""

    name = "target"
    client = ("10.0.0.1", 40000)
    is_ending = is_cut = False
    hosts: Mapping[str, NameAnswer] = MappingProxyType({})
    search: Sequence[str] = ()
    hints: Sequence[str] = ()
    proxies: Sequence[tuple[str, str]] = ()

    def __init__(self) -> None:
        self.ledger, self.window, self.table = Ledger(), Window(), RouteTable()
        self.ledger.window = self.window
        self.recorder = Recorder(self, self.ledger)
        names = Names(self.recorder, ipv6=False)
        self.answering = Answering(self, self.recorder, names, Upstreams())
        self.carried: list[str] = []

    # What the gateway asks of a target.

    def attempt_context(self) -> AttemptContext:
        return AttemptContext(window=self.window, tables=[self.table])

    def peers(self, name: str) -> tuple[()]:
        return ()

    def lost(self, text: str) -> None:
        raise AssertionError

    # What answering asks of a connection.

    def adopt(self, other: socket.socket) -> socket.socket:
        raise AssertionError(f"nothing goes out here: {other}")

    def release(self, other: socket.socket) -> None:
        raise AssertionError(f"nothing goes out here: {other}")

    def has_left(self) -> bool:
        return False

    def allow_unread(self, route: InnerRoute | None, host: str) -> None:
        self.carried.append(f"{host} unread")

    def outlive(self, lasting: Lasting) -> None:
        raise AssertionError(f"nothing lasts here: {lasting}")

    def read_again(self) -> None:
        self.carried.append("read")

    # What a test says.

    def route(self, kind: str, address: str, *answer: object, **options: Any) -> InnerRoute:
        declaration = declare(KIND_OF[kind], address, *answer, **options)
        route: InnerRoute = InnerRoute(declaration, scope="test", declared_at="", log=self.ledger)
        with self.ledger.changed:
            self.table.add(route)
        return route

    def take(self, path: str = "/", authority: str = "api.test", method: str = "GET") -> Incoming:
        """A request as a server of HTTP/2 would hand it over."""
        tls = TlsInfo(version="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256", alpn="h2")
        destination = Destination(
            address=ADDRESS, port=443, name="api.test", host="api.test", sni="api.test", tls=tls
        )
        attempt = Attempt(
            context=self.attempt_context(),
            destination=destination,
            started=self.ledger.now(),
            activity=Activity(),
        )
        head = Head(
            method=method,
            path=path,
            query_string="",
            headers=Headers({"host": authority}),
            http_version="2",
            scheme="https",
            authority=authority,
            expected=None,
        )
        self.duplex = FakeDuplex()
        return self.answering.take(attempt, head, self.duplex)

    def ask(self, path: str = "/", **said: Any) -> tuple[Exchange, Response]:
        entry = self.answering.answer(self.take(path, **said))
        assert entry.response is not None
        return entry, entry.response


@pytest.fixture
def scene() -> AnsweringScene:
    return AnsweringScene()


def test_an_entry_is_recorded_before_its_handler_runs_and_counted_afterwards(
    scene: AnsweringScene,
) -> None:
    seen: list[tuple[list[Entry], int]] = []

    def handler(request: Request) -> dict[str, str]:
        seen.append((scene.window.entries.copy(), route.call_count))
        return {"version": request.http_version}

    route = scene.route("intercept_https", "api.test", handler)
    entry, response = scene.ask()
    assert seen == [([entry], 0)]
    assert route.calls == [entry]
    assert scene.window.entries == [entry]
    assert (entry.outcome, entry.route, entry.response) == ("routed", route, response)
    assert response.json() == {"version": "2"}


def fails(request: Request) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("kind", "options", "said", "outcome", "status", "calls"),
    [
        ("intercept_https", {"handler": 204}, {}, "routed", 204, 1),
        ("intercept_https", {"handler": fails}, {}, "routed", 500, 0),
        ("intercept_https", {"handler": 204, "match": fails}, {}, "routed", 500, 0),
        ("intercept_https", {"handler": 204, "path": "/other"}, {}, "unrouted", 502, 0),
        ("intercept_https", {"handler": 204}, {"authority": "other.test"}, "unrouted", 421, 0),
        ("intercept_https", {"handler": 204}, {"method": "CONNECT"}, "unrouted", 502, 0),
        ("block", {}, {}, "blocked", 502, 1),
    ],
)
def test_what_becomes_of_a_request_is_decided_recorded_and_counted_once(
    scene: AnsweringScene,
    kind: str,
    options: dict[str, Any],
    said: dict[str, str],
    outcome: str,
    status: int,
    calls: int,
) -> None:
    options = options.copy()
    answer = [options.pop("handler")] if "handler" in options else []
    route = scene.route(kind, "api.test", *answer, **options)
    entry, response = scene.ask(**said)
    assert (entry.outcome, response.status_code) == (outcome, status)
    assert scene.window.entries == [entry]
    assert route.call_count == scene.window.calls == calls


def test_requests_of_one_connection_are_answered_at_the_same_time(scene: AnsweringScene) -> None:
    second_has_come = threading.Event()

    def handler(request: Request) -> int:
        if request.path == "/second":
            second_has_come.set()
        return 200 if second_has_come.wait(SECONDS) else 504

    route = scene.route("intercept_https", "api.test", handler)
    with ThreadPoolExecutor(2) as pool:
        answered = list(pool.map(scene.ask, ["/first", "/second"]))
    assert [response.status_code for _, response in answered] == [200, 200]
    assert route.call_count == 2


def test_a_request_that_nobody_answers_is_recorded_and_unrouted_where_no_route_would(
    scene: AnsweringScene,
) -> None:
    scene.route("intercept_https", "api.test", 204)
    note = "its body broke off"
    takes = [scene.take(), scene.take(authority="other.test"), scene.take()]
    refusals = [False, False, True]
    entries = [
        scene.answering.record_unanswered(incoming, note, is_refused=is_refused)
        for incoming, is_refused in zip(takes, refusals, strict=True)
    ]
    assert scene.window.entries == entries
    assert [entry.outcome for entry in entries] == ["recorded", "unrouted", "unrouted"]
    assert {entry.note for entry in entries} == {note}


def test_a_request_cannot_be_forwarded_once_its_connection_has_ended(scene: AnsweringScene) -> None:
    scene.route("intercept_https", "api.test", 204)
    entry, _ = scene.ask()
    del scene.answering
    gc.collect()
    with pytest.raises(TypeError, match="has no connection any more"):
        entry.request.forward()


def test_what_a_body_raises_is_its_handlers_error(scene: AnsweringScene) -> None:
    routes: list[object] = []

    def pieces() -> Iterator[bytes]:
        yield b"1"
        routes.append(incoming.attempt.activity.route)  # its handler still runs
        raise ZeroDivisionError

    route = scene.route("intercept_https", "api.test", lambda request: pieces())
    incoming = scene.take()
    entry = scene.answering.answer(incoming)
    assert scene.duplex.sent == [(200, {}), b"1", "reset"]
    assert isinstance(entry.error, ZeroDivisionError)
    assert routes == [route]
    assert incoming.attempt.activity.route is None
    assert scene.carried == ["read"]


def test_what_was_dialled_is_replaced_and_never_changed() -> None:
    destination = Destination(address=ADDRESS, port=443, name="a.test", host="a.test")
    named = destination._replace(host="b.test", sni="b.test")
    assert destination.hosts == ("a.test", ADDRESS, "a.test")
    assert named.hosts == ("a.test", ADDRESS, "b.test")
    with pytest.raises(AttributeError):
        destination.host = "b.test"  # type: ignore[misc]
