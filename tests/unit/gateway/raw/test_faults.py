"""Faults of raw routes on loopback: how a connection ends, what has come before, and what counts as a call."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import smtplib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pytest_egress.gateway.dispatch as dispatch
import pytest_egress.gateway.raw.server as raw_server
from pytest_egress import (
    HandlerError,
    delayed,
    disconnect,
    raw,
    reset,
    reset_stream,
    sequence,
    silence,
    smtp,
    throttled,
    truncated,
)
from pytest_egress.gateway.raw.faults import RETURNABLE
from pytest_egress.gateway.raw.server import CUT_SILENT, NO_CALL
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.routes.faults import Fault
from pytest_egress.traffic.entries import TcpConnection
from tests.support.echo import Echo, end_of_dial, opened, read_line, read_to_end
from tests.support.stage import ADDRESS, SECONDS, Stage, comes_not, end_of, eventually
from tests.support.stage import reset as client_resets

SOON = 0.05
FOREVER = 1000.0


@pytest.fixture
def echo() -> Iterator[Echo]:
    with contextlib.closing(Echo(greeting=b"220 ready\r\n")) as echo:
        yield echo


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a probe is there until it has closed."""
    monkeypatch.setattr(raw_server, "PROBE_SECONDS", 10)
    monkeypatch.setattr(raw_server, "SILENT_SECONDS", 10)


def to(server: Echo) -> Any:
    return forward(f"tcp://127.0.0.1:{server.port}")


def call_of(stage: Stage, route: Any) -> TcpConnection:
    call: TcpConnection = route.wait_for_call(timeout=SECONDS)
    assert judge(stage.window, [route]) is None
    return call


def cut_of(client: socket.socket) -> str:
    """How a connection ends where nothing announces it: in TLS by no close_notify, which would be bytes here."""
    client.settimeout(SECONDS)
    try:
        assert socket.socket.recv(client, 100) == b""
    except ConnectionResetError:
        return "reset"
    return "closed"


@contextlib.contextmanager
def stopped(stage: Stage) -> Iterator[None]:
    """Have the ledger's clock stand still, as a prompt does."""
    stage.ledger.enter_prompt()
    yield
    stage.ledger.leave_prompt()


# Ends.


def test_reset_resets_what_was_accepted(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, reset())
    assert end_of_dial(stage) == "reset"
    call = call_of(stage, route)
    assert (call.fault, call.outcome, call.note) == (reset(), "routed", "")
    assert outcome_text(call) == f"TCP {ADDRESS}:5432 -> reset()"


def test_reset_with_a_stream_is_the_connection_too(stage: Stage) -> None:
    stage.tcp(ADDRESS, reset_stream())
    assert end_of_dial(stage) == "reset"


def test_reset_within_tls_is_no_end_of_tls(stage: Stage) -> None:
    route = stage.tls_route("api.test", reset())
    client = stage.tls(address=stage.resolve("api.test"))
    assert end_of(client) == "reset"
    assert call_of(stage, route).fault == reset()


def test_disconnect_closes_though_much_has_come(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, disconnect())
    client = stage.dial(port=5432)
    client.sendall(b"x" * 100_000)
    assert end_of(client) == "closed"
    assert outcome_text(call_of(stage, route)).endswith(" -> disconnect()")


def test_disconnect_within_tls_is_an_end_of_tls(stage: Stage) -> None:
    stage.tls_route(ADDRESS, disconnect())
    client = stage.strict_tls()
    client.settimeout(SECONDS)
    assert client.recv(1) == b""


@pytest.mark.parametrize(
    "answer", [disconnect(b"220 ready"), raw(b"220 ready"), disconnect(delayed(b"220 ready", SOON))]
)
def test_bytes_may_come_before_the_end(stage: Stage, answer: object) -> None:
    route = stage.tcp(ADDRESS, answer)
    assert read_to_end(stage.dial(port=5432)) == b"220 ready"
    assert call_of(stage, route).fault == answer


def test_a_handler_may_be_what_comes_before_the_end(stage: Stage) -> None:
    stage.tcp(ADDRESS, disconnect(lambda sock: sock.sendall(sock.recv(9)[::-1])))
    client = stage.dial(port=5432)
    client.sendall(b"abc")
    assert read_to_end(client) == b"cba"


def test_raw_bytes_are_sent_within_tls(stage: Stage) -> None:
    stage.tls_route(ADDRESS, raw(b"\0\1"))
    assert read_to_end(stage.strict_tls()) == b"\0\1"


def test_silence_hears_and_says_nothing_and_holds_no_window_open(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, silence())
    client = stage.dial(port=5432)
    client.sendall(b"startup")
    call = call_of(stage, route)
    assert eventually(lambda: call.content == b"startup")
    stage.settle()
    assert comes_not(client)
    assert [str(each) for each in stage.ledger.pauses_of("target")] == [f"{call} -> silence()"]
    client.close()
    assert eventually(lambda: not stage.gateway.connections)
    assert not stage.ledger.pauses


def test_silence_ends_after_its_seconds(stage: Stage) -> None:
    stage.tcp(ADDRESS, silence(SOON))
    client = stage.dial(port=5432)
    client.sendall(b"startup")
    assert end_of(client) == "closed"


def test_the_seconds_of_silence_stand_still_while_a_prompt_is_open(stage: Stage) -> None:
    stage.tcp(ADDRESS, silence(0.01))
    with stopped(stage):
        client = stage.dial(port=5432)
        client.sendall(b"startup")
        assert comes_not(client)
    assert end_of(client) == "closed"


def test_silence_is_cut_with_its_test_and_stays_a_call(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, silence())
    client = stage.dial(port=5432)
    client.sendall(b"startup")
    call = call_of(stage, route)
    stage.gateway.revise(test_over=True)
    assert end_of(client) == "closed"
    assert call.outcome == "routed"


def test_a_silent_client_that_is_cut_at_once_was_no_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_server, "SILENT_SECONDS", FOREVER)
    stage.tcp(ADDRESS, silence())
    client = stage.dial(port=5432)
    assert eventually(lambda: stage.window.entries)
    stage.gateway.revise(test_over=True)
    assert end_of(client) == "closed"
    assert stage.only(TcpConnection).note == CUT_SILENT


def test_a_client_that_waited_for_the_server_to_speak_is_a_call(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, silence())
    client = stage.dial(port=5432)
    call = call_of(stage, route)  # though neither side has sent a byte
    client.close()
    assert eventually(lambda: call.duration is not None)
    assert (call.outcome, route.call_count) == ("routed", 1)


def test_a_client_that_waits_in_silence_keeps_its_turn_and_no_other_waiting(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "TURN_SECONDS", FOREVER)
    stage.tcp(ADDRESS, b"another route's")
    route = stage.tcp(ADDRESS, silence(), times=1)
    client = stage.dial(port=5432)
    call_of(stage, route)  # neither side has sent a byte
    second = stage.dial(port=5432)
    second.settimeout(SECONDS)
    assert second.recv(100) == b"another route's"
    client.close()


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    "fault",
    [
        reset(),
        disconnect(),
        disconnect(b"220 ready"),
        raw(b"220 ready"),
        silence(),
        silence(FOREVER),
        delayed(b"220 ready", FOREVER),
        delayed(lambda sock: sock.sendall(b"220 ready"), FOREVER),
        throttled(lambda sock: sock.recv(1)[0], 1),
    ],
    ids=str,
)
def test_a_port_probe_is_no_call_and_gives_its_turn_back(stage: Stage, fault: Fault) -> None:
    route = stage.tcp(ADDRESS, sequence(fault, b"second"))
    stage.dial(port=5432).close()
    assert eventually(lambda: stage.window.entries and not stage.gateway.connections)
    (entry,) = stage.entries(TcpConnection)
    assert (entry.outcome, entry.fault, route.call_count) == ("recorded", None, 0)
    assert entry.note.startswith(NO_CALL)
    assert outcome_text(entry).startswith(f"TCP {ADDRESS}:5432  [connected and closed")


def test_a_sequence_fails_and_then_works(stage: Stage, echo: Echo) -> None:
    route = stage.tcp(ADDRESS, sequence(reset(), disconnect(), silence(SOON), to(echo)))
    ends = []
    for _ in range(3):
        client = stage.dial(port=5432)
        with contextlib.suppress(OSError):
            client.sendall(b"startup")
        ends.append(end_of(client))
    assert ends == ["reset", "closed", "closed"]
    assert read_line(stage.dial(port=5432)) == b"220 ready\r\n"
    route.wait_for_call(4, timeout=SECONDS)
    assert [str(call.fault) for call in route.calls] == [
        "reset()",
        "disconnect()",
        f"silence({SOON})",
        "None",
    ]


def test_an_outage_comes_and_goes_by_respond(stage: Stage, echo: Echo) -> None:
    route = stage.tcp(ADDRESS, to(echo))
    living = stage.dial(port=5432)
    assert read_line(living) == b"220 ready\r\n"
    route.respond(reset())
    assert end_of_dial(stage) == "reset"
    living.sendall(b"still here\n")
    assert read_line(living) == b"still here\n"
    route.respond(to(echo))
    assert read_line(stage.dial(port=5432)) == b"220 ready\r\n"


# Seconds that a function gives.


def test_a_function_of_seconds_is_asked_for_each_connection(stage: Stage) -> None:
    drawn = iter([0.01, 0.02])
    route = stage.tcp(ADDRESS, silence(lambda: next(drawn)))
    for _ in range(2):
        client = stage.dial(port=5432)
        client.sendall(b"x")
        assert end_of(client) == "closed"
    route.wait_for_call(2, timeout=SECONDS)
    assert list(drawn) == []


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(lambda: -1, "seconds are a number from 0 on"), (lambda: 1 / 0, "division by zero")],
)
def test_a_function_that_gives_no_seconds_fails_the_test(
    stage: Stage, seconds: Callable[[], float], error: str
) -> None:
    route = stage.tcp(ADDRESS, delayed(b"x", seconds))
    assert end_of_dial(stage) == "reset"
    assert eventually(lambda: any(getattr(e, "error", None) for e in stage.window.entries))
    verdict = judge(stage.window, [route])
    assert isinstance(verdict, HandlerError)
    assert error in str(verdict.__cause__)


# Bytes that come late, slowly or in part.


def test_a_greeting_is_late_by_the_ledgers_clock(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, delayed(b"220 ready\r\n", SOON))
    with stopped(stage):
        client = stage.dial(port=5432)
        client.sendall(b"EHLO\r\n")
        assert comes_not(client)
    assert read_line(client) == b"220 ready\r\n"
    client.close()
    assert call_of(stage, route).content == b"EHLO\r\n"


def test_a_slow_greeting_comes_in_slices(stage: Stage) -> None:
    stage.tcp(ADDRESS, throttled(b"x" * 100, 1000))
    with stopped(stage):
        client = stage.dial(port=5432)
        client.settimeout(SECONDS)
        assert len(client.recv(1000)) == 50  # a twentieth of a second's
        assert comes_not(client)
    assert len(client.recv(1000)) == 50


@pytest.mark.parametrize("resets", [False, True])
def test_a_greeting_ends_early(stage: Stage, resets: bool) -> None:
    stage.tcp(ADDRESS, truncated(b"220 ready\r\n", 5, reset=resets))
    client = stage.dial(port=5432)
    client.settimeout(SECONDS)
    assert client.recv(100) == b"220 r"
    assert end_of(client) == ("reset" if resets else "closed")


def test_a_greeting_that_ends_early_is_no_end_of_tls(stage: Stage) -> None:
    stage.tls_route(ADDRESS, truncated(b"220 ready\r\n", 5))
    client = stage.strict_tls()
    client.settimeout(SECONDS)
    assert client.recv(100) == b"220 r"
    assert cut_of(client) == "closed"


def test_what_is_shorter_than_its_limit_stays_open(stage: Stage) -> None:
    stage.tcp(ADDRESS, truncated(b"220 ready\r\n", 500))
    client = stage.dial(port=5432)
    assert read_line(client) == b"220 ready\r\n"
    assert comes_not(client)


# Another server.


def test_what_another_server_sends_is_late_and_what_it_gets_is_not(
    stage: Stage, echo: Echo
) -> None:
    route = stage.tcp(ADDRESS, delayed(to(echo), SOON))
    with stopped(stage):
        client = stage.dial(port=5432)
        client.sendall(b"hello\n")
        assert eventually(lambda: route.calls and route.calls[0].sent == 6)
        assert comes_not(client)
    assert read_to_end_of(client, b"220 ready\r\nhello\n")
    client.close()
    call = call_of(stage, route)
    assert eventually(lambda: call.duration is not None)
    assert outcome_text(call).endswith(f" -> {call.fault}, 6 bytes out, 17 back")


def read_to_end_of(client: socket.socket, wanted: bytes) -> bool:
    client.settimeout(SECONDS)
    data = b""
    while len(data) < len(wanted):
        data += client.recv(100)
    return data == wanted


def test_what_another_server_sends_is_slow(stage: Stage, echo: Echo) -> None:
    stage.tcp(ADDRESS, throttled(to(echo), 100))
    with stopped(stage):
        client = stage.dial(port=5432)
        client.settimeout(SECONDS)
        assert client.recv(100) == b"220 r"
        assert comes_not(client)
    assert read_to_end_of(client, b"eady\r\n")


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("within", ["", "TLS"])
def test_what_another_server_sends_ends_early(
    stage: Stage, echo: Echo, resets: bool, within: str
) -> None:
    declare = stage.tls_route if within else stage.tcp
    route = declare(ADDRESS, truncated(to(echo), 5, reset=resets))
    client: Any = stage.strict_tls() if within else stage.dial(port=5432)
    client.settimeout(SECONDS)
    assert client.recv(100) == b"220 r"
    assert cut_of(client) == ("reset" if resets else "closed")
    call = call_of(stage, route)
    assert eventually(lambda: call.duration is not None)
    assert call.received == 5
    assert eventually(lambda: echo.seen[0].fileno() < 0)  # it was told


def test_latency_is_no_bandwidth(stage: Stage, echo: Echo) -> None:
    stage.tcp(ADDRESS, delayed(to(echo), 0.2))
    client = stage.dial(port=5432)
    assert read_line(client) == b"220 ready\r\n"
    sending = threading.Thread(target=client.sendall, args=(b"x" * 3_000_000,))
    sending.start()
    left = 3_000_000
    while left:
        left -= len(client.recv(1 << 20))
    sending.join()


def test_faults_nest(stage: Stage, echo: Echo) -> None:
    fault = truncated(throttled(delayed(delayed(to(echo), 0.01), 0.01), 1000), 7)
    route = stage.tcp(ADDRESS, truncated(fault, 100, reset=True))
    client = stage.dial(port=5432)
    assert read_to_end(client) == b"220 rea"
    assert str(call_of(stage, route).fault) == f"truncated({fault}, 100, reset=True)"


def test_a_server_that_cannot_be_reached_is_told_as_ever(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, delayed(forward("tcp://127.0.0.1:1"), 0.1))
    assert end_of_dial(stage) == "reset"
    assert "127.0.0.1:1" in call_of(stage, route).note


# Handlers.


def repeat(sock: Any) -> None:
    """Greet, and repeat each line, to the end."""
    sock.sendall(b"220 ready\r\n")
    while line := sock.recv(100):
        sock.sendall(line)


async def repeat_by_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 ready\r\n")
    while line := await reader.read(100):
        writer.write(line)
        await writer.drain()


class Repeating(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"220 ready\r\n")

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class RepeatingHandler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            self.wfile.write(line)


@contextlib.contextmanager
def repeating_server() -> Iterator[Any]:
    with socketserver.TCPServer(("", 0), RepeatingHandler, bind_and_activate=False) as server:
        yield server


HANDLERS = {
    "handler": lambda: contextlib.nullcontext(repeat),
    "streams": lambda: contextlib.nullcontext(repeat_by_streams),
    "protocol": lambda: contextlib.nullcontext(Repeating),
    "socketserver": repeating_server,
}


@pytest.mark.parametrize("within", ["", "TLS"])
@pytest.mark.parametrize("make", HANDLERS.values(), ids=HANDLERS)
def test_what_a_handler_sends_is_late(stage: Stage, make: Callable[[], Any], within: str) -> None:
    with make() as handler:
        declare = stage.tls_route if within else stage.tcp
        route = declare(ADDRESS, delayed(handler, SOON))
        with stopped(stage):
            client: Any = stage.strict_tls() if within else stage.dial(port=5432)
            client.sendall(b"hello\n")
            assert comes_not(client)
        assert read_to_end_of(client, b"220 ready\r\nhello\n")
        client.close()
        assert call_of(stage, route).error is None


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("within", ["", "TLS"])
@pytest.mark.parametrize("make", HANDLERS.values(), ids=HANDLERS)
def test_what_a_handler_sends_ends_early_and_the_handler_sees_an_end(
    stage: Stage, make: Callable[[], Any], within: str, resets: bool
) -> None:
    with make() as handler:
        declare = stage.tls_route if within else stage.tcp
        route = declare(ADDRESS, truncated(handler, 5, reset=resets))
        client: Any = stage.strict_tls() if within else stage.dial(port=5432)
        client.settimeout(SECONDS)
        assert client.recv(100) == b"220 r"
        assert cut_of(client) == ("reset" if resets else "closed")
        assert call_of(stage, route).error is None


def test_that_a_message_is_cut_short_by_the_fault_is_no_error_of_the_handler(stage: Stage) -> None:
    async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await reader.readexactly(10)

    route = stage.tcp(ADDRESS, truncated(streams, 5))
    client = stage.dial(port=5432)
    assert read_to_end(client) == b"220 r"
    call = call_of(stage, route)
    assert (call.error, call.note) == (
        None,
        "the connection ended before its handler did (0 bytes read on a total of 10 expected bytes)",
    )


def test_all_that_a_handler_sent_comes_though_it_has_returned(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, throttled(lambda sock: sock.sendall(b"x" * 300), 3000))
    with stopped(stage):
        client = stage.dial(port=5432)
        route.wait_for_call(timeout=SECONDS)
        stage.settle()  # no window is held open
    assert len(read_to_end(client)) == 300
    assert call_of(stage, route).fault is not None


def test_a_handler_may_start_tls_behind_a_fault(stage: Stage) -> None:
    def handler(sock: Any) -> None:
        sock.sendall(b"220 ready\r\n")
        assert sock.readexactly(10) == b"STARTTLS\r\n"
        sock = sock.starttls()
        sock.sendall(sock.readexactly(3)[::-1])

    route = stage.tcp("mail.test:5432", delayed(throttled(handler, 1_000_000), 0.01))
    client = stage.dial(stage.resolve("mail.test"), 5432)
    assert read_line(client) == b"220 ready\r\n"
    client.sendall(b"STARTTLS\r\n")
    with stage.trusting.wrap_socket(client, server_hostname="mail.test") as tls:
        tls.sendall(b"abc")
        assert read_to_end(tls) == b"cba"
    call = call_of(stage, route)
    assert (call.error, call.tls is not None) == (None, True)


def test_mail_is_slow_and_taken(stage: Stage) -> None:
    route = stage.tcp("mail.test:5432", throttled(smtp(), 2000))
    address = stage.resolve("mail.test")
    with smtplib.SMTP(timeout=SECONDS) as client:
        client._get_socket = lambda *_: stage.link.dial(address, 5432)  # type: ignore[attr-defined]
        client.connect("mail.test", 5432)
        client.sendmail("a@shop.test", ["b@shop.test"], b"Subject: hello\r\n\r\nhello\r\n")
    assert route.wait_for_call(timeout=SECONDS).subject == "hello"


@pytest.mark.parametrize(
    "fault", [functools.partial(delayed, seconds=SOON), functools.partial(truncated, after=99)]
)
def test_an_error_of_a_handler_is_its_own_behind_a_fault(
    stage: Stage, fault: Callable[..., Any]
) -> None:
    def handler(sock: Any) -> None:
        sock.sendall(b"220 ready\r\n")
        raise ValueError("the handler's own")

    route = stage.tcp(ADDRESS, fault(handler))
    client = stage.dial(port=5432)
    assert read_line(client) == b"220 ready\r\n"
    assert end_of(client) == "reset"
    error = judge(stage.window, [route])
    assert isinstance(error, HandlerError)
    assert str(error.__cause__) == "the handler's own"


def test_a_client_that_leaves_behind_a_fault_is_no_error_of_the_handler(stage: Stage) -> None:
    def handler(sock: Any) -> None:
        while True:
            sock.sendall(b"x" * 10_000)

    route = stage.tcp(ADDRESS, throttled(handler, 1000))
    client = stage.dial(port=5432)
    assert client.recv(100)
    client_resets(client)
    assert call_of(stage, route).error is None


def test_a_handler_behind_a_fault_is_cut_with_its_test(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, delayed(repeat, FOREVER))
    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert eventually(lambda: stage.window.entries)
    stage.gateway.revise(test_over=True)
    assert end_of(client) == "closed"
    assert eventually(lambda: not stage.gateway.connections)
    assert call_of(stage, route).error is None


# Faults that a handler returns.


def test_a_handler_may_return_a_reset_after_its_last_words(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: Any) -> Any:
        sock.sendall(b"last " + sock.recv(100))
        return reset()

    client = stage.dial(port=5432)
    client.sendall(b"words\n")
    assert read_line(client) == b"last words\n"
    assert end_of(client) == "reset"
    assert call_of(stage, handler).fault == reset()


def test_a_reset_that_a_handler_returns_comes_through_a_fault(stage: Stage) -> None:
    def handler(sock: Any) -> Any:
        sock.sendall(b"last words\n")
        return reset()

    stage.tcp(ADDRESS, delayed(handler, SOON))
    client = stage.dial(port=5432)
    assert read_line(client) == b"last words\n"
    assert end_of(client) == "reset"


def test_an_async_handler_may_return_silence(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    async def handler(sock: Any) -> Any:
        sock.recv(100)
        return silence()

    client = stage.dial(port=5432)
    client.sendall(b"hello")
    call = call_of(stage, handler)
    assert eventually(lambda: call.fault == silence())
    assert comes_not(client)
    client.close()
    assert eventually(lambda: not stage.gateway.connections)


@pytest.mark.parametrize("within", ["", "TLS"])
@pytest.mark.parametrize("fault", [reset(), silence(SOON), disconnect()], ids=str)
def test_a_function_of_streams_may_return_one_after_its_last_words(
    stage: Stage, fault: Fault, within: str
) -> None:
    async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        writer.write(b"last " + await reader.readline())
        return fault

    route = (stage.tls_route if within else stage.tcp)(ADDRESS, streams)
    client: Any = stage.strict_tls() if within else stage.dial(port=5432)
    client.sendall(b"words\n")
    assert read_line(client) == b"last words\n"
    assert end_of(client) == ("reset" if fault == reset() else "closed")
    assert call_of(stage, route).fault == fault


def test_a_handler_may_return_a_disconnect(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: Any) -> Any:
        return disconnect()

    assert end_of_dial(stage) == "closed"
    assert call_of(stage, handler).fault == disconnect()


@pytest.mark.parametrize("fault", [raw(b"x"), disconnect(b"x")], ids=str)
def test_a_handler_sends_its_bytes_itself(stage: Stage, fault: object) -> None:
    def handler(sock: Any) -> Any:
        return fault

    route = stage.tcp(ADDRESS, handler)
    assert end_of_dial(stage) == "reset"
    stage.settle()
    error = judge(stage.window, [route])
    assert isinstance(error, HandlerError)
    text = (
        f"returned {fault}: a raw handler sends by sock.sendall(...), and may return {RETURNABLE}"
    )
    assert text in str(error.__cause__)


# What is refused where it is declared.


def test_what_has_no_end_of_its_own_is_no_answer_of_disconnect(stage: Stage, echo: Echo) -> None:
    server = to(echo)
    with pytest.raises(TypeError) as raised:
        stage.tcp(ADDRESS, disconnect(delayed(server, 1)))
    assert str(raised.value) == (
        f"disconnect(delayed({server}, 1)): the server's connection ends when the server closes it; "
        f"truncated({server}, 4096) ends it after so many bytes"
    )


def test_a_connection_of_a_pool_lives_through_its_test_behind_a_fault(
    stage: Stage, echo: Echo
) -> None:
    with contextlib.closing(Echo()) as plain:
        stage.tcp(ADDRESS, delayed(to(plain), 0.01))
        client = opened(stage, ADDRESS)
        stage.settle()
        client.sendall(b"y\n")
        assert read_line(client) == b"y\n"
