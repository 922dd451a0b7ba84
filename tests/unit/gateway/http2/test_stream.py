"""Both directions of a request of HTTP/2, for answers that read and send by themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import h2.errors
import pytest
import trustme

from pytest_egress.routes.duplex import ClientLeftError, Conversation, Duplex, DuplexAnswer
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.duplexes import whole as response_of
from tests.support.http2_client import Http2Client
from tests.support.stage import SECONDS, Stage, client_context, eventually

Serve = Callable[[Duplex], None]


class Served(DuplexAnswer):
    """An answer that a function of a test gives."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve

    def refusal(self, request: Request) -> tuple[Response, str] | None:
        return None

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        self.serve(duplex)


@pytest.fixture
def client(stage: Stage, ca: trustme.CA) -> Http2Client:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return Http2Client(stage.tls(context=context))


def serve(stage: Stage, function: Serve) -> None:
    stage.https("api.test", Served(function))


def test_pieces_go_both_ways_while_neither_has_ended(stage: Stage, client: Http2Client) -> None:
    def echo(duplex: Duplex) -> None:
        duplex.start(200, Headers({"x-kind": "echo"}))
        while piece := duplex.receive():
            duplex.send(piece.upper())
        duplex.finish(Headers([("x-trailers", str(duplex.trailers.raw))]))

    serve(stage, echo)
    number = client.begin("/", "POST", ends=False)
    client.flush()
    answer = client.answers[number]
    assert client.until(lambda: answer.status == 200)
    for said, heard in ((b"one", b"ONE"), (b"two", b"ONETWO")):
        client.h2.send_data(number, said)
        client.flush()
        assert client.until(lambda heard=heard: answer.body == heard)  # type: ignore[misc]
    client.h2.send_headers(number, [("x-sum", "2")], end_stream=True)
    client.flush()
    assert client.answer(number).trailers == {"x-trailers": "(('x-sum', '2'),)"}
    assert answer.headers["x-kind"] == "echo"
    assert "date" in answer.headers


def test_interim_responses_come_before_the_response_alone(
    stage: Stage, client: Http2Client
) -> None:
    refused = []

    def hint(duplex: Duplex) -> None:
        duplex.send_interim(103, Headers({"Link": "</a.css>"}))
        duplex.start(200)
        try:
            duplex.send_interim(103)
        except RuntimeError as error:
            refused.append(str(error))
        duplex.finish()

    serve(stage, hint)
    answer = client.ask()
    assert (answer.interim, answer.status) == ([103], 200)
    assert refused == ["an interim response cannot follow the response, which has begun"]


@pytest.mark.parametrize("content", [b"", b"hey", b"z" * 200_000], ids=len)
@pytest.mark.parametrize("trailers", [Headers(), Headers({"X-Sum": "2"})], ids=["none", "sum"])
def test_a_whole_response_arrives_whatever_room_there_is_for_it(
    stage: Stage, client: Http2Client, content: bytes, trailers: Headers
) -> None:
    serve(
        stage, lambda duplex: duplex.respond(response_of(content, Headers({"X-A": "b"}), trailers))
    )
    answer = client.ask()
    assert (answer.status, answer.body) == (200, content)
    assert (answer.headers["x-a"], "date" in answer.headers) == ("b", True)
    assert answer.trailers == {name.lower(): value for name, value in trailers.raw}
    assert answer.ended
    assert not answer.reset


def test_many_threads_may_send_and_each_piece_arrives_whole(
    stage: Stage, client: Http2Client
) -> None:
    def many(duplex: Duplex) -> None:
        duplex.start(200)
        pieces = [bytes([letter]) * 50_000 for letter in b"abcdefgh"]
        threads = [threading.Thread(target=duplex.send, args=(piece,)) for piece in pieces]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        duplex.finish()

    serve(stage, many)
    body = client.ask().body
    runs = [chr(body[place]) for place in range(0, len(body), 50_000)]
    assert sorted(runs) == list("abcdefgh")
    assert body == b"".join(letter.encode() * 50_000 for letter in runs)


def test_a_client_that_resets_ends_what_waits_and_is_told_of(
    stage: Stage, client: Http2Client
) -> None:
    told, raised = threading.Event(), []
    begun, states = threading.Event(), []

    def wait(duplex: Duplex) -> None:
        take_back = duplex.on_disconnect(pytest.fail)
        duplex.on_disconnect(told.set)
        take_back()
        take_back()  # again is harmless
        duplex.start(200)
        begun.set()
        states.append(duplex.disconnected)
        try:
            duplex.receive()
        except ClientLeftError as error:
            raised.append(str(error))
        states.append(duplex.disconnected)
        late: list[str] = []
        duplex.on_disconnect(lambda: late.append("at once"))
        assert late == ["at once"]
        with pytest.raises(ClientLeftError):
            duplex.send(b"x")
        with pytest.raises(ClientLeftError):
            duplex.finish()
        raised.append("sent nothing")
        raise ClientLeftError("it is over")

    serve(stage, wait)
    number = client.begin("/", "POST", ends=False)
    client.flush()
    assert begun.wait(SECONDS)
    client.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert told.wait(SECONDS)
    assert eventually(lambda: len(raised) == 2)
    assert states == [False, True]
    assert raised[0] == "the client reset the stream (CANCEL)"


def test_a_connection_that_ends_is_told_to_each_of_its_streams(
    stage: Stage, client: Http2Client
) -> None:
    left = threading.Semaphore(0)

    def wait(duplex: Duplex) -> None:
        duplex.on_disconnect(left.release)
        duplex.start(200)
        with pytest.raises(ClientLeftError, match="the client closed the connection") as caught:
            duplex.receive()
        raise caught.value

    serve(stage, wait)
    for _ in range(3):
        client.begin("/", "POST", ends=False)
    client.flush()
    assert eventually(lambda: stage.count("/") == 3)
    client.close()
    for _ in range(3):
        assert left.acquire(timeout=SECONDS)


def test_waiting_for_a_piece_may_end_without_one(stage: Stage, client: Http2Client) -> None:
    raised = []

    def wait(duplex: Duplex) -> None:
        try:
            duplex.receive(timeout=0.01)
        except TimeoutError as error:
            raised.append(str(error))
        assert duplex.receive() == b"late"
        duplex.start(204, ends=True)

    serve(stage, wait)
    number = client.begin("/", "POST", ends=False)
    client.flush()
    assert eventually(lambda: raised)
    client.h2.send_data(number, b"late", end_stream=True)
    client.flush()
    assert client.answer(number).status == 204
    assert raised == ["the client has sent nothing within 0.01 s"]


def test_an_early_answer_ends_its_stream_without_an_error(
    stage: Stage, client: Http2Client
) -> None:
    def refuse(duplex: Duplex) -> None:
        duplex.start(403)
        duplex.send(b"no")
        duplex.finish()

    serve(stage, refuse)
    number = client.begin("/", "POST", ends=False)
    client.flush()
    answer = client.answers[number]
    assert client.until(lambda: answer.reset is not None)
    assert (answer.body, answer.ended) == (b"no", True)
    assert answer.reset == h2.errors.ErrorCodes.NO_ERROR


def test_a_response_that_is_broken_off_is_an_error_to_its_client(
    stage: Stage, client: Http2Client
) -> None:
    def break_off(duplex: Duplex) -> None:
        duplex.start(200)
        duplex.reset()

    serve(stage, break_off)
    assert client.ask().reset == h2.errors.ErrorCodes.INTERNAL_ERROR


def test_a_body_that_nobody_reads_stops_at_its_window(stage: Stage, client: Http2Client) -> None:
    read = threading.Event()

    def wait(duplex: Duplex) -> None:
        assert read.wait(SECONDS)
        total = 0
        while piece := duplex.receive():
            total += len(piece)
        duplex.start(200)
        duplex.send(str(total).encode())
        duplex.finish()

    serve(stage, wait)
    number, sent = client.begin("/", "POST", ends=False), 0
    client.flush()
    assert client.until(lambda: client.h2.local_flow_control_window(number) > 65_535)
    while (window := client.h2.local_flow_control_window(number)) > 0:
        size = min(window, 16_384)
        client.h2.send_data(number, bytes(size))
        sent += size
        client.flush()
    assert sent == 1 << 20
    assert client.ask("/other", host="other.test").status == 421  # it holds no other back
    read.set()
    client.send(number, bytes(3 << 20))
    client.h2.end_stream(number)
    client.flush()
    assert client.answer(number).body == str(4 << 20).encode()


@pytest.mark.parametrize(("given", "sent"), [(b"yes", 501), (204, 501), (307, 307), (403, 403)])
def test_no_answer_but_a_websocket_tells_a_client_that_one_is_open(
    stage: Stage, client: Http2Client, given: object, sent: int
) -> None:
    stage.https("api.test", given)
    number = client.begin("/chat", "CONNECT", protocol="websocket", ends=False)
    client.flush()
    assert client.until(lambda: client.answers[number].status)
    assert client.answers[number].status == sent
    exchange = stage.only(Exchange)
    assert (exchange.request.method, exchange.request.headers["upgrade"]) == ("GET", "websocket")
    assert exchange.note.endswith("websocket(handler) opens one") == (sent == 501)


def test_an_extended_connect_for_another_protocol_is_refused(
    stage: Stage, client: Http2Client
) -> None:
    stage.https("api.test", b"yes", optional=True)
    number = client.begin("/chat", "CONNECT", protocol="connect-udp", ends=False)
    client.flush()
    assert client.until(lambda: client.answers[number].status)
    assert client.answers[number].status == 502
    assert stage.only(Exchange).request.method == "CONNECT"


def test_a_handler_of_a_stream_gets_the_body_as_it_comes(stage: Stage, client: Http2Client) -> None:
    def pieces(request: Request) -> Iterator[bytes]:
        for piece in request.stream():
            yield piece.upper()

    stage.https("api.test", lambda request: Response(stream=pieces(request)), stream=True)
    number = client.begin("/", "POST", ends=False)
    client.flush()
    client.h2.send_data(number, b"one")
    client.flush()
    assert client.until(lambda: client.answers[number].body == b"ONE")
    client.h2.send_data(number, b"two", end_stream=True)
    client.flush()
    assert client.answer(number).body == b"ONETWO"


def test_the_streamed_body_in_whose_place_501_is_sent_is_closed(
    stage: Stage, client: Http2Client
) -> None:
    ended = threading.Event()

    def pieces() -> Iterator[bytes]:
        try:
            yield b"one"
            yield b"two"
        finally:
            ended.set()

    body = pieces()
    stage.https("api.test", lambda request: Response(stream=body))
    number = client.begin("/chat", "CONNECT", protocol="websocket", ends=False)
    client.flush()
    assert client.answer(number).status == 501
    stage.settle()
    assert ended.is_set()
    assert stage.only(Exchange).response.content == b""
