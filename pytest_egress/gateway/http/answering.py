"""`Answering`: checks the host of a request, decides which route answers it, records it, and has the response sent.

This module touches no client socket and knows no version of HTTP: a server reads the head of a request and gives its
`Duplex`, by which the response is sent. The decision about a request is a `Ruling`. Its entry is recorded before its
handler runs, and counted before the response is sent. A server asks `begins_at_head` first. Where that is not so, it
has the whole body read.

Threads: a request is answered on the thread that asks, and that may be any: the requests of one connection may be
answered at the same time. No lock is held while a matcher, a handler or a body runs.

It is long, because the steps between a head and its answer depend on each other, and are read in their order.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pytest_egress.base.account import OverLimitError
from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.dns.names import Names
from pytest_egress.gateway.http.bodies import Body, searched
from pytest_egress.gateway.http.calling import Calling, forwarded, keep_soon
from pytest_egress.gateway.http.conversation import Conversing
from pytest_egress.gateway.http.forwarding import Carrier, Forwarding
from pytest_egress.gateway.http.incoming import Incoming, Ruling
from pytest_egress.gateway.http.named_hosts import (
    authority_of_other,
    is_misdirected,
    meant,
    named_by,
    names_another_port,
    said,
)
from pytest_egress.gateway.http.proxies import note_of_proxy
from pytest_egress.gateway.http.replacing import Replacing, in_place
from pytest_egress.gateway.http.replies import (
    failed_reply,
    misdirected_reply,
    no_reply,
    no_websocket_reply,
    opens_no_websocket,
    rejected_reply,
    unproved_reply,
)
from pytest_egress.gateway.http.sending import Sending
from pytest_egress.gateway.http.spoiling import (
    LEFT_EARLY,
    Line,
    Spoiling,
    StoppedError,
)
from pytest_egress.gateway.patience import StalledError
from pytest_egress.gateway.recorder import Claim, Recorder, accepted, passes
from pytest_egress.gateway.upstream.upstreams import Upstreams
from pytest_egress.gateway.upstream.websocket import WebSocketRelay
from pytest_egress.routes.answers import Forward
from pytest_egress.routes.applications.asgi import AsgiApplication
from pytest_egress.routes.applications.asgi_websocket import AsgiWebSocket
from pytest_egress.routes.duplex import ClientLeftError, DuplexAnswer
from pytest_egress.routes.faults import Fault, layers
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.recordings.deck import Deck, asking
from pytest_egress.routes.table import (
    Decision,
    Instead,
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
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.grpc import is_grpc
from pytest_egress.traffic.http.head import Head
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import counted, shown
from pytest_egress.traffic.websocket import WEBSOCKET, asks_for_websocket, is_handshake

UNPROVED: Final = (
    "{route} requires a client certificate, and the connection of this request has none: it was opened before "
    "the route was declared"
)
UNSEEN: Final = (
    "{route} would answer it, and its connection has not been shown that {given}: it was opened before the route was "
    "declared, or another route for the host comes first, and decides the handshake"
)
NO_PROTOCOL: Final = "the protocol {} that it asks for by CONNECT (RFC 8441) is not spoken"
UNDECIDED: Final = "a match= predicate has not said yet whether its route answers it"
HANDLER: Final = "handler"
PREDICATE: Final = "match= predicate"
"""Parts of a route that may run without end, as `Activity.part`."""


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
        self.sending = Sending(carrier, recorder)

    def take(self, attempt: Attempt, head: Head, duplex: Line) -> Incoming:
        """The server keeps `duplex` until it has sent the response: the request refers to it weakly.

        Raises:
            OverLimitError: The window keeps too much already.
        """
        destination, account = attempt.destination, attempt.context.window.account
        account.keep(head.size, "requests' heads")
        host, called = self._host_of(attempt, head)
        forwarding = Forwarding(self.carrier, self.upstreams, attempt, duplex, called)
        body = Body(duplex, account, head.expected, searched(account, head.headers))
        method, headers = head.method, head.headers
        # As HTTP/1.1 has it, for handlers and matchers (RFC 8441 section 5).
        if head.protocol == WEBSOCKET:
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
        if head.asks_for_tunnel or (to.host == to.address and names_another_port(to, head)):
            return to.host, ""  # the name is what a proxy is asked for
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

    def answer(self, incoming: Incoming) -> Exchange:
        """Answer a request: its entry is recorded, the response sent by its duplex, and the call counted before.

        Nothing is sent where the client has left before there was a response. Where `incoming.duplex` was not reset,
        and what it has sent is whole, the connection can carry the next request.

        Raises:
            ClientLeftError, StalledError: The client has left or stopped within the body that a matcher has asked for.
                The request has no entry yet, or one that is undecided: `give_up` is to be called.
            OverLimitError: That body is too large. The same is to be done.
        """
        entry = self._answer(incoming)
        if entry.marks is not None:
            entry.marks.sent = self.ledger.now()
        return entry

    def _answer(self, incoming: Incoming) -> Exchange:
        entry = self._record(incoming, ruling := self._rule(incoming))
        response = ruling.reply(entry) if entry.marks is None else ruling.timed(entry, self.ledger)
        if response is not None:
            entry.response = response if ruling.is_shared else self.sending.kept(incoming, response)
        incoming.forwarding.release()
        self.sending.search_rest(incoming, response)
        if entry.duration is None and entry.fault is None:
            entry.duration = self.ledger.now() - entry.started
        if response is None:
            incoming.attempt.activity.rest()  # where a head has gone alone, no body follows
            if isinstance(ruling.reply, Conversing):  # which has sent and counted by itself
                return entry
        self.sending.count(incoming, entry)
        if response is not None and opens_no_websocket(incoming, response):
            self.sending.close(entry, response)
            response = no_websocket_reply(entry, response)
        elif response is not None and response.compress is not None:
            response = response.encoded()
        if entry.fault is not None:
            self._spoil(incoming, entry, response)
        elif response is not None:
            self.sending.send(incoming, entry, response, incoming.duplex)
        return entry

    def _spoil(self, incoming: Incoming, entry: Exchange, response: Response | None) -> None:
        """Send a response as the request's fault says, or none, and end its connection where the fault says so."""
        spoiling = Spoiling(self.ledger, incoming.attempt, entry, incoming.duplex)
        is_sent = False
        try:
            spoiling.delay()
            if response is not None:
                self._note_time(entry)
                is_sent = True
                duplex, is_cut = spoiling.duplex(), spoiling.truncated is not None
                if not self.sending.send(incoming, entry, response, duplex, is_cut=is_cut):
                    return
            spoiling.end()
        except ClientLeftError as error:
            if not isinstance(error, StoppedError):
                entry.note = entry.note or LEFT_EARLY.format(error)
        finally:
            self._note_time(entry)
            if response is not None and not is_sent:
                self.sending.close(entry, response)

    def _note_time(self, entry: Exchange) -> None:
        """Set the entry's duration: the first byte of the response is sent now, or the end has come."""
        if entry.duration is None:
            entry.duration = self.ledger.now() - entry.started

    def give_up(self, incoming: Incoming, error: Exception) -> tuple[Exchange, int, str]:
        """Record a request whose body could not be read to its end, or not be kept.

        Args:
            error: What its body, or `answer`, has raised.

        Returns:
            Its entry, and the status and text to refuse it with.
        """
        size = incoming.body.size
        if isinstance(error, OverLimitError):
            status_code, text = 413, str(error)
        elif isinstance(error, StalledError):
            status_code, text = 408, f"{error} after {counted(size, 'byte')} of a body"
        else:
            status_code, text = 400, f"the body broke off after {counted(size, 'byte')} ({error})"
        entry = self.record_unanswered(incoming, text, is_refused=status_code == 413)
        return entry, status_code, text

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
            outcome, route, _, near, note, error, fault, _, entry.swept = ruling
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
        self.recorder.note_request(entry, attempt, is_whole=incoming.body.is_whole)
        if ruling.is_swept:
            entry.swept = True
        if incoming.asked_proxy is not None:
            entry._asked_proxy = incoming.asked_proxy
        self.recorder.record(attempt.context, entry)
        return entry

    # The decision.

    def _rule(self, incoming: Incoming) -> Ruling:
        attempt, request, head = incoming.attempt, incoming.request, incoming.head
        context, to = attempt.context, attempt.destination
        if is_misdirected(incoming):
            note = note_of_proxy(incoming, self.recorder.target.proxies)
            note = (
                note
                or f"its {said(head, redactor_of(request))}, which is not {meant(request, head)}"
            )
            return self._refuse(incoming, note, misdirected_reply, head.authority or "")
        if request.method == "CONNECT":
            note = note_of_proxy(incoming, self.recorder.target.proxies)
            note = note or NO_PROTOCOL.format(shown(head.protocol))
            return self._refuse(incoming, note, rejected_reply)
        try:
            trial = context.window.trial
            intervene = None if trial is None else trial.intervene
            decision = decide(context.tables, request, partial(self._ask, incoming), intervene)
        except (
            ClientLeftError,
            StalledError,
            OverLimitError,
        ):  # of a body that a matcher asked for
            raise
        except BaseException as error:  # a predicate has failed the test, as by pytest.fail()
            return Ruling("routed", None, error=error, reply=failed_reply)
        finally:
            self._has_asked(incoming)
        if decision.unproved is not None:
            note = UNPROVED.format(route=decision.unproved)
            return self._refuse(incoming, note, unproved_reply)
        route, raised = decision.route, [miss for miss in decision.near if miss.error is not None]
        if route is None and raised:  # the test's thread raises it again
            near = (raised[0],)
            return Ruling("routed", None, near=near, error=raised[0].error, reply=failed_reply)
        instead = decision.instead
        if route is not None and route.presented.is_bad and to.presented_by is not route:
            if instead is None or instead.is_processed:
                route.turns.give_back(decision.turn)
            note = UNSEEN.format(route=route, given=route.presented.given)
            return self._refuse(incoming, note, unproved_reply)
        incoming.forwarding.route = route
        if passes(context, route, (*to.hosts, request.host), request.port):
            reply = partial(forwarded, incoming, Forward())
            note = why_not(raised)
            return Ruling("passthrough", route, near=decision.near, reply=reply, note=note)
        if route is None or route.kind.refuses:
            return self._reject(incoming, route, decision.near)
        if instead is not None and not instead.is_processed:
            return self._fail(incoming, route, instead)
        ruling = self._let_answer(incoming, route, decision.turn)
        by = None if instead is None else instead.answer
        if isinstance(by, (Response, Fault)) and isinstance(ruling.reply, Calling):
            replacing = Replacing(made=ruling.reply, by=by)
            ruling = ruling._replace(reply=replacing, is_shared=False, is_swept=True)
        return ruling._replace(note=why_not(raised)) if raised and not ruling.note else ruling

    def _fail(self, incoming: Incoming, route: InnerRoute, instead: Instead) -> Ruling:
        """Answer in place of a route, of which this is no call."""
        if not route.stream and not route.turns.begins_at_head(incoming.request):
            _ = incoming.body.content  # a route that begins at the head may have come first
        incoming.is_counted, answer = True, instead.answer
        if isinstance(answer, DuplexAnswer):
            refused = answer.refusal(incoming.request)
            if refused is None:
                return Ruling("routed", route, self._open(incoming, route, answer), is_swept=True)
            answer, _ = refused
        reply, fault = in_place(incoming, route, answer, self.sending)
        return Ruling("routed", route, reply=reply, fault=fault, is_swept=True)

    def _open(self, incoming: Incoming, route: InnerRoute, answer: DuplexAnswer) -> Conversing:
        """Have an answer that sends by itself take the place of a route."""
        return Conversing(
            incoming,
            route,
            0,
            answer,
            copy_context(),
            recorder=self.recorder,
            outlive=self.carrier.outlive,
            is_call=False,
        )

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
            outlive = self.carrier.outlive
            reply: Any = Conversing(
                incoming, route, turn, answer, context, recorder=self.recorder, outlive=outlive
            )
        else:
            if not route.stream and not takes_what_comes(answer, incoming.request):
                self._complete(incoming, route, turn)
            reply = Calling(incoming, route, answer, context, self.sending)
        is_shared = isinstance(answer, Response) and answer.stream is None
        return Ruling("routed", route, reply=reply, fault=fault, is_shared=is_shared)

    def _upgraded(self, incoming: Incoming, answer: Any) -> Any:
        """Replace the answer where an application, a cassette or another server has messages both ways."""
        if isinstance(answer, Deck) and asks_for_websocket(incoming.request):
            return answer.websocket(self._relay(incoming, Forward(), by="request.forward"))
        if isinstance(answer, Deck) and answer.takes_what_comes(incoming.request):
            return answer.call(incoming.body.relay_to_end, incoming.forwarding.ask_as_it_comes)
        if not isinstance(answer, (AsgiApplication, Forward)) or not is_handshake(incoming.request):
            return asking(answer, incoming.forwarding)
        if isinstance(answer, AsgiApplication):
            return AsgiWebSocket(answer)
        return self._relay(incoming, answer)

    def _relay(self, incoming: Incoming, to: Forward, by: str = "") -> WebSocketRelay:
        asked = replace(incoming.request, http_version="1.1")  # by which the server is spoken to
        connect = partial(incoming.forwarding.connect, asked, to, by)
        return WebSocketRelay(connect, to.path, incoming.forwarding.ending_with_client)

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
    ) -> Ruling:
        """Refuse a request that is blocked or unrouted."""
        keep_soon(incoming)
        is_blocked = route is not None and route.kind.refuses
        claim = Claim("blocked", route) if is_blocked else self._outcome(incoming)
        if claim.route is None and not near:
            near = self._nearest(incoming)
        return Ruling(*claim, near=near, reply=rejected_reply)

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


def why_not(raised: Iterable[NearMiss]) -> str:
    """The note of a request that a route answers after the predicates of others have raised."""
    return "; ".join(difference for miss in raised for difference in miss.differences)
