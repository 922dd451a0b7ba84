"""`Datagrams`: reads the datagrams that a target's kernel has let out, answers them, and records them by flow.

A flow is what one client has sent to one server in one window. Its jobs run one after the other, on a worker, so that
answers keep their order; those of other flows run beside it. What needs no function of the test is done at once, on the
reader's thread, where the flow has no job. A late answer waits on a thread of its own, and is dropped with its window.
What another server answers comes by `relays`, for as long as the route is there.

Threads: the gateway's reader calls `read`; any thread calls `revise`, and what a `Datagram` replies by. The lock guards
the jobs of flows, and no other one is acquired while it is held.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Final, NamedTuple

from pytest_egress.base.account import OBJECT_BYTES
from pytest_egress.base.workers import Workers
from pytest_egress.errors import CallError, UpstreamError
from pytest_egress.gateway.datagram_rules import candidates
from pytest_egress.gateway.dns.names import Names
from pytest_egress.gateway.handlers import call
from pytest_egress.gateway.http3.endpoint import QuicEndpoint
from pytest_egress.gateway.http3.sockets import QuicSocket
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT, Claim, Recorder
from pytest_egress.gateway.upstream.datagrams import DatagramRelays, Ports, Server
from pytest_egress.ledger import ledger
from pytest_egress.ledger.pauses import outlast
from pytest_egress.ledger.remedies import naming
from pytest_egress.ledger.windows import Activity, AttemptContext, Pause, Window
from pytest_egress.link.interface import Link
from pytest_egress.routes.answers import DatagramConnectable, Forward
from pytest_egress.routes.datagrams import (
    DatagramService,
    content_of,
    parts_of_answer,
    server_of,
    takes_long,
)
from pytest_egress.routes.faults import Delayed, Refuse, drawn, layers
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import NearMiss, used_up
from pytest_egress.traffic.datagrams import ETHERNET_BYTES, SentDatagram, answer, parse, refusal
from pytest_egress.traffic.entries import (
    NO_QUIC,
    UDP_HEADER_BYTES,
    Datagram,
    DatagramFlow,
    PacketAttempt,
)
from pytest_egress.traffic.parts import UNREADABLE_PART, UnreadablePart
from pytest_egress.traffic.shown import counted

BATCH: Final = 256  # datagrams to read before the reader returns to connections
FRAME_BYTES: Final = 65535 + ETHERNET_BYTES
MAX_FLOWS: Final = (
    4096  # of the latest window: of an older one the next datagram begins another entry
)
MAX_LATE: Final = 1024
"""How many late answers of a target may wait, each on a thread."""

TOO_LATE: Final = "its container has ended, and gets no answer"
SEND_MILLISECONDS: Final = 1000  # for the link to take an answer


class Taken(NamedTuple):
    """A datagram that a route has taken, with the answer of its turn."""

    datagram: Datagram
    sent: SentDatagram
    route: InnerRoute
    answer: Any
    context: Context


class Relayed(NamedTuple):
    """What tells a flow to another server from others."""

    client: tuple[str, int]
    server: tuple[str, int]
    route: InnerRoute
    host: str
    to: Forward


class Arrival(NamedTuple):
    """A datagram that has come, in the time of entries.

    Attributes:
        name: Its host where no route is offered.
        offered: The routes that may take it, each with the host that it is for.
    """

    sent: SentDatagram
    started: float
    name: str
    offered: Sequence[tuple[str, InnerRoute]]


class Flow:
    """The datagrams of one client to one server in one window, and the entry that they are in for each route."""

    def __init__(self, context: AttemptContext) -> None:
        self.context = context
        self.entries: dict[InnerRoute, DatagramFlow] = {}
        self.jobs: deque[Callable[[], None]] = deque()
        self.is_running = False
        self.activity = Activity()


class Datagrams:
    """Those of one target.

    Args:
        unreadable: Records a frame that is no whole datagram.
        begin_quic: Serves a connection of QUIC; False where there is no room for one now.
    """

    def __init__(
        self,
        link: Link,
        recorder: Recorder,
        names: Names,
        workers: Workers,
        unreadable: Callable[[bytes], None],
        begin_quic: Callable[[QuicSocket, SentDatagram], bool],
    ) -> None:
        self._link, self._recorder, self._names = link, recorder, names
        self._workers, self._unreadable = workers, unreadable
        self._ledger, self._target = recorder.ledger, recorder.target
        self._quic: Final = QuicEndpoint(self._send, begin_quic)
        self.late: Final = Workers(f"egress {recorder.target.name} late datagram", MAX_LATE)
        self.relays: Final = DatagramRelays(f"egress {recorder.target.name} forwarded datagrams")
        self._waiting = 0  # late answers
        self._flows: dict[tuple[object, ...], Flow] = {}
        self._window: Window | None = None  # that of these flows
        self._lock = threading.Lock()
        self._is_stopped = False

    def read(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                frame = sock.recv(FRAME_BYTES)
            except OSError:
                return
            if (sent := parse(frame)) is None:
                self._unreadable(frame[ETHERNET_BYTES:])
            else:
                self._take(sent)

    def forget(self) -> None:
        """Keep nothing of a window that is over, since what a test received is freed with its report."""
        self._window, self._flows = None, {}

    def stop(self) -> None:
        """Late answers are dropped, since the target has gone, and `reply` raises."""
        self._is_stopped = True
        self.late.stop()
        self.relays.stop()

    def revise(self, *, test_over: bool) -> None:
        """End what other servers answer by routes that are no more, or behind ones that refuse it now."""
        if not len(self.relays):
            return
        tables = self._target.attempt_context().tables

        def is_over(relayed: Relayed) -> bool:
            first = next(
                iter(candidates(tables, (relayed.host, relayed.server[0]), relayed.server[1])), None
            )
            is_refused = first is not None and first[1].kind.refuses
            return is_refused or relayed.route.is_over(test_over=test_over)

        self.relays.end(is_over)

    # The reader's thread.

    def _take(self, sent: SentDatagram) -> None:
        if self._quic.take(sent):
            return
        context = self._target.attempt_context()
        hosts = (*self._names.of(sent.server[0]), sent.server[0])
        offered = [*candidates(context.tables, hosts, sent.server[1])]
        if offered and offered[0][1].http3 and self._quic.begin(sent):
            return
        if not self._has_room(context, sent):
            return
        arrival = Arrival(sent, self._ledger.now(), hosts[0], offered)
        flow = self._flow(context, sent)
        if flow.is_running or any(route.predicate is not None for _, route in offered):
            self._run(flow, partial(self._decide, flow, arrival, at_once=True))
        else:
            self._decide(flow, arrival, at_once=False)

    def _has_room(self, context: AttemptContext, sent: SentDatagram) -> bool:
        """What is over the limits of a window is not answered, and counted: that fails the test."""
        window = context.window
        with self._ledger.changed:
            window.datagrams += 1
            if window.datagrams > ledger.MAX_ENTRIES:
                self._ledger.count_unrecorded(window, 1)
                return False
        return window.account.has_room(len(sent.content) + OBJECT_BYTES, "datagrams")

    def _flow(self, context: AttemptContext, sent: SentDatagram) -> Flow:
        if context.window is not self._window:
            self._window, self._flows = context.window, {}
        flows, key = self._flows, (sent.client, sent.server)  # another thread may forget them
        if (flow := flows.get(key)) is None:
            flow = flows[key] = Flow(context)
            if len(flows) > MAX_FLOWS:
                del flows[next(iter(flows))]
        return flow

    def _run(self, flow: Flow, job: Callable[[], None]) -> None:
        """Run a job after those of its flow; the window waits for it."""
        with self._lock:
            flow.jobs.append(job)
            if flow.is_running:
                return
            flow.is_running = True
        activity = Activity(container=self._target.name, told=lambda: "a datagram")
        flow.activity = activity
        self._ledger.begin(flow.context.window, activity)
        try:
            self._workers.run(partial(self._work, flow, activity))
        except RuntimeError as error:
            self._recorder.complain(f"a datagram was not answered: {error}")
            self._end(flow, activity)

    def _work(self, flow: Flow, activity: Activity) -> None:
        activity.thread = threading.get_ident()
        while True:
            with self._lock:
                job = flow.jobs.popleft() if flow.jobs else None
                flow.is_running = job is not None
            if job is None:
                break
            try:
                job()
            except Exception as error:  # a defect of ours must fail the test, and no other datagram
                self._recorder.complain("a datagram was not answered", error)
        self._ledger.end(flow.context.window, activity)  # the flow may have another one by now

    def _end(self, flow: Flow, activity: Activity) -> None:
        with self._lock:
            flow.jobs.clear()
            flow.is_running = False
        self._ledger.end(flow.context.window, activity)

    # The reader's thread, or a worker's.

    def _decide(self, flow: Flow, arrival: Arrival, *, at_once: bool) -> None:
        """Have the first route that takes a datagram answer it.

        Args:
            at_once: Whether functions of the test may be called on this thread.
        """
        near: list[NearMiss] = []
        for host, route in arrival.offered:
            if not route.kind.reads_datagrams:
                break
            datagram = self._datagram(flow, arrival, host, route)
            if (miss := self._miss(flow, route, datagram)) is not None:
                near.append(miss)
                if miss.error is not None:
                    break
            elif (turn := route.turns.reserve()) is None:
                near.append(NearMiss(route=route, differences=(used_up(route),), is_spent=True))
            else:
                answer, context = route.turns.answer(turn)
                taken = Taken(datagram, arrival.sent, route, answer, context)
                if isinstance(answer, DatagramService):
                    self._take_apart(flow, arrival, taken, turn)
                else:
                    self._claim(flow, taken, at_once)
                return
        self._refuse(flow, arrival, near)

    def _take_apart(self, flow: Flow, arrival: Arrival, taken: Taken, turn: int | None) -> None:
        """Count each part of a datagram as a call. The first one has the turn; each other takes one.

        Of the parts that the service cannot read, the first is recorded, and so is the first one without a turn.
        """
        route, is_entered = taken.route, False
        unreadable: list[UnreadablePart] = []
        for part in taken.answer.read(taken.datagram):
            if isinstance(part, UnreadablePart):
                unreadable.append(part)
                continue
            if turn is None and (turn := route.turns.reserve()) is None:
                miss = NearMiss(route=route, differences=(used_up(route),), is_spent=True)
                self._refuse(flow, arrival, (miss,), part.content)
                break
            if not is_entered:
                self._enter(flow, taken.datagram, route)
            is_entered, turn = True, None
            self._count_part(route, flow.context.window, part)
        if turn is not None:
            route.turns.give_back(turn)
        if unreadable:
            self._record_unreadable(flow, arrival, unreadable)

    def _count_part(self, route: InnerRoute, window: Window, part: Datagram) -> None:
        """A call that is over the limit of a window is counted, which fails the test: no entry is missing for it."""
        with self._ledger.changed:
            if window.calls >= ledger.MAX_ENTRIES:
                self._ledger.count_unrecorded(window, 1)
            self._ledger.count(route, window, part)

    def _record_unreadable(
        self, flow: Flow, arrival: Arrival, unreadable: Sequence[UnreadablePart]
    ) -> None:
        first, *others = unreadable
        more = f", nor {counted(len(others), 'more line')} of its datagram" if others else ""
        self._record_left(flow, arrival, (), first.content, f"{UNREADABLE_PART}: {first.why}{more}")

    def _datagram(self, flow: Flow, arrival: Arrival, host: str, route: InnerRoute) -> Datagram:
        sent, claim = arrival.sent, Claim("routed", route)
        datagram = Datagram(
            **self._recorder.about(claim, host, sent.server[1], arrival.started),
            address=sent.server[0],
            client=sent.client,
            content=sent.content,
            hops=sent.hops,
        )
        datagram._account = flow.context.window.account
        datagram._reply = partial(self._reply, flow, datagram, sent)
        return datagram

    def _miss(self, flow: Flow, route: InnerRoute, datagram: Datagram) -> NearMiss | None:
        """Why the predicate of a route does not take a datagram; None where it does."""
        if route.predicate is None:
            return None
        error: Exception | None = None
        with self._running(flow, route, datagram, "match= predicate"):
            try:
                if route.predicate(datagram):
                    return None
            except Exception as raised:
                error = raised
        said = "did not accept it" if error is None else f"raised {type(error).__name__}"
        name = getattr(route.predicate, "__name__", "the predicate")
        return NearMiss(route=route, differences=(f"match: {name} {said}",), error=error)

    @contextlib.contextmanager
    def _running(self, flow: Flow, route: InnerRoute, datagram: Datagram, part: str) -> Any:
        activity = flow.activity
        activity.route, activity.what, activity.part = route, datagram, part
        try:
            yield
        finally:
            activity.rest()

    def _refuse(
        self, flow: Flow, arrival: Arrival, near: Sequence[NearMiss], part: bytes | None = None
    ) -> None:
        """Record a datagram that no route takes, although it was let out, and tell its client that nobody listens.

        Args:
            part: The first part of it that is not taken; None for the whole.
        """
        content = arrival.sent.content if part is None else part
        is_for_quic = bool(arrival.offered) and arrival.offered[0][1].http3
        self._record_left(flow, arrival, near, content, NO_QUIC if is_for_quic else "")
        self._send(refusal(arrival.sent))

    def _record_left(
        self, flow: Flow, arrival: Arrival, near: Sequence[NearMiss], content: bytes, note: str
    ) -> None:
        context, sent, port = flow.context, arrival.sent, arrival.sent.server[1]
        host = arrival.offered[0][0] if arrival.offered else arrival.name
        claim = Claim("unrouted") if note else self._recorder.outcome(context, host, port)
        entry = PacketAttempt(
            **self._recorder.about(claim, host, port, arrival.started),
            protocol="UDP",
            address=sent.server[0],
            size=UDP_HEADER_BYTES + len(content),
            first_bytes=content[:FIRST_BYTES_KEPT],
            note=note,
            near=tuple(near) if claim.outcome == "unrouted" else (),
        )
        entry.error = next((miss.error for miss in near if miss.error is not None), None)
        self._recorder.record(context, entry)

    def _enter(self, flow: Flow, datagram: Datagram, route: InnerRoute) -> DatagramFlow:
        """Put a datagram into the entry of its flow."""
        if (entry := flow.entries.get(route)) is None:
            entry = flow.entries[route] = DatagramFlow(
                **self._recorder.about(
                    Claim("routed", route), datagram.host, datagram.port, datagram.started
                ),
                address=datagram.address,
                client=datagram.client,
                datagrams=[datagram],
            )
            self._recorder.record(flow.context, entry)
        else:
            entry.datagrams.append(datagram)
            self._ledger.stir()
        return entry

    def _claim(self, flow: Flow, taken: Taken, at_once: bool) -> None:
        entry = self._enter(flow, taken.datagram, taken.route)
        if at_once or not takes_long(taken.answer):
            self._answer(flow, entry, taken)
        else:
            self._run(flow, partial(self._answer, flow, entry, taken))

    def _answer(self, flow: Flow, entry: DatagramFlow, taken: Taken) -> None:
        """Answer a datagram, and count it as a call of its route when its handler has returned."""
        datagram, route = taken.datagram, taken.route
        try:
            parts = taken.answer
            if not isinstance(parts, tuple):
                with self._running(flow, route, datagram, "handler"):
                    returned = call(parts, datagram, taken.context, lambda: self._is_stopped)
                parts = parts_of_answer(returned)
            if (to := server_of(parts)) is not None:
                self._ledger.count(route, flow.context.window, datagram)
                self._forward(flow, entry, taken, to)
                return
            late = [(lateness(part, taken.context), part) for part in parts]
            frames = [
                (seconds, self._frame(flow, datagram, taken.sent, each)) for seconds, each in late
            ]
        except BaseException as error:  # pytest.fail() raises one
            self._recorder.fail(flow.context, entry, error, "")
            return
        datagram.fault = next((fault for part in parts for fault in layers(part)[0]), None)
        self._ledger.count(route, flow.context.window, datagram)
        for seconds, frame in frames:
            if frame is not None:
                self._send_later(flow, entry, datagram, seconds, frame)

    def _forward(self, flow: Flow, entry: DatagramFlow, taken: Taken, to: Forward) -> None:
        datagram, route = taken.datagram, taken.route
        server, remedy = self._server(taken, to)
        had_got_out, entry._got_out = entry._got_out, True  # before its test can ask
        key = Relayed(taken.sent.client, taken.sent.server, route, datagram.host, to)
        answered = partial(self._relay, flow, entry, datagram, taken.sent)
        try:
            self.relays.send(key, server, datagram.content, answered, remedy)
        except UpstreamError as error:
            entry.note, entry._got_out = str(error), had_got_out
            self._send(refusal(taken.sent))

    def _server(self, taken: Taken, to: Forward) -> tuple[Server, str]:
        """Where a datagram goes, and the line that would name a real server that no test has named, or ""."""
        datagram, route = taken.datagram, taken.route
        port: int = to.port or taken.sent.server[1]
        if isinstance(to.container, DatagramConnectable):
            return Ports((to.container,), port), ""
        if to.host is not None:
            return (to.host, port), ""
        peers = self._target.peers(datagram.host)
        if containers := [each for each in peers if isinstance(each, DatagramConnectable)]:
            return Ports(containers, port), ""
        named = route.is_for(datagram.host)
        remedy = "" if named else naming(route.kind, route.address, "udp", datagram.host, port)
        return (datagram.host, port), remedy

    def _relay(
        self,
        flow: Flow,
        entry: DatagramFlow,
        datagram: Datagram,
        sent: SentDatagram,
        content: bytes | None,
    ) -> None:
        """Pass on what a server has answered; None where nobody listens there."""
        try:
            frame = refusal(sent) if content is None else self._kept(flow, datagram, sent, content)
        except ValueError as error:  # IPv6 has less room
            entry.note = f"an answer of its server was not passed on: {error}"
        else:
            self._send(frame)

    def _frame(self, flow: Flow, datagram: Datagram, sent: SentDatagram, part: Any) -> bytes | None:
        if isinstance(part, Refuse):
            return refusal(sent)
        content = content_of(part)
        return None if content is None else self._kept(flow, datagram, sent, content)

    def _kept(self, flow: Flow, datagram: Datagram, sent: SentDatagram, content: bytes) -> bytes:
        """The frame of an answer, which its datagram keeps."""
        frame = answer(sent, content)
        if flow.context.window.account.has_room(len(content) + OBJECT_BYTES, "datagrams"):
            datagram.replies.append(content)
        return frame

    def _send_later(
        self, flow: Flow, entry: DatagramFlow, datagram: Datagram, seconds: float, frame: bytes
    ) -> None:
        if not seconds:
            self._send(frame)
            return
        with self._lock:
            has_room = self._waiting < MAX_LATE
            self._waiting += has_room
        if not has_room:
            entry.note = f"not answered: {MAX_LATE:,} late answers wait already"
            return
        self.late.run(partial(self._wait, flow, entry, datagram.fault, seconds, frame))

    def _wait(
        self, flow: Flow, entry: DatagramFlow, fault: object, seconds: float, frame: bytes
    ) -> None:
        over = flow.context.window.over
        try:
            with self._ledger.pausing(Pause(entry, fault), None, is_endless=False):
                end = outlast(self._ledger, over, seconds, has_left=lambda: self._is_stopped)
            if end == "elapsed":
                self._send(frame)
        finally:
            with self._lock:
                self._waiting -= 1

    # Any thread.

    def _reply(self, flow: Flow, datagram: Datagram, sent: SentDatagram, content: bytes) -> None:
        if self._is_stopped:
            raise CallError(f"{datagram}: reply() comes too late: {TOO_LATE}")
        self._send(self._kept(flow, datagram, sent, content))

    def _send(self, frame: bytes) -> None:
        """Where the link takes no frame for long, the test fails."""
        sock = self._link.datagrams
        if sock is None or self._is_stopped:
            return
        try:
            sock.send(frame)
        except BlockingIOError:
            poller = select.poll()
            poller.register(sock, select.POLLOUT)
            if poller.poll(SEND_MILLISECONDS):
                with contextlib.suppress(OSError):
                    sock.send(frame)
                    return
            self._recorder.complain("an answer to a datagram could not be sent")
        except OSError:
            return  # the target has shut its interface down, which a monitor tells


def lateness(part: Any, context: Context) -> float:
    """How late a part of an answer is sent, in seconds. It may call functions of the test."""
    delays = [fault for fault in layers(part)[0] if isinstance(fault, Delayed)]
    return sum(context.run(drawn, fault.seconds, fault) for fault in delays)
