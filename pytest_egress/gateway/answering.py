"""`Answering`: checks the host of a request, decides which route answers it, and calls its handler or forwards it.

This module touches no client socket and knows no version of HTTP: a server reads the head of a request, gives its
`Duplex`, and sends the response. The decision about a request is a `Ruling`. Its entry is recorded before its handler
runs, and counted afterwards. A server asks `begins_at_head` first. Where that is not so, it has the whole body read.

Threads: a request is answered on the thread that asks, and that may be any: the requests of one connection may be
answered at the same time. No lock is held while a matcher, a handler or a body runs. `Forwarding.route` is set once,
before the handler gets its request.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, Protocol

import pytest_egress.gateway.upstream as upstream
from pytest_egress.base.account import Hold, OverLimitError
from pytest_egress.base.sockets import Socket, shut
from pytest_egress.errors import AddressError, UpstreamError
from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.bodies import Body
from pytest_egress.gateway.calls import answer_request
from pytest_egress.gateway.conversations import Call, Told
from pytest_egress.gateway.lasting import Lasting
from pytest_egress.gateway.late_heads import LateHead
from pytest_egress.gateway.names import Names
from pytest_egress.gateway.recorder import Claim, Recorder, accepted, passes
from pytest_egress.gateway.spoiling import (
    Line,
    SpoiledDuplex,
    Spoiling,
    StoppedError,
    settled,
    source_of,
)
from pytest_egress.gateway.upstream_body import UpstreamBody, whole
from pytest_egress.gateway.upstreams import Owner, Upstreams, upstream_host
from pytest_egress.gateway.websocket_relay import WebSocketRelay
from pytest_egress.ledger.report import (
    blocked_body,
    failed_upstream_body,
    handler_error_body,
    refused_body,
    unrouted_body,
)
from pytest_egress.ledger.windows import STILL_STREAMED, Streams, stays
from pytest_egress.routes.answers import (
    AnsweredError,
    Forward,
    Handler,
    check_forward,
    forward,
    held,
)
from pytest_egress.routes.asgi import AsgiApplication
from pytest_egress.routes.asgi_websocket import AsgiWebSocket
from pytest_egress.routes.duplex import ClientLeftError, Duplex, DuplexAnswer
from pytest_egress.routes.faults import Fault, layers, with_answer
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import (
    Decision,
    NearMiss,
    begins_at_head,
    claimed,
    decide,
    forecast,
    keyed_on,
    nearest_by_address,
    spent_route,
)
from pytest_egress.routes.turns import takes_what_comes
from pytest_egress.traffic.address import is_ip_address, normalise_host
from pytest_egress.traffic.entries import Exchange, Outcome
from pytest_egress.traffic.fields import MAX_BODY_BYTES, Head, size_of, split_authority, without
from pytest_egress.traffic.grpc import SHOWN_DETAILS, Code, is_grpc, status_head
from pytest_egress.traffic.made_body import (
    BY_ITS_ROUTE,
    MAX_MADE_BYTES,
    OVER_HELD,
    KeptStream,
    MadeBody,
    never,
)
from pytest_egress.traffic.messages import (
    NO_FIELDS,
    UNSET,
    Headers,
    HeaderSource,
    Request,
    Response,
    Unset,
    cut,
    host_port,
    shown,
)
from pytest_egress.traffic.redaction import masked_authority
from pytest_egress.traffic.websocket import WEBSOCKET, asks_for_websocket, is_handshake

UNPROVED: Final = (
    "{route} requires a client certificate, and the connection of this request has none: it was opened before "
    "the route was declared"
)
UNSEEN: Final = (
    "{route} would answer it, and its connection has not been shown that {given}: it was opened before the route was "
    "declared, or another route for the host comes first, and decides the handshake"
)
RESPONSES: Final = "responses"
FREE_BYTES: Final = 1024
"""The content of a response that is kept without being counted: `MAX_ENTRIES` bounds all of them well enough."""

SOON_SECONDS: Final = 0.25  # for the next piece of a call of gRPC that gets no answer
LEFT_EARLY: Final = "the client closed before its response was sent ({})"
WITH_CLIENT: Final = "its exchange with the upstream ended with it"
CUT_OFF: Final = (
    "pytest-egress ended the exchange before the upstream had answered: its test, its container, or what let it pass "
    "was over"
)
NO_WEBSOCKET: Final = (
    "over HTTP/2 the status {} would tell its client that a WebSocket is open (RFC 8441 section 5), so that 501 was "
    "sent: websocket(handler) opens one"
)
UNDECIDED: Final = "a match= predicate has not said yet whether its route answers it"
HANDLER: Final = "handler"
PREDICATE: Final = "match= predicate"
"""Parts of a route that may run without end, as `Activity.part`."""

NO_TUNNEL: Final = "CONNECT asks for a tunnel, and there is no proxy here: nothing needs one"


class BodyError(Exception):
    """A response could not be sent, for a reason that is not the client's; the exchange has the reason."""


class Carrier(Owner, Protocol):
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


class Ruling(NamedTuple):
    """The decision about a request. All but `reply` and `is_shared` are fields of its entry.

    Attributes:
        reply: Makes the response, after the request has been recorded; None where it has been sent, or nobody is left
            to get one, or a fault is used in its place.
        is_shared: Whether the response is one object for all calls of the route.
    """

    outcome: Outcome
    route: InnerRoute | None
    reply: Callable[[Exchange], Response | None]
    near: tuple[NearMiss, ...] = ()
    note: str = ""
    error: BaseException | None = None
    fault: Fault | None = None
    is_shared: bool = False


@dataclass(eq=False, slots=True)
class Incoming:
    """A request whose head a server has read.

    Attributes:
        called: The name that the client has used for the host of the request, if that is another one; else "".
        entry: None until it is recorded.
    """

    attempt: Attempt
    head: Head
    duplex: Line
    body: Body
    request: Request
    forwarding: Forwarding
    called: str
    entry: Exchange | None = None
    is_counted: bool = False


class Answering:
    """Answers the requests of one carrier. It keeps no state of a request, so any number may be answered at once.

    Args:
        carrier: The transport of the requests. Its server keeps this object for as long as it serves the carrier.
    """

    def __init__(
        self, carrier: Carrier, recorder: Recorder, names: Names, upstreams: Upstreams
    ) -> None:
        self.carrier, self.upstreams = carrier, upstreams
        self.recorder, self._names, self.ledger = recorder, names, recorder.ledger

    def take(self, attempt: Attempt, head: Head, duplex: Line) -> Incoming:
        """The server keeps `duplex` until it has sent the response: the request refers to it weakly.

        Raises:
            OverLimitError: The window keeps too much already.
        """
        destination, account = attempt.destination, attempt.context.window.account
        account.keep(head.size, "requests' heads")
        host, called = self._host_of(attempt, head)
        forwarding = Forwarding(self, attempt, duplex, called)
        body = Body(duplex, account, head.expected)
        method, headers = head.method, head.headers
        if (
            head.protocol == WEBSOCKET
        ):  # as HTTP/1.1 has it, for handlers and matchers (RFC 8441 section 5)
            method, headers = "GET", Headers([*headers.raw, ("upgrade", WEBSOCKET)])
            body.give_up()  # messages follow, and no body
        request = Request.received(
            method=method,
            scheme="https" if destination.tls else "http",
            host=host,
            port=destination.port,
            path=head.path,
            query_string=head.query_string,
            headers=headers,
            http_version=head.http_version,
            sni=destination.sni,
            tls=destination.tls,
            client=self.carrier.client,
            container=self.recorder.target.name,
            _forward=weakref.ref(forwarding),
            _body=body,
            _account=account,
        )
        if head.has_empty_query:  # few have: each field is memory of every request in the ledger
            object.__setattr__(request, "_has_empty_query", True)
        forwarding.asked = request
        return Incoming(
            attempt=attempt,
            head=head,
            duplex=duplex,
            body=body,
            request=request,
            forwarding=forwarding,
            called=called,
        )

    def _host_of(self, attempt: Attempt, head: Head) -> tuple[str, str]:
        """The host that routes are keyed on, and what the client calls it where that is another name.

        The host is the SNI, else the dialled name, else the address, else the name in Host. A name without a route
        stands for the one with a route that its CNAMEs lead to.
        """
        to, tables = attempt.destination, attempt.context.tables
        named, _ = named_by(head.authority or "") or ("", None)
        if to.server_name:
            leads = any(table.leads for table in tables)
            host = leads and self._keyed_on(attempt, to.server_name)
            return host or to.server_name, to.server_name
        if to.tls or not named:
            return to.host, named if named in (to.name, *to.led) else ""
        if to.host != to.address:  # DNS routes may give one address to several names
            host = self._keyed_on(attempt, named)
            return host or to.host, named if host else ""
        return to.host if claimed(tables, to.host, to.port) else named, ""

    def _keyed_on(self, attempt: Attempt, name: str) -> str:
        """The host that routes are keyed on for a name of the dialled address; "" where it is no name of that."""
        to, tables = attempt.destination, attempt.context.tables
        names = self._names.leading(name, to.address)
        return keyed_on(tables, names, to.port) if names else ""

    def begins_at_head(self, incoming: Incoming) -> bool:
        """Whether a request is answered from its head on; else the server has `incoming.body.content` read first.

        A call of gRPC may have no end before there is an answer, so that one which nothing answers is refused at once.
        """
        tables, request = incoming.attempt.context.tables, incoming.request
        has_status = request.http_version == "2" and is_grpc(request)
        if is_misdirected(incoming):
            return has_status
        begins = begins_at_head(tables, request, unclaimed=has_status)
        return begins or asks_for_websocket(request)

    def answer(self, incoming: Incoming) -> tuple[Exchange, Response | None]:
        """Answer a request: return its entry, recorded and counted, and the response to send.

        Returns:
            None for the response where the server has nothing more to send: the answer has sent it by the duplex, or
            the client has left before there was one. Where `incoming.duplex` was not reset, and what it has sent is
            whole, the connection can carry the next request. Where the entry has a fault, the server has to carry
            that out (`RequestFault`), with the response or without.

        Raises:
            ClientLeftError: The client has left within the body that a matcher has asked for. The request has no entry
                yet, or one that is undecided: `record_unanswered` is to be called.
            OverLimitError: That body is too large. The same is to be done.
        """
        entry = self._record(incoming, ruling := self._rule(incoming))
        response = ruling.reply(entry)
        if response is not None:
            entry.response = response if ruling.is_shared else self._kept(incoming, response)
        incoming.forwarding.release()
        if entry.duration is None and entry.fault is None:
            entry.duration = self.ledger.now() - entry.started
        if not isinstance(ruling.reply, Conversing):  # which has counted itself
            self._count(incoming, entry)
        if response is None:
            incoming.attempt.activity.rest()  # where a head has gone alone, no body follows
            return entry, None
        if opens_no_websocket(incoming, response):
            self.close_body(entry, response)
            entry.note = NO_WEBSOCKET.format(response.status_code)
            response = Response(501, text=entry.note)
        return entry, response if response.compress is None else response.encoded()

    def _count(self, incoming: Incoming, entry: Exchange) -> None:
        """No lock is needed: the alarm's thread that sends a head alone counts too, but `LateHead.end` waits for it."""
        if not incoming.is_counted:
            incoming.is_counted = True
            self.recorder.count(incoming.attempt.context, entry)

    def _kept(self, incoming: Incoming, response: Response) -> Response:
        """A response as its entry has it: where it streams, its body is kept there as it is made, if it is not long."""
        if response.stream is None:
            return self._kept_whole(incoming, response)
        if response._record is not None:
            return response._record
        limit, why = MAX_MADE_BYTES, ""
        if isinstance(response.stream, UpstreamBody):
            route, limit = incoming.forwarding.route, MAX_BODY_BYTES
            why = BY_ITS_ROUTE if route is not None and route.stream else ""
        account = incoming.attempt.context.window.account
        made = MadeBody(limit, account.hold(RESPONSES).fits, why)
        response.stream = KeptStream(response.stream, made)
        record = response.recorded(made)
        if not account.has_room(size_of(response.headers), RESPONSES):
            record.headers = NO_FIELDS
        return record

    def _kept_whole(self, incoming: Incoming, response: Response) -> Response:
        """The response has no content in its entry where the window has no room for that."""
        content, account = response.own_content, incoming.attempt.context.window.account
        if len(content) <= FREE_BYTES or account.has_room_once(content, RESPONSES):
            return response
        made = MadeBody(0, never, OVER_HELD)
        made.add(response.content)
        fields, reason = response.headers, response.reason
        return Response.received(response.status_code, fields, reason=reason, made=made)

    def record_unanswered(
        self, incoming: Incoming, note: str, *, is_refused: bool = False
    ) -> Exchange:
        """The request is unrouted unless a route would have answered it; one that is refused is too large for any."""
        forecast = None if is_refused else self._forecast(incoming)
        incoming.body.give_up()
        claim = self._outcome(incoming, authority_of_other(incoming))
        near: tuple[NearMiss, ...] = ()
        if forecast is not None and forecast.route is None:
            near = forecast.near or self._nearest(incoming)
        elif forecast is not None and claim.outcome == "unrouted":
            claim = Claim("recorded")
        return self._record(incoming, Ruling(*claim, near=near, note=note, reply=no_reply))

    def _forecast(self, incoming: Incoming) -> Decision:
        """What would answer a request: no route where it is refused before one is asked, as in `_rule`."""
        tables, to = incoming.attempt.context.tables, incoming.attempt.destination
        if is_misdirected(incoming) or incoming.request.method == "CONNECT":
            return Decision(route=None)
        incoming.body.is_broken = not (is_whole := incoming.body.is_whole)
        try:
            asking = partial(self._ask, incoming)
            since = incoming.attempt.started
            found = forecast(tables, incoming.request, asking, is_whole=is_whole, since=since)
        finally:
            self._has_asked(incoming)
        route = found.route
        is_unseen = route is not None and route.presented.is_bad and to.presented_by is not route
        return Decision(route=None) if is_unseen else found

    def _ask(self, incoming: Incoming, route: InnerRoute) -> None:
        """Record an attempt before a predicate is asked about it, which may never return."""
        if incoming.entry is None:
            claim = self._outcome(incoming)
            self._record(incoming, Ruling(*claim, note=UNDECIDED, reply=no_reply))
        activity = incoming.attempt.activity
        activity.what, activity.route, activity.part = incoming.entry, route, PREDICATE

    def _has_asked(self, incoming: Incoming) -> None:
        activity = incoming.attempt.activity
        if activity.part is PREDICATE:
            activity.route, activity.what, activity.part = None, "", HANDLER

    def _record(self, incoming: Incoming, ruling: Ruling) -> Exchange:
        request, attempt, entry = incoming.request, incoming.attempt, incoming.entry
        if entry is not None:
            outcome, route, _, near, note, error, fault, _ = ruling
            claim = Claim(outcome, route)
            self.recorder.decide(attempt.context, entry, claim, near, note, error, fault)
            return entry
        entry = incoming.entry = Exchange(
            container=request.container,
            started=attempt.started,
            host=request.host,
            port=request.port,
            outcome=ruling.outcome,
            route=ruling.route,
            near=ruling.near,
            note=ruling.note,
            error=ruling.error,
            request=request,
            fault=ruling.fault,
            accepted=accepted(attempt.destination),
        )
        self.recorder.record(attempt.context, entry)
        return entry

    # The decision.

    def _rule(self, incoming: Incoming) -> Ruling:
        attempt, request, head = incoming.attempt, incoming.request, incoming.head
        context, to = attempt.context, attempt.destination
        if is_misdirected(incoming):
            note = f"its {said(head)}, which is not {meant(request, head)}"
            return self._refuse(incoming, note, misdirected_reply, head.authority or "")
        try:
            decision = decide(context.tables, request, partial(self._ask, incoming))
        except (ClientLeftError, OverLimitError):  # of a body that a matcher has asked for
            raise
        except BaseException as error:  # a predicate has raised: the test's thread raises it again
            return Ruling("routed", None, error=error, reply=failed_reply)
        finally:
            self._has_asked(incoming)
        if decision.unproved is not None:
            note = UNPROVED.format(route=decision.unproved)
            return self._refuse(incoming, note, unproved_reply)
        route = decision.route
        if route is not None and route.presented.is_bad and to.presented_by is not route:
            route.turns.give_back(decision.turn)
            note = UNSEEN.format(route=route, given=route.presented.given)
            return self._refuse(incoming, note, unproved_reply)
        incoming.forwarding.route = route
        if request.method == "CONNECT":
            return self._reject(incoming, route, decision.near, NO_TUNNEL)
        if passes(context, route, (*to.hosts, request.host), request.port):
            reply = partial(self._forward, incoming, Forward())
            return Ruling("passthrough", route, near=decision.near, reply=reply)
        if route is None or route.kind.refuses:
            return self._reject(incoming, route, decision.near)
        return self._let_answer(incoming, route, decision.turn)

    def _let_answer(self, incoming: Incoming, route: InnerRoute, turn: int) -> Ruling:
        """Have a route answer, unless it turns out to have no answer to such a request."""
        answer, context = route.turns.answer(turn)
        fault = None
        if isinstance(answer, Fault):
            fault, answer = answer, layers(answer)[1]
        answer = self._upgraded(incoming, answer)
        if isinstance(answer, DuplexAnswer):
            try:
                refused = answer.refusal(incoming.request)
            except BaseException as error:
                return Ruling("routed", route, error=error, reply=failed_reply)
            if refused is not None:
                route.turns.give_back(turn)
                response, note = refused
                return self._refuse(incoming, note, lambda entry: response)
            reply: Any = Conversing(self, incoming, route, turn, answer, context)
        else:
            if not route.stream and not takes_what_comes(answer, incoming.request):
                self._complete(incoming, route, turn)
            reply = partial(self._call, incoming, route, answer, context)
        is_shared = isinstance(answer, Response) and answer.stream is None
        return Ruling("routed", route, reply=reply, fault=fault, is_shared=is_shared)

    def _upgraded(self, incoming: Incoming, answer: Any) -> Any:
        """Replace the answer where an application or another server is asked for a WebSocket."""
        if not isinstance(answer, (AsgiApplication, Forward)) or not is_handshake(incoming.request):
            return answer
        if isinstance(answer, AsgiApplication):
            return AsgiWebSocket(answer)
        asked = replace(incoming.request, http_version="1.1")  # by which the server is spoken to
        connect = partial(incoming.forwarding.connect, asked, answer)
        return WebSocketRelay(connect, answer.path, incoming.forwarding.ending_with_client)

    def _complete(self, incoming: Incoming, route: InnerRoute, turn: int) -> None:
        """Read the whole body now: a route that begins at the head came first, and its predicate has said no."""
        try:
            _ = incoming.body.content
        except BaseException:
            route.turns.give_back(turn)
            raise

    def _refuse(
        self,
        incoming: Incoming,
        note: str,
        reply: Callable[[Exchange], Response],
        authority: str = "",
    ) -> Ruling:
        """Refuse a request that its connection rules out, whatever routes there are."""
        claim = self._outcome(incoming, authority)
        return Ruling(*claim, note=note, reply=reply)

    def _reject(
        self,
        incoming: Incoming,
        route: InnerRoute | None,
        near: tuple[NearMiss, ...],
        note: str = "",
    ) -> Ruling:
        """Refuse a request that is blocked or unrouted."""
        is_blocked = route is not None and route.kind.refuses
        claim = Claim("blocked", route) if is_blocked else self._outcome(incoming)
        if claim.route is None and not near:
            near = self._nearest(incoming)
        return Ruling(*claim, near=near, note=note, reply=rejected_reply)

    def _nearest(self, incoming: Incoming) -> tuple[NearMiss, ...]:
        request, tables = incoming.request, incoming.attempt.context.tables
        spent = spent_route(tables, request.host, request.port)
        miss = spent or nearest_by_address(tables, request.scheme, request.host, request.port)
        return (miss,) if miss else ()

    def _outcome(self, incoming: Incoming, authority: str = "") -> Claim:
        """What becomes of a request that no handler answers (`Recorder.outcome`).

        With `unrouted="block"` a request is blocked only if no route claims any host that it names. Otherwise a target
        could reach for a route's host under another name, and no test would fail.

        Args:
            authority: The authority in the request, if it is for another host than the connection.
        """
        context, request = incoming.attempt.context, incoming.request
        claim = self.recorder.outcome(context, request.host, request.port)
        if claim == ("blocked", None):  # by the policy
            named, _ = named_by(authority) or (request.host, None)
            for other in (named, *incoming.attempt.destination.hosts):
                if self.recorder.outcome(context, other, request.port).outcome == "unrouted":
                    return Claim("unrouted")
        return claim

    # The response.

    def _call(
        self,
        incoming: Incoming,
        route: InnerRoute,
        answer: Handler | Response | Forward | Unset,
        context: Context,
        entry: Exchange,
    ) -> Response | None:
        """A route's fault, and one that its handler returns, becomes the entry's."""
        activity = incoming.attempt.activity
        activity.what, activity.route = entry, route
        try:
            if entry.fault is not None and not settle(entry, context):
                return failed_reply(entry)
            if isinstance(answer, Forward):
                return self._forward(incoming, answer, entry)
            if not isinstance(answer, Unset):
                return self._handle(incoming, answer, context, entry)
            if is_grpc(incoming.request):  # it may have no end before there is an answer
                incoming.body.keep_soon(SOON_SECONDS)
            return None
        finally:
            if not activity.streams:  # else its head has gone alone, and `pieces` sends the body
                activity.rest()  # its connection may outlive the entry's test

    def _handle(
        self, incoming: Incoming, answer: Handler | Response, context: Context, entry: Exchange
    ) -> Response | None:
        """The response is 500 where the handler raises before it has begun to answer."""
        begin = held if entry.fault is not None else partial(self._beginning, incoming, entry)
        try:
            response = answer_request(answer, entry.request, context, begin)
            if isinstance(response, Fault):
                return self._fail(response, context, entry)
            return response
        except AnsweredError as answered:
            entry.error = answered.error
            return answered.response
        except ClientLeftError as error:  # it was cancelled, or has read a body that broke off
            entry.note, entry.fault = entry.note or left_note(error), None
            return None
        except BaseException as error:
            # Also KeyboardInterrupt and pytest.exit: the test's thread raises it again.
            entry.error, entry.fault = error, None
            if not incoming.duplex.has_begun:
                return failed_reply(entry)
            incoming.duplex.reset()
            return None

    @contextmanager
    def _beginning(
        self, incoming: Incoming, entry: Exchange, response: Response
    ) -> Iterator[LateHead]:
        """Send the head of a response alone where the `with` block takes long: it makes the first piece of the body."""
        head = LateHead(partial(self._send_head, incoming, entry, response))
        alarm = self.ledger.late_heads.set(head.ring)
        try:
            yield head
        finally:
            alarm.call_off()
            head.end()

    def _send_head(self, incoming: Incoming, entry: Exchange, response: Response) -> bool:
        """The call is counted before the head is sent; False where the head is not to be sent."""
        if opens_no_websocket(incoming, response):
            return False
        entry.response = self._kept(incoming, response)
        entry.duration = self.ledger.now() - entry.started
        self._count(incoming, entry)
        incoming.duplex.send_head(response)
        incoming.attempt.activity.streams = streams_of(response)
        return True

    def _fail(self, returned: Fault, context: Context, entry: Exchange) -> Response | None:
        """The response in a fault that a handler has returned; None where there is none. The entry gets the fault."""
        around, (_, response) = entry.fault, layers(returned)
        entry.fault = with_answer(around, returned) if isinstance(around, Fault) else returned
        if not settle(entry, context):
            if response is not UNSET:
                self.close_body(entry, response)
            return failed_reply(entry)
        return None if response is UNSET else response

    def _forward(self, incoming: Incoming, to: Forward, entry: Exchange) -> Response | None:
        """The response is 502 where the other server gives none (RFC 9110 section 15.6.3)."""
        try:
            return incoming.forwarding.pass_on(incoming, to)
        except ClientLeftError as error:
            entry.note, entry.fault = left_note(error), None
            return None
        except UpstreamError as error:
            entry.note, entry.fault = str(error), None
            return own_reply(entry, 502, failed_upstream_body(entry), Code.UNAVAILABLE)

    # Sending.

    def pieces(
        self,
        incoming: Incoming,
        entry: Exchange,
        response: Response,
        encoded: Callable[[], Iterator[bytes]],
    ) -> Generator[bytes, None, None]:
        """An exception that a streamed body raises is recorded as its handler's.

        Raises:
            BodyError: The body raised, or HTTP cannot carry the response.
        """
        activity = incoming.attempt.activity
        is_forwarded = isinstance(source_of(response.stream), UpstreamBody)
        if is_forwarded:
            activity.is_abandoned = self.carrier.has_left
        if response.stream is not None and entry.outcome == "passthrough":
            self.carrier.allow_unread(entry.route, entry.host)
            activity.passes = entry.route
        elif response.stream is not None:
            activity.what, activity.route = entry, entry.route  # its handler still runs
        activity.streams = streams_of(response)
        is_outside = False
        try:
            made = encoded()
            while (piece := next(made, None)) is not None:
                is_outside = True
                yield piece
                is_outside = False
        except ClientLeftError:
            raise
        except BaseException as error:  # of the body, or about a response that HTTP cannot carry
            if is_outside:  # whoever sends the pieces has closed this
                raise
            if is_forwarded:  # no handler is to blame
                left = incoming.forwarding.left()
                if left is not None and not isinstance(left, StoppedError):
                    raise left from error
                entry.note = str(left or error)
            else:
                entry.error = entry.error or error
            raise BodyError from error
        finally:
            activity.rest()
            activity.is_abandoned = stays
            self.carrier.read_again()

    def close_body(self, entry: Exchange, response: Response) -> None:
        """Close a streamed body, so that its generator's `finally` runs, even if the client has not read it all."""
        try:
            getattr(response.stream, "close", lambda: None)()
        except BaseException as error:  # raised in its `finally`
            entry.error = entry.error or error

    def client_left(self, entry: Exchange, error: OSError) -> None:
        if entry.outcome == "routed" and not isinstance(error, StoppedError):
            why = f"the client closed before the whole response was sent ({error})"
            entry.note = entry.note if entry.note.startswith(STILL_STREAMED) else why


def streams_of(response: Response) -> Streams:
    """What a response sends piece by piece: "events", which usually have no end, another "body", or ""."""
    if response.stream is None:
        return ""
    kind = response.headers.get("content-type", "").lower()
    return "events" if kind.startswith("text/event-stream") else "body"


def settle(entry: Exchange, context: Context) -> bool:
    """Call the functions of seconds in an entry's fault; False where one has failed, which is the handler's error."""
    try:
        if isinstance(entry.fault, Fault):
            entry.fault = settled(entry.fault, context.run)
    except BaseException as error:
        entry.error, entry.fault = error, None
        return False
    return True


@dataclass(frozen=True)
class Conversing:
    """The reply of an answer that reads and sends by itself."""

    answering: Answering
    incoming: Incoming
    route: InnerRoute
    turn: int
    answer: DuplexAnswer
    context: Context

    def __call__(self, entry: Exchange) -> Response | None:
        """Return the 500 to send where the answer raises before it has begun to answer."""
        incoming, ledger = self.incoming, self.answering.ledger
        if entry.fault is not None and not settle(entry, self.context):
            return failed_reply(entry)
        call = Call(
            entry,
            self.answering.recorder,
            incoming.attempt.context,
            self.context,
            self.turn,
            incoming.duplex,
            self.answering.carrier.outlive,
        )
        activity = incoming.attempt.activity
        duplex = Told(incoming.duplex, entry, ledger, activity)
        activity.what, activity.route = entry, self.route
        try:
            if entry.fault is not None:
                duplex = Told(self._spoiled(entry, call), entry, ledger, activity)
            self.context.run(self.answer.converse, incoming.request, duplex, call)
            if entry.fault is None or not duplex.disconnected:  # else a wrapper may have ended it
                duplex.check_ended(self.answer)
        except StoppedError:
            pass
        except ClientLeftError as error:
            entry.note = entry.note or LEFT_EARLY.format(error)
        except BaseException as error:
            entry.fault = None if not duplex.has_begun else entry.fault
            call.note_error(error)
            return self._fail(entry, duplex)
        finally:
            activity.rest()
        call.count()
        return None

    def _spoiled(self, entry: Exchange, call: Call) -> Duplex:
        """Both directions of a request, as the wrappers around the answer have them. Their delays come first."""
        line = self.incoming.duplex
        spoiling = Spoiling(self.answering.ledger, self.incoming.attempt, entry, line)
        spoiling.delay()
        return SpoiledDuplex(spoiling, lambda: call.is_detached) if spoiling.spoils_body else line

    def _fail(self, entry: Exchange, duplex: Told) -> Response | None:
        if not duplex.has_begun:
            return failed_reply(entry)
        if not duplex.has_ended:
            duplex.reset()
        return None


class Forwarding:
    """Sends one request to real servers, for as long as it is being answered.

    A request refers to this object weakly: it may be kept for longer, in the ledger or by a test, and must not keep its
    connection.

    Attributes:
        asked: The request as it came.
        route: The route that answers it; None until that is decided, and where none does.
    """

    def __init__(self, answering: Answering, attempt: Attempt, duplex: Line, called: str) -> None:
        self._answering, self._called = answering, called
        self._duplex, self._activity = duplex, attempt.activity
        self._destination, self._tables = attempt.destination, attempt.context.tables
        self._has_left = False
        self._account = attempt.context.window.account
        self._held: list[Hold] = []  # of responses that its handler has asked for
        self.asked: Request
        self.route: InnerRoute | None = None

    def __call__(self, request: Request, to: Any, port: int | None) -> Response:
        """Send a request, or what a handler has made of it, and return the whole response (`Request.forward`)."""
        server = check_forward(forward(to, port), raw=False)
        request = self._renamed(request)
        sock = self.connect(request, server, by="request.forward")
        hold = self._account.hold(RESPONSES)
        try:
            with self.ending_with_client(sock):  # a handler reads the response
                response = upstream.ask(sock, request, server.path, encoded=False)
                return whole(response, request.method, hold)
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
        if asked.http_version == "2" or not asked.is_whole or asks_for_websocket(asked):
            take_back = self._duplex.on_disconnect(partial(self._leave, sock))
        self._activity.is_abandoned = self._answering.carrier.has_left
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
        if self._answering.carrier.is_cut:
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

    def pass_on(self, incoming: Incoming, to: Forward) -> Response:
        """The body of the request goes on as it comes where it was not read, and is kept unless the route streams.

        The body of the response streams. Raises UpstreamError where the server cannot be reached, or broke off.
        """
        request, body = incoming.request, incoming.body
        streams = self.route is not None and self.route.stream
        sock = self.connect(request, to)
        content = None if body.is_whole else body.stream() if streams else body.relay()
        with self.ending_with_client(sock, streams=True):
            return upstream.ask(
                sock, request, to.path, content=content, interim=self._send_interim_on
            )

    def connect(self, request: Request, to: Forward, by: str = "") -> Any:
        """TLS is used where the scheme is https; `by` is "request.forward" where a handler asks, "" for a route."""
        owner, upstreams = self._answering.carrier, self._answering.upstreams
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


def left_note(error: ClientLeftError) -> str:
    return str(error) if isinstance(error, StoppedError) else LEFT_EARLY.format(error)


# Replies to requests that no handler answers.


def own_reply(
    entry: Exchange,
    status_code: int,
    text: str,
    code: Code = Code.UNIMPLEMENTED,
    headers: HeaderSource | None = None,
) -> Response:
    """To a call of gRPC the response is a status, since clients show no body.

    Args:
        code: The status of gRPC. UNIMPLEMENTED keeps clients from trying again.
    """
    call = entry.grpc
    if call is None or entry.request.http_version != "2":
        return Response(status_code, text=text, headers=headers)
    call.code, call.details = code, cut(text.strip(), SHOWN_DETAILS)
    fields = [*status_head(code, call.details).raw, *Headers(headers or ()).raw]
    return Response(200, headers=fields)


def misdirected_reply(entry: Exchange) -> Response:
    """The request is for another host than its connection is for: 421 (RFC 9110 section 15.5.20)."""
    return own_reply(entry, 421, refused_body(entry))


def unproved_reply(entry: Exchange) -> Response:
    """The handshake was another than the route wants: 421, after which a client may make another connection."""
    return own_reply(entry, 421, refused_body(entry), headers={"Connection": "close"})


def failed_reply(entry: Exchange) -> Response:
    return own_reply(entry, 500, handler_error_body(entry), Code.UNKNOWN)


def rejected_reply(entry: Exchange) -> Response:
    blocked = entry.outcome == "blocked"
    return own_reply(entry, 502, blocked_body(entry) if blocked else unrouted_body(entry))


def no_reply(entry: Exchange) -> Response | None:
    raise AssertionError(f"{entry} gets no answer here")


def opens_no_websocket(incoming: Incoming, response: Response) -> bool:
    """Whether a response would tell a client of HTTP/2 that its WebSocket is open, and none is."""
    return incoming.head.protocol == WEBSOCKET and response.status_code < 300


# The host that a request names.


def is_misdirected(incoming: Incoming) -> bool:
    """Whether the request names another server than the one that it is recorded, matched and forwarded for.

    Three cases are allowed. A client that dialled an address, without SNI, may name any host, since several hosts can
    share an address. A client that dialled a name may name the address that the name resolved to. And one whose name
    has a CNAME may use that name, though the request is for the one that the CNAME leads to.
    """
    to, request, head = incoming.attempt.destination, incoming.request, incoming.head
    if head.authority is None or request.method == "CONNECT":
        return False
    if head.authority == request.host and head.scheme is None:  # as a rule
        return False
    # A dialled name may be one that `named_by` refuses: DNS allows more than routes do.
    literally = head.authority == request.host
    named = (request.host, None) if literally else named_by(head.authority)
    if named is None or head.scheme not in (None, request.scheme):
        return True
    host, port = named
    by_address = to.host == to.address and to.sni is None
    is_dialled = host == to.address and to.sni is None  # the client has resolved the name itself
    is_named = host in (request.host, incoming.called)
    same = is_named or is_dialled or (by_address and not is_ip_address(host))
    return not same or port not in (None, request.port)


@lru_cache(maxsize=1024)
def named_by(authority: str) -> tuple[str, int | None] | None:
    """The host is normalised; None where the authority is malformed."""
    parts = split_authority(authority)
    try:
        return None if parts is None else (normalise_host(parts[0]), parts[1])
    except AddressError:
        return None


def named_as(request: Request) -> tuple[str, int, str | None]:
    return request.host, request.port, request.headers.get("host")


def authority_of_other(incoming: Incoming) -> str:
    """The authority in a request that is for another host than its connection; "" where it is for the same."""
    return incoming.head.authority or "" if is_misdirected(incoming) else ""


def said(head: Head) -> str:
    """The part of a message that quotes what a request names: its field Host, its :authority, or absolute target."""
    named = masked_authority(head.authority or "")
    if head.http_version == "2":
        return f":authority is {shown(named)}"
    if head.scheme is None:
        return f"Host is {shown(named)}"
    return f"request-target begins with {shown(f'{head.scheme}://{named}')}"


def meant(request: Request, head: Head) -> str:
    """The part of a message that quotes what the request's connection is for, in the same form as `said`."""
    is_absolute = head.scheme is not None and head.http_version != "2"
    scheme = f"{request.scheme}://" if is_absolute else ""
    named = named_by(head.authority or "")
    port = request.port if named is not None and named[1] is not None else None
    return repr(f"{scheme}{host_port(request.host, port)}")
