"""HTTP on a connection: reads one request after the other, finds its route, and sends the answer.

Handlers run here, on the connection's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final
from weakref import WeakMethod

import h11

import pytest_egress.upstream as upstream
from pytest_egress.address import is_ip_address, normalise_host
from pytest_egress.answers import Forward, Handler, check_forward, forward
from pytest_egress.clock import run_by_real_clock
from pytest_egress.connection import Connection
from pytest_egress.errors import AddressError, UpstreamError
from pytest_egress.exchange import (
    UNREADABLE,
    Exchange,
    Headers,
    Outcome,
    Request,
    Response,
    TcpConnection,
    host_port,
    response_from,
    shown,
    speaks_http2,
)
from pytest_egress.handshake import broken_handshake, silent_after_handshake
from pytest_egress.http1 import (
    MAX_BODY_BYTES,
    READ_BYTES,
    Head,
    Http1,
    RequestTooLargeError,
    split_authority,
)
from pytest_egress.hub import FIRST_BYTES_KEPT, passes
from pytest_egress.ledger import MAX_HELD_BYTES
from pytest_egress.redaction import masked_authority, masked_text
from pytest_egress.report import (
    blocked_body,
    failed_upstream_body,
    handler_error_body,
    refused_body,
    unrouted_body,
)
from pytest_egress.routing import Route, claimed, decide, nearest_by_address, would_answer

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


UNPROVED: Final = (
    "{route} requires a client certificate, and the connection of this request has none: it was opened before "
    "the route was declared"
)


LEFT_OVER: Final = "sent behind a request after which its connection closes, so nobody answers it"


class BodyError(Exception):
    """A response could not be sent, and not for the client's sake; the exchange has the reason."""


class HttpServer:
    """Serves the requests of one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.hub, self.ledger = connection.hub, connection.ledger
        self.http = Http1()
        self._asked: tuple[str, int, str | None] = ("", 0, None)  # no request: it may be large
        self._route: Route[Any] | None = None

    def serve(self) -> None:
        """Serve one request after the other.

        Raises:
            Parked: The next one does not come soon.
        """
        connection = self.connection
        connection.started = self.ledger.now()  # what came before was no request's
        try:
            while (head := self.read_head()) is not None and self.answer(head):
                if not self.http.has_begun:
                    connection.end()
                else:  # sent before its turn: read in this window, it has begun in it
                    connection.started = self.ledger.now()
        except h11.RemoteProtocolError as error:
            self.refuse(error.error_status_hint, f"{UNREADABLE}: {masked_text(str(error))}")
        except RequestTooLargeError as error:
            self.refuse(413, str(error))
        connection.say_goodbye()

    def read_head(self) -> Head | None:
        """The next request's head, or None at the end of the connection."""
        while (head := self.http.read_head()) is None:
            if self.http.closed:
                return None
            if self.connection.idle_since is not None:
                self.connection.await_begin(self.serve)
            self.http.receive(self.read())
            if not self.http.has_begun and not self.http.closed:  # an empty line between requests
                self.connection.end()
        return head

    def read(self) -> bytes:
        """What comes next of a head; b"" at the end of the connection.

        Clients that do not trust us break off here, with an alert or without a word.
        """
        connection = self.connection
        try:
            data = connection.sock.recv(READ_BYTES)
        except OSError as error:
            if connection.tls and not connection.accounted:
                connection.fail_tls(*broken_handshake(error, connection.host, connection.hello))
            elif self.http.has_begun:
                connection.record_tcp(b"", f"broke off within the head of a request: {error}")
            raise
        if data:
            if connection.tls and not connection.accounted:
                connection.shook_hands()
            connection.accounted = True
            self.hold(data)
        elif connection.tls and not connection.accounted:
            version = connection.tls.version
            connection.fail_tls(*silent_after_handshake(connection.host, connection.hello, version))
        return data

    def refuse(self, status_code: int, text: str) -> None:
        """Record what cannot be read as HTTP/1.1, say so, and close."""
        connection = self.connection
        fields = connection.judged("unrouted")
        connection.record(TcpConnection(**fields, address=connection.address, note=text))
        self.write_refusal(status_code, text)

    def write_refusal(self, status_code: int, text: str) -> Response | None:
        """Answer, where that is still possible, and let the client read it; what was sent."""
        response = Response(status_code, text=text, headers={"Connection": "close"})
        refusal = self.http.refusal(response, http_date(int(self.ledger.now())))
        try:
            self.connection.sock.sendall(refusal)
        except OSError:
            return None
        self.connection.linger()
        return response if refusal else None

    def answer(self, head: Head) -> bool:
        """Read the body, find the route, send its answer; False when the connection is over."""
        self.connection.idle_seconds = self.hub.idle_seconds
        if self.connection.tls:  # in each test that it has requests in
            self.connection.shook_hands()
        if head.is_http2_preface:
            self.refuse(505, speaks_http2(self.connection.host if self.connection.tls else None))
            return False
        try:
            body, trailers = self.read_body(head)
        except RequestTooLargeError as error:
            text = str(error) or f"the body is over MAX_BODY_BYTES, {MAX_BODY_BYTES} bytes"
            return self.refuse_body(head, 413, text, at_claimed="unrouted")
        except (OSError, h11.RemoteProtocolError) as error:
            text = f"the body broke off after {len(self.http.body_so_far)} bytes ({error})"
            return self.refuse_body(head, 400, text, at_claimed="recorded")
        request = self.request(head, body, trailers)
        self._asked = named_as(request)
        entry = self.entry(request, {"outcome": "unrouted"})
        response = self.respond(entry, head)
        entry.response, entry.duration = response, self.ledger.now() - entry.started
        if entry.outcome == "routed" and entry.route is not None and entry.error is None:
            self.ledger.count(entry.route, self.connection.place.window, entry)
        if self.send(entry, response) and self.http.next_request():
            return True
        self.record_left_over()
        return False

    def record_left_over(self) -> None:
        """Record the requests that were sent behind one after which the connection closes: nobody answers them."""
        connection, left = self.connection, self.http.left_over
        if left is None:
            return
        with contextlib.suppress(OSError):  # what has arrived and was not read
            connection.sock.settimeout(0)
            left += connection.sock.recv(READ_BYTES)
        while left:
            http, head = Http1(), None
            http.receive(left)
            with contextlib.suppress(h11.RemoteProtocolError):
                head = http.read_head()
            if head is None:
                if left := left.lstrip(b"\r\n"):
                    connection.record_tcp(left[:FIRST_BYTES_KEPT], LEFT_OVER)
                return
            self.record_unanswered(http, head)
            left = http.left_over or b""

    def record_unanswered(self, http: Http1, head: Head) -> None:
        """Record a request that gets no answer; it is unrouted where no route would give one.

        Args:
            http: Has read the head.
        """
        place, body = self.connection.place, None
        with contextlib.suppress(h11.RemoteProtocolError, RequestTooLargeError):
            body = http.read_body()
        content, trailers = body or (http.body_so_far, Headers())
        request = self.request(head, content, trailers)
        expected = not self.misdirected(request, head) and would_answer(place.tables, request)
        at_claimed: Outcome = "recorded" if expected else "unrouted"
        judged = self.hub.judge(place, request.host, request.port, at_claimed)
        self.hub.record(place, self.entry(request, judged, LEFT_OVER))

    def entry(self, request: Request, judged: dict[str, Any], note: str = "") -> Exchange:
        """An entry for a request of this connection."""
        about = self.hub.about(request.host, request.port, self.connection.started)
        return Exchange(**about, **judged, request=request, note=note)

    def read_body(self, head: Head) -> tuple[bytes, Headers]:
        """The whole body and its trailers."""
        if (head.expected or 0) > MAX_BODY_BYTES:
            raise RequestTooLargeError
        if interim := self.http.interim():
            self.connection.sock.sendall(interim)
        while (whole := self.http.read_body()) is None:
            data = self.connection.sock.recv(READ_BYTES)
            self.hold(data)
            self.http.receive(data)
        return whole

    def hold(self, data: bytes) -> None:
        """Count what is kept in the ledger.

        Raises:
            RequestTooLargeError: It is more than a window may keep.
        """
        if not self.ledger.hold(self.connection.place.window, len(data)):
            raise RequestTooLargeError(
                f"all that was sent is over MAX_HELD_BYTES, {MAX_HELD_BYTES} bytes"
            )

    def refuse_body(self, head: Head, status_code: int, text: str, at_claimed: Outcome) -> bool:
        """Record a request whose body is not whole: an attempt all the same; the connection closes."""
        place = self.connection.place
        request = self.request(head, self.http.body_so_far, Headers())
        judged = self.hub.judge(place, request.host, request.port, at_claimed)
        entry = self.entry(request, judged, text)
        self.connection.record(entry)
        entry.response = self.write_refusal(status_code, text)
        return False

    def request(self, head: Head, body: bytes, trailers: Headers) -> Request:
        """The request as handlers see it."""
        connection = self.connection
        return Request(
            method=head.method,
            scheme="https" if connection.tls else "http",
            host=self.host_of(head),
            port=connection.port,
            path=head.path,
            query_string=head.query_string,
            headers=head.headers,
            content=body,
            trailers=trailers,
            http_version=head.http_version,
            sni=connection.sni,
            tls=connection.tls,
            client=connection.client,
            container=connection.site.name,
            _forward=WeakMethod(self.forward_request),  # what is kept does not keep the connection
        )

    def host_of(self, head: Head) -> str:
        """The host that routes are keyed on: SNI, else the dialled name, else the address, else the name in Host."""
        connection = self.connection
        named, _ = named_by(head.authority or "") or (None, None)
        if connection.tls or named is None:
            return connection.host
        if connection.host != connection.address:  # several names may share an address
            return named if self.hub.gives(named, connection.address) else connection.host
        if claimed(connection.place.tables, connection.host, connection.port):
            return connection.host
        return named

    def respond(self, entry: Exchange, head: Head) -> Response:
        """Decide, record, and make the response."""
        place, request = self.connection.place, entry.request
        if self.misdirected(request, head):
            self.judge(entry, head.authority or "")
            entry.note = f"its {said(head)}, which is not {meant(request, head)}"
            self.hub.record(place, entry)
            return Response(421, text=refused_body(entry))  # RFC 9110 section 15.5.20
        try:
            decision = decide(place.tables, request)
        except BaseException as error:  # of a predicate; the test's own thread raises it
            entry.error, entry.outcome = error, "routed"
            self.hub.record(place, entry)
            return Response(500, text=handler_error_body(entry))
        if decision.unproved is not None:
            return self.refuse_unproved(entry, decision.unproved)
        entry.route, entry.near = decision.route, decision.near
        self._route = decision.route
        if request.method == "CONNECT":
            entry.note = "CONNECT asks for a tunnel, and there is no proxy here: nothing needs one"
        elif passes(place, decision.route, {*self.connection.hosts, request.host}, request.port):
            entry.outcome = "passthrough"
            self.hub.record(place, entry)
            return self.forward(entry, Forward())
        if decision.route is None or decision.route.kind == "block" or entry.note:
            return self.turn_down(entry)
        entry.outcome = "routed"
        self.hub.record(place, entry)
        return self.call(entry, decision.route, decision.turn)

    def refuse_unproved(self, entry: Exchange, route: Route[Any]) -> Response:
        """Record a request whose connection lacks a client certificate; another may have it (RFC 9110, 15.5.20)."""
        self.judge(entry)
        entry.note = UNPROVED.format(route=route)
        self.hub.record(self.connection.place, entry)
        return Response(421, headers={"Connection": "close"}, text=refused_body(entry))

    def judge(self, entry: Exchange, authority: str = "") -> None:
        """Give it the outcome of what no handler answers.

        No policy excuses a request that reaches for a host of a route by the name of another.

        Args:
            authority: What it says that it is for, where that is another host.
        """
        place, port = self.connection.place, entry.port or 0
        judged = self.hub.judge(place, entry.host, port)
        entry.outcome, entry.route = judged["outcome"], judged.get("route")
        if entry.outcome == "blocked" and entry.route is None:  # by a policy
            named, _ = named_by(authority) or (entry.host, None)
            outcomes = (
                self.hub.judge(place, host, port)["outcome"]
                for host in (named, *self.connection.hosts)
            )
            entry.outcome = "unrouted" if "unrouted" in outcomes else "blocked"

    def turn_down(self, entry: Exchange) -> Response:
        """Record what is blocked or unrouted, and say so."""
        place, request = self.connection.place, entry.request
        if entry.route is not None and entry.route.kind == "block":
            entry.outcome = "blocked"
        else:
            self.judge(entry)
        if entry.route is None and not entry.near:
            where = request.scheme, request.host, request.port
            miss = nearest_by_address(place.tables, *where)
            entry.near = (miss,) if miss else ()
        self.hub.record(place, entry)
        blocked = entry.outcome == "blocked"
        return Response(502, text=blocked_body(entry) if blocked else unrouted_body(entry))

    def misdirected(self, request: Request, head: Head) -> bool:
        """Whether the request names another server than the one that it is recorded, matched and forwarded for.

        A client that dialled an address may name any host of it, and one that resolved a name itself the address.
        """
        connection = self.connection
        if head.authority is None or request.method == "CONNECT":
            return False
        literally = head.authority == request.host  # what DNS named need be no host to declare
        named = (request.host, None) if literally else named_by(head.authority)
        if named is None or head.scheme not in (None, request.scheme):
            return True
        host, port = named
        by_address = connection.host == connection.address and connection.sni is None
        is_dialled = (
            host == connection.address and connection.sni is None
        )  # its client has resolved
        same = host == request.host or is_dialled or (by_address and not is_ip_address(host))
        return not same or port not in (None, request.port)

    def call(self, entry: Exchange, route: Route[Any], turn: int) -> Response:
        """What the route answers."""
        activity = self.connection.activity
        activity.route, activity.what = route, str(entry)
        try:
            answer = route.answer(turn)
            if isinstance(answer, Response):
                return answer
            if isinstance(answer, Forward):
                return self.forward(entry, answer)
            return self.handle(entry, route, answer)
        finally:
            activity.route = None

    def handle(self, entry: Exchange, route: Route[Any], handler: Handler) -> Response:
        """What a handler answers; 500 where it raises."""
        try:
            run = route.context().run
            result = run(handler, entry.request)
            if inspect.isawaitable(result):
                result = run(run_async, result)
            return begun(response_from(result, of_function=True), run)
        except BaseException as error:  # whatever it is, the test's own thread raises it
            entry.error = error
            return Response(500, text=handler_error_body(entry))

    def forward(self, entry: Exchange, to: Forward) -> Response:
        """What another server answers; 502 where it does not (RFC 9110 section 15.6.3)."""
        try:
            return self.ask_upstream(entry.request, to)
        except UpstreamError as error:
            entry.note = str(error)
            return Response(502, text=failed_upstream_body(entry))

    def forward_request(self, request: Request, to: object, port: int | None) -> Response:
        """What `Request.forward` gives."""
        server = check_forward(forward(to, port), raw=False)
        response = self.ask_upstream(self.renamed(request), server, by="request.forward")
        return upstream.whole(response, request.method)

    def renamed(self, request: Request) -> Request:
        """The request with the Host of its own host, where a handler has replaced that and left the field."""
        host, port, field = named_as(request)
        if (host, port) == self._asked[:2] or field != self._asked[2]:
            return request
        others = upstream.without(request.headers, "host").raw
        return replace(request, headers=Headers([("Host", request.authority), *others]))

    def ask_upstream(self, request: Request, to: Forward, by: str = "") -> Response:
        """Send a request to another server; the body of its answer streams.

        Args:
            by: "request.forward" where a handler asks, who is to read it.
        """
        sock = self.reach(request, to, by)
        return upstream.ask(sock, request, to.path, encoded=not by)

    def reach(self, request: Request, to: Forward, by: str) -> socket.socket:
        """A connection to another server, by TLS where that is its scheme."""
        connection = self.connection
        if to.container is not None:
            return connection.adopt(upstream.connect_container(to.container, to.port or 0))
        host, scheme = to.host or request.host, to.scheme or request.scheme
        if to.host is not None:
            sock = connection.adopt(upstream.connect(host, to.port or request.port))
        else:
            reached = host
            if host == self._asked[0]:  # no handler has changed it
                reached = connection.upstream_host(self._route, host)
            sock = connection.reach(self._route, reached, request.port, scheme, by)
        return connection.adopt_tls(sock, host) if scheme == "https" else sock

    def send(self, entry: Exchange, response: Response) -> bool:
        """Send it; False when the connection is over."""
        try:
            for piece in self.pieces(entry, response):
                self.connection.sock.sendall(piece)
        except BodyError:
            self.connection.reset()
            return False
        except OSError as error:
            if entry.outcome == "routed":
                entry.note = f"the client closed before the whole response was sent ({error})"
            return False
        finally:
            if response.stream is not None:
                self.close_stream(entry, response.stream)
        return True

    def pieces(self, entry: Exchange, response: Response) -> Iterator[bytes]:
        """What goes out; what a streamed body raises is the handler's error, and no connection's."""
        if response.stream is not None and entry.outcome == "passthrough":
            self.connection.let_live(entry.route, entry.host)
        elif response.stream is not None:
            self.connection.activity.route = entry.route  # its handler still runs
        try:
            date = http_date(int(entry.started))
            yield from self.http.send(response, entry.request.method, date)
        except GeneratorExit:
            raise
        except BaseException as error:  # or a response that HTTP cannot carry
            if isinstance(response.stream, upstream.Body):  # of `forward()`: no handler's
                entry.note = str(error)
            else:
                entry.error = entry.error or error
            raise BodyError from error
        finally:
            self.connection.activity.route = self.connection.claim = None

    def close_stream(self, entry: Exchange, stream: object) -> None:
        """Let a generator end its work, also where the client has not read it all."""
        try:
            getattr(stream, "close", lambda: None)()
        except BaseException as error:  # of its `finally`
            entry.error = entry.error or error


class Begun:
    """A streamed body of which the first piece has been made; each piece is made in one context.

    Args:
        run: Runs a function in that context.
        first: The first piece, or none where there is no piece at all.
        rest: Makes the others.
    """

    def __init__(
        self, run: Callable[..., Any], first: Sequence[bytes], rest: Iterator[bytes]
    ) -> None:
        self._run, self._first, self._rest = run, [*first], rest

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece: bytes = self._first.pop() if self._first else self._run(next, self._rest)
        return piece

    def close(self) -> None:
        """Let a generator end its work."""
        self._run(getattr(self._rest, "close", lambda: None))


def begun(response: Response, run: Callable[..., Any]) -> Response:
    """A function's response; what it raises before the first piece of a streamed body is raised here."""
    if not isinstance(response.stream, Iterator):
        return response
    pieces = response.stream
    try:
        first = [run(next, pieces)]
    except StopIteration:
        first = []
    streaming = copy.copy(response)
    streaming.stream = Begun(run, first, pieces)
    return streaming


async def await_it(awaitable: Any) -> Any:
    """The coroutine that `asyncio.run` wants of any awaitable."""
    run_by_real_clock(asyncio.get_running_loop())
    return await awaitable


def run_async(awaitable: Any) -> Any:
    """Run an async handler to its end, on a loop of its own."""
    return asyncio.run(await_it(awaitable))


@lru_cache(maxsize=1024)
def named_by(authority: str) -> tuple[str, int | None] | None:
    """The normalised host of an authority and its port, or None where it is none."""
    parts = split_authority(authority)
    try:
        return None if parts is None else (normalise_host(parts[0]), parts[1])
    except AddressError:
        return None


def named_as(request: Request) -> tuple[str, int, str | None]:
    """What a request is for: its host, its port, and what its field Host says."""
    return request.host, request.port, request.headers.get("host")


def said(head: Head) -> str:
    """What a request says that it is for, and where."""
    named = masked_authority(head.authority or "")
    if head.scheme is None:
        return f"Host is {shown(named)}"
    return f"request-target begins with {shown(f'{head.scheme}://{named}')}"


def meant(request: Request, head: Head) -> str:
    """What it is for, as far as that is another."""
    scheme = f"{request.scheme}://" if head.scheme is not None else ""
    named = named_by(head.authority or "")
    port = request.port if named is not None and named[1] is not None else None
    return repr(f"{scheme}{host_port(request.host, port)}")


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """A Date field (RFC 9110 section 6.6.1), made once a second."""
    return formatdate(second, usegmt=True)
