"""`Forwarding`: sends one request to real servers. `Carrier` is the transport that the request came by.

This module knows no version of HTTP. Threads: `Forwarding.route` is set once, before the handler gets its request.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

import pytest_egress.gateway.upstream.exchange as upstream
from pytest_egress.base.account import Hold
from pytest_egress.base.sockets import Socket, shut
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.http.bodies import Body
from pytest_egress.gateway.http.spoiling import Line, StoppedError
from pytest_egress.gateway.lasting import Lasting
from pytest_egress.gateway.upstream.body import whole
from pytest_egress.gateway.upstream.upstreams import SocketOwner, Upstreams, upstream_host
from pytest_egress.ledger.windows import stays
from pytest_egress.routes.answers import Forward, check_forward, forward
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.grpc import is_grpc
from pytest_egress.traffic.http.head import MAX_BODY_BYTES, MULTIPLEXED
from pytest_egress.traffic.http.headers import Headers, without
from pytest_egress.traffic.http.made_body import MadeBody
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import (
    Response,
    carries_body,
    stated_length,
    streams_events,
)
from pytest_egress.traffic.websocket import asks_for_websocket

RESPONSES: Final = "responses"
WITH_CLIENT: Final = "its exchange with the upstream ended with it"
CUT_OFF: Final = (
    "pytest-egress ended the exchange before the upstream had answered: its test, its container, or what let it pass "
    "was over"
)


class Carrier(SocketOwner, Protocol):
    """The transport of requests: a connection of HTTP/1.1, or one stream where a connection has several."""

    @property
    def client(self) -> tuple[str, int]: ...

    @property
    def is_cut(self) -> bool:
        """Whether we have ended it."""
        ...

    def has_left(self) -> bool:
        """Whether the client has closed its side. Any thread may call it, whatever lock it holds."""
        ...

    def allow_unread(self, route: InnerRoute | None, host: str, /) -> None:
        """Note that a body passes through it unread, for as long as a route allows that."""
        ...

    def outlive(self, lasting: Lasting, /) -> None:
        """Keep the window of its request open no longer, though the request goes on."""
        ...

    def read_again(self) -> None: ...


class Forwarding:
    """Sends one request to real servers, for as long as it is being answered.

    A request refers to this object weakly: it may be kept for longer, in the ledger or by a test, and must not keep its
    connection.

    Attributes:
        asked: The request as it came.
        route: The route that answers it; None until that is decided, and where none does.
        passes_on: Whether the answer of the real server is passed on as it comes while it is recorded.
    """

    def __init__(
        self, carrier: Carrier, upstreams: Upstreams, attempt: Attempt, duplex: Line, called: str
    ) -> None:
        self._carrier, self._upstreams, self._called = carrier, upstreams, called
        self._duplex, self._activity = duplex, attempt.activity
        self._destination, self._tables = attempt.destination, attempt.context.tables
        self._has_left = False
        self._account = attempt.context.window.account
        self._held: list[Hold] = []  # of responses that its handler has asked for
        self.asked: Request
        self.route: InnerRoute | None = None
        self.passes_on = False

    def __call__(self, request: Request, to: Any, port: int | None) -> Response:
        """Send a request, or what a handler has made of it, and return the whole response (`Request.forward`)."""
        server = to if isinstance(to, Forward) else check_forward(forward(to, port), raw=False)
        request = self._renamed(request)
        sock = self.connect(request, server, by="request.forward")
        with self.ending_with_client(sock):  # a handler reads the response
            response = upstream.ask(sock, request, server.path, encoded=False)
            return self._whole(response, request)

    def _whole(self, response: Response, request: Request) -> Response:
        hold = self._account.hold(RESPONSES)
        try:
            response = whole(response, request.method, hold)
            if (left := self.left()) is not None:  # the end of a body without a length may be ours
                raise left
            return response
        finally:
            self._held.append(hold)
            if self._duplex.has_begun:
                self.release()

    def release(self) -> None:
        """Give back what is kept of the responses that the handler has asked for: it has answered, or begun to."""
        while self._held:
            with suppress(IndexError):  # another thread has given it back
                self._held.pop().release()

    @contextmanager
    def ending_with_client(self, sock: socket.socket, *, streams: bool = False) -> Iterator[None]:
        """Have the exchange on a socket, within the `with` block, end when nobody waits for it any more.

        A client that leaves is seen at once by RST_STREAM, and in HTTP/1.1 while its request may still come, or where
        it asks for a WebSocket. Behind any other whole request a client of HTTP/1.1 may close its side and wait for the
        response, which looks the same: the exchange goes on until its window is closed, and keeps no window open.

        Args:
            streams: Whether the exchange outlasts the block. It ends with the client until the request is over.

        Raises:
            ClientLeftError: The exchange has ended because the client left. It is a StoppedError where we cut it.
        """
        take_back: Callable[[], None] | None = None
        asked = self.asked
        if asked.http_version in MULTIPLEXED or not asked.is_whole or asks_for_websocket(asked):
            take_back = self._duplex.on_disconnect(partial(self._leave, sock))
        self._activity.is_abandoned = self._carrier.has_left
        try:
            yield
        except UpstreamError as error:
            if (left := self.left()) is not None:
                raise left from error
            raise
        finally:
            self._activity.is_abandoned = stays
            if take_back is not None and not streams:
                take_back()

    def _send_interim_on(self, status_code: int, headers: Headers) -> None:
        with suppress(ClientLeftError):  # which ends the exchange elsewhere
            self._duplex.send_interim(status_code, headers)

    def _leave(self, sock: socket.socket) -> None:
        self._has_left = True
        shut(sock)

    def left(self) -> ClientLeftError | None:
        """What has ended an exchange that broke off; None where the server did."""
        if self._carrier.is_cut:
            return StoppedError(CUT_OFF)
        return ClientLeftError(WITH_CLIENT) if self._has_left else None

    def _renamed(self, request: Request) -> Request:
        """The request, with its field Host set anew if a handler has replaced its host or port and left the field."""
        host, port, field = named_as(request)
        *asked_for, asked_field = named_as(self.asked)
        if [host, port] == asked_for or field != asked_field:
            return request
        others = without(request.headers, "host").raw
        return replace(request, headers=Headers([("Host", request.authority), *others]))

    def pass_on(self, request: Request, body: Body, to: Forward) -> Response:
        """The body of the request goes on as it comes where it was not read, and is kept unless the route streams.

        The body of the response streams. Raises UpstreamError where the server cannot be reached, or broke off.
        """
        streams = self.route is not None and self.route.stream
        sock = self.connect(request, to)
        content = None if body.is_whole else body.stream() if streams else body.relay()
        with self.ending_with_client(sock, streams=True):
            return upstream.ask(
                sock, request, to.path, content=content, interim=self._send_interim_on
            )

    def ask_as_it_comes(self, content: Iterator[bytes]) -> Response:
        """Send the request as it came, with its body as that comes. The body of the response streams.

        Raises:
            UpstreamError: The server cannot be reached, or broke off.
            ClientLeftError: The client has left before the response.
        """
        sock = self.connect(self.asked, Forward(), by="request.forward")
        with self.ending_with_client(sock, streams=True):
            return upstream.ask(sock, self.asked, content=content)

    def ask_to_record(self) -> tuple[Response, MadeBody | None]:
        """Send the request as it came. The body of a response streams where its head does not say how long it is.

        Returns:
            The response, and what is to keep its body where that streams.

        Raises:
            UpstreamError: The server cannot be reached, or broke off.
            ClientLeftError: The client has left before the response.
        """
        asked = self.asked
        sock = self.connect(asked, Forward(), by="request.forward")
        with self.ending_with_client(sock):
            response = upstream.ask(sock, asked, encoded=False)
            if has_known_end(response, asked):
                return self._whole(response, asked), None
        self.passes_on = True
        self._activity.is_abandoned = self._carrier.has_left
        if asked.http_version in MULTIPLEXED and streams_events(response):
            self._duplex.on_disconnect(partial(self._leave, sock))
        made = MadeBody(MAX_BODY_BYTES, self._account.hold(RESPONSES).fits)
        response.recorded(made)
        return response, made

    def connect(self, request: Request, to: Forward, by: str = "") -> Any:
        """TLS is used where the scheme is https; `by` is "request.forward" where a handler asks, "" for a route.

        From then on the request counts as one that got out.
        """
        sock = self._connect(request, to, by)
        object.__setattr__(self.asked, "_got_out", True)
        return sock

    def _connect(self, request: Request, to: Forward, by: str) -> Any:
        owner, upstreams = self._carrier, self._upstreams
        if to.container is not None:
            return upstreams.connect(owner, to, request.port)
        host, scheme = to.host or request.host, to.scheme or request.scheme
        server_name = host
        if to.host is not None:
            sock = upstreams.connect(owner, to, request.port)
        else:
            reached = host
            if host == self.asked.host:  # no handler has replaced the host
                reached = upstream_host(self._tables, self._destination, self.route, host)
                server_name = self._called or host
            sock = upstreams.reach(owner, self.route, reached, request.port, scheme, by)
        if scheme != "https":
            return sock
        twin = Socket(fileno=os.dup(sock.fileno()))  # TLS takes the descriptor from `sock`
        with closing(twin), self.ending_with_client(twin):  # a server may never shake hands
            return upstreams.secure(owner, sock, server_name, http2=request.http_version == "2")


def named_as(request: Request) -> tuple[str, int, str | None]:
    return request.host, request.port, request.headers.get("host")


def has_known_end(response: Response, request: Request) -> bool:
    """Whether nobody waits for a part of the body of a response: it states its length, or is a call of gRPC."""
    if stated_length(response.headers) is not None or is_grpc(request):
        return True
    return not carries_body(request.method, response)
