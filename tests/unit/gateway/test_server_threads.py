"""Threads: in which order locks are taken, and that none is held while a function of the user runs.

Every stage has checking locks, so every test of a gateway looks at the order; here is that they would tell.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import trustme

from pytest_egress.egress import Egress
from pytest_egress.errors import CallError
from pytest_egress.gateway import connection as connection_module
from pytest_egress.gateway import connections as connections_module
from pytest_egress.gateway import dispatch
from pytest_egress.routes.answers import Application, sequence
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.session import Session
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.locks import Locks
from tests.support.stage import ADDRESS, GET, Stage, ask, end_of, eventually

# The order.


def test_the_ledgers_lock_within_that_of_the_connections_is_told(stage: Stage) -> None:
    with stage.gateway.connections.lock:
        stage.ledger.clock()
    (broken,) = stage.locks.broken
    assert broken.startswith("Ledger.changed after Connections.lock:\n")
    assert "stage.ledger.clock()" in broken
    stage.locks.broken.clear()


@pytest.mark.parametrize("inner", ["connections.lock", "names._lock", "upstreams._lock"])
def test_an_inner_lock_is_the_last_that_is_taken(stage: Stage, inner: str) -> None:
    part, _, name = inner.partition(".")
    lock = getattr(getattr(stage.gateway, part), name)
    with stage.ledger.changed, lock, lock:  # the right order, and once more
        assert stage.locks.held()[0] == "Ledger.changed"
    assert not stage.locks.held()
    others = {stage.gateway.connections.lock, stage.gateway.names._lock} - {lock}
    with lock, others.pop():
        assert len(stage.locks.broken) == 1
    stage.locks.broken.clear()


def test_locks_are_taken_in_one_order_whatever_connections_do(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.05)
    monkeypatch.setattr(connection_module, "PARK_SECONDS", 0.01)
    stage.https("api.test", {"id": 1})
    stage.route("dns", "db.test", [ADDRESS])
    echo = stage.tcp(f"{ADDRESS}:5432", lambda sock: sock.sendall(sock.recv(9)))
    parked = stage.tls()
    assert ask(parked).status == 200
    assert stage.resolve("db.test") == ADDRESS
    raw = stage.dial(port=5432)
    raw.sendall(b"x")
    assert raw.recv(1) == b"x"
    assert end_of(stage.dial(port=8443)) == "reset"  # silent, and unrouted
    assert eventually(lambda: stage.gateway.connections.parked)
    echo.remove()
    stage.gateway.revise(test_over=True)
    assert ask(parked).status == 200  # taken up again
    stage.settle()
    stage.gateway.turn_away()
    assert stage.gateway.busy() == []
    stage.gateway.stop()
    assert {type(entry) for entry in stage.window.entries} >= {Exchange, TcpConnection}


def test_locks_are_taken_in_that_order_where_connections_are_cut_for_room(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "MAX_OPEN", 3)
    monkeypatch.setattr(connection_module, "PARK_SECONDS", 0.01)
    stage = Stage(ca)
    with stage.open:
        stage.http(ADDRESS, 204)
        stage.gateway.start()
        for _ in range(6):
            sock = stage.dial(port=80)
            assert ask(sock, GET).status == 204
    assert stage.window.evicted
    assert not stage.locks.broken


# Functions of the user.


class Watcher:
    """Says which locks are held where it is called."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self.seen: set[str] = set()
        self.held: list[str] = []

    def __call__(self, what: str) -> None:
        self.seen.add(what)
        self.held += [f"{what}: {name}" for name in self._locks.held()]


@pytest.fixture
def watch(stage: Stage) -> Watcher:
    return Watcher(stage.locks)


def test_a_watcher_tells_what_is_held(stage: Stage, watch: Watcher) -> None:
    watch("free")
    with stage.ledger.changed:
        watch("within")
    assert (watch.seen, watch.held) == ({"free", "within"}, ["within: Ledger.changed"])


def test_no_lock_is_held_while_a_predicate_or_a_value_of_a_matcher_is_asked(
    stage: Stage, watch: Watcher
) -> None:
    class Value:
        def __eq__(self, other: object) -> bool:
            watch("eq")
            return True

        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            watch("repr")
            return "Value()"

    def predicate(request: Request) -> bool:
        watch("predicate")
        return request.path == "/"

    route = stage.https("api.test", 204, match=predicate, json={"id": Value()})
    body = b'{"id": 1}'
    head = b"POST %s HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n"
    sock = stage.tls()
    assert ask(sock, head % (b"/", len(body)) + body).status == 204
    assert ask(sock, head % (b"/other", len(body)) + body).status == 502  # says how it differs
    route.assert_called_with(match=predicate)
    with pytest.raises(CallError, match="Value"):
        route.wait_for_call(2, timeout=0.01)
    route.release()
    route.let_go()
    with pytest.raises(CallError, match="Value"):
        assert route.calls
    with pytest.raises(CallError, match="Value"):
        route.wait_for_call(2, timeout=0.01)
    assert watch.seen == {"eq", "repr", "predicate"}
    assert watch.held == []


def test_no_lock_is_held_while_a_handler_runs_or_its_body_is_made(
    stage: Stage, watch: Watcher
) -> None:
    def pieces() -> Iterator[bytes]:
        try:
            watch("piece")
            yield b"1"
            watch("piece")
            yield b"2"
        finally:
            watch("end of pieces")

    async def asynchronous(request: Request) -> Response:
        watch("async handler")
        return Response(stream=pieces())

    def plain(request: Request) -> int:
        watch("handler")
        return 204

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        watch("application")
        start_response("200 OK", [])
        return [b""]

    stage.https("api.test", sequence(asynchronous, plain, wsgi(application)))
    sock = stage.tls()
    assert [ask(sock).status for _ in range(3)] == [200, 204, 200]
    assert watch.seen == {"piece", "end of pieces", "async handler", "handler", "application"}
    assert watch.held == []


def test_no_lock_is_held_while_a_raw_handler_runs(stage: Stage, watch: Watcher) -> None:
    def plain(sock: socket.socket) -> None:
        watch("handler")
        sock.sendall(sock.recv(1))

    async def asynchronous(sock: socket.socket) -> None:
        watch("async handler")
        sock.sendall(sock.recv(1))

    stage.tcp(ADDRESS, sequence(plain, asynchronous))
    for _ in range(2):
        with contextlib.closing(stage.dial()) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    assert watch.seen == {"handler", "async handler"}
    assert watch.held == []


def test_no_lock_is_held_while_an_application_is_taken_up_or_let_go(
    stage: Stage, watch: Watcher
) -> None:
    class Own(Application):
        def acquire(self) -> None:
            watch("acquire")

        def release(self) -> None:
            watch("release")

        def __call__(self, request: Request) -> Response:
            return Response()

    route = stage.https("api.test", Own())
    route.respond(Own())
    route.release()
    assert (watch.seen, watch.held) == ({"acquire", "release"}, [])


# What one thread changes and another reads.


def test_an_answer_and_its_context_are_of_one_declaration(stage: Stage) -> None:
    declared_in: ContextVar[str] = ContextVar("declared_in")
    declared_in.set("first")
    route = stage.https("api.test", 200)
    turn = route.turns.reserve()
    assert turn is not None
    before = route.turns.answer(turn)
    declared_in.set("second")
    route.respond(sequence(201, 202))
    found = [before, *(route.turns.answer(turn) for turn in (1, 2))]
    assert [answer.status_code for answer, _ in found] == [200, 201, 202]
    assert [context[declared_in] for _, context in found] == ["first", "second", "second"]
    assert found[1][1] is not found[2][1]  # one for each call


class Guarded(list[Any]):
    """A list that tells who changes it or goes over it without the ledger's lock."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session, self.told = session, 0

    def _check(self) -> None:
        assert self._session.ledger.changed._is_owned()
        self.told += 1

    def __iter__(self) -> Iterator[Any]:
        self._check()
        return super().__iter__()

    def copy(self) -> list[Any]:
        self._check()
        return super().copy()

    def append(self, item: Any) -> None:
        self._check()
        super().append(item)

    def remove(self, item: Any) -> None:
        self._check()
        super().remove(item)

    def clear(self) -> None:
        self._check()
        super().clear()


def test_scopes_and_containers_change_and_are_gone_over_under_the_ledgers_lock() -> None:
    session = Session()
    scopes = session.scopes = Guarded(session)
    egress = Egress(session=session)
    containers = egress._inner.containers = Guarded(session)
    window = session.open_window()
    egress.intercept_https("api.test", 204)
    session.close_window(window)
    session.close()
    assert scopes.told >= 5
    assert containers.told >= 5
