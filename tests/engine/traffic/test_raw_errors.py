"""What a raw handler raises fails the test of the container that it talked to."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest

from pytest_egress import Egress, HandlerError, Route
from pytest_egress.ledger.verdict import judge
from pytest_egress.session import Session
from pytest_egress.traffic.entries import TcpConnection
from tests.support.stage import SECONDS, eventually

# In real containers.

TALK = "(printf wrong; sleep 600) | nc {host} 5432"


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_an_assertion_about_what_was_read_fails_the_test_that_ends_first(
    clients_image: str, link: str
) -> None:
    read = threading.Event()

    def handler(sock: socket.socket) -> None:
        data = b""
        while chunk := sock.recv(100):
            data += chunk
            read.set()
        assert data == b"right"

    session = Session(link=link)

    routes: list[Route[Any]] = []

    def use() -> None:
        with Egress(session=session) as egress:
            routes.append(egress.intercept_tcp("db.test:5432", handler))
            egress.start(clients_image, ["sh", "-c", TALK.format(host="db.test")])
            assert read.wait(SECONDS)

    with pytest.raises(HandlerError, match="raised AssertionError") as caught:
        use()
    assert isinstance(caught.value.__cause__, AssertionError)
    assert routes[0].call_count == 0
    assert session.outside() == []


def test_what_a_wider_routes_handler_raises_while_a_test_is_closed_is_that_tests(
    clients_image: str,
) -> None:
    read, closing, raised = threading.Event(), threading.Event(), threading.Event()

    def wide(sock: socket.socket) -> None:
        sock.recv(100)
        read.set()
        closing.wait(SECONDS)
        raised.set()
        raise LookupError("of the module")

    def own(sock: socket.socket) -> None:
        sock.recv(100)
        read.set()
        assert sock.recv(1) == b""  # the test is being closed
        closing.set()
        assert eventually(
            lambda: any(e.error for e in first.entries if isinstance(e, TcpConnection))
        )

    session = Session()
    with contextlib.closing(session):
        module = Egress(session=session, scope="module")
        module.intercept_tcp("wide.test:5432", wide)
        first = session.open_window()
        container = module.start(clients_image, ["sleep", "600"])
        background = ["sh", "-c", f"{TALK.format(host='wide.test')} >/dev/null 2>&1 &"]
        container.exec(background)
        assert read.wait(SECONDS)
        session.close_window(first)
        assert judge(first, []) is None
        read.clear()
        second = session.open_window()
        test = Egress(session=session, scope="test", parent=module)
        test.intercept_tcp("own.test:5432", own)
        container.exec(["sh", "-c", f"{TALK.format(host='own.test')} >/dev/null 2>&1 &"])
        assert read.wait(SECONDS)
        session.close_window(second)
        verdict = judge(second, [])
        assert isinstance(verdict, HandlerError)
        assert isinstance(verdict.__cause__, LookupError)
        assert raised.is_set()
        assert module._inner.between.entries == []
