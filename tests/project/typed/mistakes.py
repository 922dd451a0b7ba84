"""What no type checker may accept: test_typing.py expects an error at each line that says so, and at no other."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

from pytest_egress import (
    Container,
    Egress,
    Request,
    Response,
    Route,
    TcpConnection,
    forward,
    reset,
    sequence,
    websocket,
)


def anything(request: Request) -> object:
    return object()


async def anything_later(request: Request) -> object:
    return object()


def numbers(request: Request) -> Iterator[int]:
    yield 1


async def numbers_later(request: Request) -> AsyncIterator[int]:
    yield 1


def a_set(request: Request) -> set[int]:
    return {1}


def without_argument() -> int:
    return 200


def of_a_socket(sock: socket.socket) -> None:
    sock.close()


def sent(sock: socket.socket) -> bytes:
    return b"welcome"


def test_handlers(egress: Egress) -> None:
    egress.intercept_https("a.test", websocket(without_argument))  # error
    egress.intercept_tcp("a.test:1", websocket())  # error
    egress.intercept_https("a.test", anything)  # error
    egress.intercept_https("a.test", anything_later)  # error
    egress.intercept_https("a.test", numbers)  # error
    egress.intercept_https("a.test", numbers_later)  # error
    egress.intercept_https("a.test", a_set)  # error
    egress.intercept_https("a.test", without_argument)  # error
    egress.intercept_https("a.test", of_a_socket)  # error
    egress.intercept_http("a.test", anything)  # error
    egress.intercept_https("a.test")(anything)  # error
    egress.intercept_https("a.test").respond(anything)  # error
    egress.intercept_tcp("a.test:1", sent)  # error
    egress.intercept_tls("a.test")(sent)  # error
    egress.intercept_https("a.test", sequence(503, anything))  # error
    egress.intercept_https("a.test", sequence(503, of_a_socket))  # error


def test_decorated(egress: Egress) -> None:
    @egress.intercept_https("a.test")  # error
    def handler(request: Request) -> object:
        return object()

    @egress.intercept_https("a.test")  # error
    async def handler_later(request: Request) -> object:
        return object()

    @egress.intercept_tcp("a.test:1")  # error
    def raw(sock: socket.socket) -> str:
        return "welcome"


def test_static_answers(egress: Egress, shop: Container) -> None:
    egress.intercept_https("a.test", "text")  # error
    egress.intercept_https("a.test", 1.5)  # error
    egress.intercept_https("a.test", {1, 2})  # error
    egress.intercept_tcp("a.test:1", {"id": 1})  # error
    egress.intercept_https("a.test", forward(5432))  # error
    egress.dns("a.test", 1)  # error
    egress.dns("a.test", MX=10)  # error
    egress.dns("a.test", srv="0 0 5432 db.test")  # error
    egress.dns("a.test", "NXDOMAIN").respond(503)  # error
    egress.intercept_https("a.test", handler=503)  # error
    egress.intercept_https("a.test").respond(handler=503)  # error
    reset(stream=True)  # error
    Response(content="text")  # error
    Response(stream=[1])  # error
    Response("200")  # error
    Response(compress="lzma")  # error


def test_certificates(egress: Egress) -> None:
    egress.intercept_https("a.test", certificate="expierd")  # error
    egress.intercept_https("a.test", tls_version="TLSv1.4")  # error
    egress.intercept_http("a.test", certificate="expired")  # error
    egress.intercept_tcp("a.test:1", certificate="expired")  # error
    print(egress.intercept_https("a.test").assert_rejected().response)  # error


def test_calls(egress: Egress, shop: Container) -> None:
    call = egress.intercept_https("a.test").wait_for_call()
    print(call.response.status)  # error
    print(call.content)  # error
    print(call.messages[0].text)  # error
    print(egress.intercept_tcp("a.test:1").calls[0].response)  # error
    of_requests: Route = egress.intercept_tcp("a.test:1")  # error
    of_bytes: Route[TcpConnection] = egress.intercept_https("a.test")  # error
    egress.start("shop:latest", wait=8080)  # error
    egress.assert_order(of_requests, of_bytes, "a.test")  # error


def test_names_of_the_gateway(route: Route) -> None:
    route.reserve()  # error
    print(route.parsed_address, route)  # error
    print(route.scope)  # error


def test_names_of_egress(shop: Container, egress: Egress) -> None:
    print(shop.gateway)  # error
    shop.launch()  # error
    egress.start("shop:latest").finish()  # error
