"""What a target makes a gateway keep is within one limit, whatever it is, and fails the test beyond it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from pytest_egress.base import account
from pytest_egress.errors import TamperingError
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.routes.raw.smtp import smtp
from pytest_egress.traffic.entries import Exchange, Mail, TcpConnection
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import Http2Client
from tests.support.stage import ADDRESS, GET, MEGABYTE, SECONDS, Reply, Stage, ask, eventually


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda size: monkeypatch.setattr(account, "MAX_HELD_BYTES", size)


def lost(stage: Stage) -> dict[str, int]:
    """What was cut; it fails the test."""
    found = stage.window.account.lost
    assert isinstance(judge(stage.window, []), TamperingError) is bool(found)
    return found


@pytest.fixture
def plain(stage: Stage) -> Callable[[], Http2Client]:
    return lambda: Http2Client(stage.dial(port=80), "http")


MANY_FIELDS = b"".join(b"x%x:\r\n" % number for number in range(5000))


def test_the_fields_of_a_head_count_as_objects(stage: Stage, room: Callable[[int], None]) -> None:
    room(3 * MEGABYTE)
    stage.http("api.test", lambda request: 204)
    head = GET.removesuffix(b"\r\n") + MANY_FIELDS + b"\r\n"
    codes = [ask(stage.dial(port=80), head).status for _ in range(3)]
    assert codes == [204, 204, 413]
    assert lost(stage).keys() == {"requests' heads"}
    assert len(stage.entries(Exchange)) == 2
    (refused,) = stage.entries(TcpConnection)
    assert "over MAX_HELD_BYTES" in refused.note


def test_so_do_those_of_http2(
    stage: Stage, room: Callable[[int], None], plain: Callable[[], Http2Client]
) -> None:
    room(200_000)
    stage.http("api.test", lambda request: 204)
    client = plain()
    fields = [(f"x{number:x}", "") for number in range(300)]
    assert [client.ask(headers=fields).status for _ in range(3)] == [204, 204, 413]
    assert client.ask().status == 204  # the connection goes on, and a small one has room
    assert lost(stage).keys() == {"requests' heads"}


def test_trailers_count_too(stage: Stage, room: Callable[[int], None]) -> None:
    room(MEGABYTE)
    stage.http("api.test", lambda request: 204)
    head = b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert ask(stage.dial(port=80), head + MANY_FIELDS + b"\r\n", "POST").status == 413
    assert lost(stage).keys() == {"trailers"}


def test_bodies_that_wait_for_a_handler_have_room_together(
    stage: Stage, room: Callable[[int], None], plain: Callable[[], Http2Client]
) -> None:
    room(MEGABYTE)
    go_on, told = threading.Event(), list[BaseException]()

    def handler(request: Request) -> int:
        assert go_on.wait(SECONDS)
        try:
            return 200 + sum(map(len, request.stream())) % 1
        except BaseException as error:
            told.append(error)
            raise

    stage.http("api.test", handler, stream=True)
    client = plain()
    numbers = [client.begin("/", "POST", ends=False) for _ in range(3)]
    client.flush()
    for number in numbers:
        client.send(number, bytes(400_000))
    assert eventually(lambda: bool(stage.window.account.lost))
    for number in numbers:
        client.h2.end_stream(number)
    client.flush()
    go_on.set()
    assert sorted(client.answer(number).status for number in numbers) == [200, 200, 500]
    stage.settle()
    assert "over MAX_HELD_BYTES" in str(told[0])
    assert lost(stage).keys() == {"bodies that wait for a handler"}
    assert stage.window.account.held < 10_000  # heads alone


def test_a_body_that_waits_gives_its_room_back_when_its_client_leaves(
    stage: Stage, plain: Callable[[], Http2Client]
) -> None:
    go_on = threading.Event()
    stage.http("api.test", lambda request: go_on.wait(SECONDS) and 204, stream=True)
    client = plain()
    number = client.begin("/", "POST", ends=False)
    client.h2.send_data(number, bytes(10_000))
    client.flush()
    assert eventually(lambda: stage.window.account.held >= 10_000)
    client.h2.reset_stream(number)
    client.flush()
    go_on.set()
    assert eventually(lambda: stage.window.account.held < 10_000)
    assert not lost(stage)


@contextlib.contextmanager
def serving(size: int, fields: bytes = b"") -> Iterator[str]:
    """A server whose answers have so many bytes; its URL."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n" % size
    head += fields + b"\r\n"

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = server.accept()
                with sock, contextlib.suppress(OSError):
                    sock.recv(65536)
                    sock.sendall(head + bytes(size))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(SECONDS)


def test_what_other_servers_answer_has_room_together(
    stage: Stage, room: Callable[[int], None]
) -> None:
    room(3 * MEGABYTE)
    with serving(MEGABYTE) as url:
        stage.http("api.test", forward(url))
        for _ in range(4):
            assert len(ask(stage.dial(port=80), GET).body) == MEGABYTE
    assert lost(stage).keys() == {"responses"}
    kept = [entry.response for entry in stage.entries(Exchange)]
    assert [len(response.content) for response in kept[:2]] == [MEGABYTE] * 2
    with pytest.raises(RuntimeError, match="all that is kept of the test has reached its limit"):
        _ = kept[3].content


def test_an_answer_that_a_handler_asks_for_takes_room_once(
    stage: Stage, room: Callable[[int], None]
) -> None:
    room(2 * MEGABYTE + 100_000)
    with serving(MEGABYTE) as url:
        stage.http(
            "api.test", lambda request: Response(text=str(len(request.forward(url).content)))
        )
        for _ in range(5):  # none of them is kept
            assert ask(stage.dial(port=80), GET).body == b"%d" % MEGABYTE
    assert not lost(stage)


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_an_answer_that_is_asked_for_between_two_pieces_takes_room_while_it_is_read(
    stage: Stage, plain: Callable[[], Http2Client], version: str
) -> None:
    held: list[int] = []

    def handler(request: Request) -> Iterator[bytes]:
        asked = replace(request, http_version="1.1")  # which the server speaks
        for _ in range(4):
            assert len(asked.forward(url).content) == MEGABYTE
            held.append(stage.window.account.held)
            yield b"x"

    with serving(MEGABYTE) as url:
        stage.http("api.test", handler)
        body = plain().ask().body if version == "2" else ask(stage.dial(port=80), GET).body
    assert body == b"xxxx"
    stage.settle()
    first, *others = [size // MEGABYTE for size in held]
    assert (first, others) == (1, [0, 0, 0])  # the first one was asked for before the answer
    assert stage.window.account.held < 10_000


def test_an_answer_that_there_is_no_room_for_fails_the_handler(
    stage: Stage, room: Callable[[int], None]
) -> None:
    room(MEGABYTE // 2)
    with serving(MEGABYTE) as url:
        stage.http("api.test", lambda request: request.forward(url))
        assert ask(stage.dial(port=80), GET).status == 500
    assert "over MAX_HELD_BYTES" in str(stage.only(Exchange).error)
    assert lost(stage).keys() == {"responses"}
    assert stage.window.account.held < 10_000


def test_what_handlers_answer_has_room_together_and_one_content_counts_once(
    stage: Stage, room: Callable[[int], None]
) -> None:
    room(MEGABYTE)
    stage.http("api.test", Response(content=bytes(MEGABYTE // 2)), path="/same")
    one = bytes(MEGABYTE // 4)
    stage.http("api.test", lambda request: Response(content=one), path="/one")
    stage.http("api.test", lambda request: Response(content=bytes(MEGABYTE // 2)), path="/made")
    same, again, made = (GET.replace(b"/ ", path) for path in (b"/same ", b"/one ", b"/made "))
    for _ in range(5):
        assert len(ask(stage.dial(port=80), same).body) == MEGABYTE // 2
        assert len(ask(stage.dial(port=80), again).body) == MEGABYTE // 4
    assert not lost(stage)
    for _ in range(3):
        assert len(ask(stage.dial(port=80), made).body) == MEGABYTE // 2
    assert lost(stage).keys() == {"responses"}
    first, *others = [entry.response for entry in stage.entries(Exchange)][10:]
    assert len(first.content) == MEGABYTE // 2
    for other in others:
        with pytest.raises(RuntimeError, match="is not kept: all that is kept of the test"):
            _ = other.content


def test_fields_of_what_other_servers_answer_count_as_objects(
    stage: Stage, room: Callable[[int], None]
) -> None:
    room(100_000)
    with serving(0, b"".join(b"x%x: 1\r\n" % number for number in range(300))) as url:
        stage.http("api.test", forward(url))
        for _ in range(2):
            assert len(ask(stage.dial(port=80), GET).headers) > 300
    assert lost(stage).keys() == {"responses"}
    assert [len(entry.response.headers) for entry in stage.entries(Exchange)] == [301, 0]


def test_a_form_is_kept_beside_its_body(stage: Stage, room: Callable[[int], None]) -> None:
    room(100_000)
    stage.http("api.test", lambda request: 200 + len(request.form))
    head = GET.replace(b"GET", b"POST").removesuffix(b"\r\n")
    codes = []
    for body in (b"a=b&" * 100, b"a=b&" * 1000):
        sent = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
        codes.append(ask(stage.dial(port=80), sent, "POST").status)
    assert codes == [201, 500]
    assert lost(stage).keys() == {"parsed forms"}
    assert "the form cannot be parsed: all that is kept" in str(stage.entries(Exchange)[1].error)


def post_json(stage: Stage, body: bytes) -> Reply:
    head = GET.replace(b"GET", b"POST").removesuffix(b"\r\n")
    sent = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    return ask(stage.dial(port=80), sent, "POST")


DENSE = b"[" + b"{}," * 1000 + b"1]"  # 3 KB that become 150 KB


def test_json_that_a_handler_reads_has_room_while_it_is_parsed(
    stage: Stage, room: Callable[[int], None]
) -> None:
    room(600_000)
    stage.http("api.test", lambda request: 200 + (request.json() == request.json()))
    assert [post_json(stage, DENSE).status for _ in range(10)] == [201] * 10
    assert not lost(stage)
    assert post_json(stage, b"[" + b"{}," * 5000 + b"1]").status == 500
    assert lost(stage).keys() == {"parsed JSON"}
    assert "the JSON cannot be parsed: all that is kept" in str(stage.entries(Exchange)[10].error)


def test_json_that_a_route_compares_is_refused_where_there_is_no_room_and_not_kept_else(
    stage: Stage, room: Callable[[int], None]
) -> None:
    room(600_000)
    stage.http("api.test", 200)
    stage.http("api.test", 204, json={"a": 1}, optional=True)
    assert [post_json(stage, DENSE).status for _ in range(10)] == [200] * 10
    assert not lost(stage)
    assert stage.window.account.held < 100_000
    assert post_json(stage, DENSE * 2).status == 200
    assert lost(stage).keys() == {"parsed JSON"}


def test_a_body_that_is_no_json_has_room_for_what_comes_next(
    stage: Stage, room: Callable[[int], None]
) -> None:
    room(600_000)

    def handler(request: Request) -> int:
        with pytest.raises((ValueError, RecursionError)):
            request.json()
        return 204

    stage.http("api.test", handler)
    for body in (DENSE[:-1], b"[" * 2000):
        assert [post_json(stage, body).status for _ in range(5)] == [204] * 5
    assert not lost(stage)


def mail_client(stage: Stage, *lines: bytes) -> socket.socket:
    sock = stage.dial(port=5432)
    for line in (b"EHLO x", b"MAIL FROM:<a@x.test>", *lines):
        sock.recv(4096)
        sock.sendall(line + b"\r\n")
    sock.recv(4096)
    return sock


def test_a_mail_that_does_not_come_whole_is_cut_where_there_is_no_room(
    stage: Stage, room: Callable[[int], None]
) -> None:
    room(MEGABYTE)
    stage.tcp(f"{ADDRESS}:5432", smtp())
    sock = mail_client(stage, b"RCPT TO:<b@x.test>", b"DATA")
    with contextlib.suppress(OSError):
        for _ in range(3):
            sock.sendall(bytes(MEGABYTE))
    assert eventually(lambda: bool(stage.window.account.lost))
    assert eventually(lambda: stage.window.account.held == 0)
    assert lost(stage).keys() == {"mails"}


def test_recipients_count_too(stage: Stage, room: Callable[[int], None]) -> None:
    room(40_000)
    stage.tcp(f"{ADDRESS}:5432", smtp())
    line = b"RCPT TO:<" + b"b" * 12_000 + b"@x.test>"
    sock = mail_client(stage, line, line, b"DATA", b"\r\n.")
    assert len(stage.entries(Mail)) == 1
    sock.close()
    again = mail_client(stage, line)
    again.sendall(line + b"\r\n")
    assert b"452 4.3.1 No room for more mails" in again.recv(4096)
    assert lost(stage).keys() == {"mails"}


def test_what_a_window_before_has_no_room_for_fails_the_one_that_is_closed_next(
    stage: Stage, room: Callable[[int], None], plain: Callable[[], Http2Client]
) -> None:
    room(100_000)
    go_on = threading.Event()
    stage.http("api.test", lambda request: go_on.wait(SECONDS) and 204, stream=True)
    stage.window.account = stage.ledger.accounts.open()
    client = plain()
    number = client.begin("/", "POST", ends=False)
    client.flush()
    assert eventually(lambda: bool(stage.count("/")))
    first, second = stage.window, stage.next_window()
    second.account = stage.ledger.accounts.open()
    first.account.close()
    client.send(number, bytes(110_000))
    assert eventually(lambda: bool(stage.ledger.accounts.lost_late))
    go_on.set()
    assert client.answer(number).status in (204, 500)
    assert eventually(lambda: not first.activities)
    second.account.close()
    assert judge(first, []) is None
    assert isinstance(judge(second, []), TamperingError)
