"""The streams of a command that runs in a container, by an engine's own socket."""

from __future__ import annotations

import random
import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import pytest_egress.link.attach as module
from pytest_egress.errors import LinkError
from pytest_egress.link.attach import (
    STDERR,
    STDOUT,
    TAIL_BYTES,
    Output,
    OutputError,
    StreamDemultiplexer,
    attach,
    connect,
    read_output,
)
from tests.support.stream_scene import MEGABYTE, connect_while_served, read_until
from tests.support.target_shell import SECONDS

# ------------------------------------------------------------------ the attach


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack("!BxxxI", stream, len(data)) + data


def test_frames_are_taken_apart_wherever_they_are_cut() -> None:
    sent = frame(1, b"out") + frame(2, b"err") + frame(1, b"") + frame(1, b"more" * 40)
    for cut in range(1, len(sent)):
        frames = StreamDemultiplexer()
        pieces = [*frames.feed(sent[:cut]), *frames.feed(sent[cut:])]
        joined = {kind: b"".join(d for k, d in pieces if k == kind) for kind in (STDOUT, STDERR)}
        assert joined == {STDOUT: b"out" + b"more" * 40, STDERR: b"err"}


@pytest.fixture
def engine_end() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our connection to an engine, and the engine's own end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_bytes_behind_the_answer_are_kept(engine_end: tuple[socket.socket, socket.socket]) -> None:
    ours, engine = engine_end
    head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    engine.sendall(head + frame(1, b"early") + frame(2, b"words")[:9])
    attachment = attach(ours, "/containers/c/attach?stream=1")
    request = engine.recv(4096)
    assert request.startswith(b"POST /containers/c/attach?stream=1 HTTP/1.1\r\n")
    assert b"upgrade: tcp" in request.lower()
    assert attachment.read() == b"early"
    engine.sendall(frame(2, b"words")[9:])
    assert (attachment.read(), attachment.text()) == (b"", "words")
    engine.close()
    assert attachment.read() is None


def test_what_a_command_has_written_before_it_is_looked_at_is_kept(
    engine_end: tuple[socket.socket, socket.socket],
) -> None:
    ours, engine = engine_end
    head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    engine.sendall(head + frame(1, b"all ") + frame(2, b"words") + frame(1, b"of it"))
    engine.shutdown(socket.SHUT_WR)
    output = Output()
    read_output(ours, "/exec/e/start", output, lambda: SECONDS)
    assert (output.stdout, output.stderr) == (b"all of it", b"words")
    request = engine.recv(4096)
    assert request.startswith(b"POST /exec/e/start HTTP/1.1\r\n")
    assert request.endswith(b'\r\n\r\n{"Detach": false, "Tty": false}')


def test_a_command_that_an_engine_does_not_begin_has_not_run_too_long(
    engine_end: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.01)
    with pytest.raises(OSError, match=r"^it has not begun within 0\.01 s$"):
        read_output(engine_end[0], "/exec/e/start", Output(), lambda: SECONDS)


@pytest.mark.parametrize("body", [b"no such container", b'{"message": "no such container"}'])
def test_an_engine_that_refuses_is_quoted(
    engine_end: tuple[socket.socket, socket.socket], body: bytes
) -> None:
    ours, engine = engine_end
    engine.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    with pytest.raises(LinkError, match=r"did not attach to it: 404 no such container$"):
        attach(ours, "/")
    assert ours.fileno() == -1


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_an_engine_that_speaks_no_http_is_a_link_error(
    engine_end: tuple[socket.socket, socket.socket], answer: bytes
) -> None:
    ours, engine = engine_end
    engine.sendall(answer)
    engine.shutdown(socket.SHUT_WR)
    with pytest.raises(LinkError, match="did not attach"):
        attach(ours, "/")
    assert ours.fileno() == -1


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("unix:///no/such/socket", "No engine can be reached at unix:///no/such/socket: "),
        ("http+docker://ssh", "No stream link leads to an engine at 'http"),
        ("http://127.0.0.1:1", "No engine can be reached at http://127.0.0.1:1: "),
    ],
)
def test_an_engine_that_is_not_there_is_a_link_error(address: str, text: str) -> None:
    with pytest.raises(LinkError) as caught:
        connect(address)
    assert str(caught.value).startswith(text)


def test_an_engine_behind_tls_is_spoken_with_like_any_other(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    body = random.Random(1).randbytes(3 * MEGABYTE)

    def engine(listener: socket.socket) -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as sock:
            sock.recv(4096)
            sock.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            for start in range(0, len(body), 30_000):
                sock.sendall(frame(1, body[start : start + 30_000]))
            echoed = bytearray()
            while len(echoed) < len(body):
                echoed += sock.recv(MEGABYTE)
            sock.sendall(frame(1, b"same" if echoed == body else b"other"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=engine, args=(listener,))
        thread.start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        attachment = attach(connect(address, verify=str(tmp_path / "ca.pem")), "/")
        assert read_until(attachment, len(body)) == body
        unsent = body
        while unsent:
            select.select([], [attachment], [], SECONDS)
            unsent = unsent[attachment.write(unsent) :]
        assert read_until(attachment, 4) == b"same"
        attachment.close()
        thread.join(SECONDS)
        with pytest.raises(LinkError, match="CERTIFICATE_VERIFY_FAILED"):
            connect_while_served(listener, context, address)


def test_what_an_engine_sends_of_both_streams_is_separated_wherever_it_is_cut() -> None:
    sent = b"".join(
        bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data
        for stream, data in [(1, b"out"), (2, b"err"), (1, b""), (1, b"put")]
    )
    for chunks in ([sent], [bytes((byte,)) for byte in sent]):
        output, joined = Output(), Output(joined=True)
        for chunk in chunks:
            output.feed(chunk)
            joined.feed(chunk)
        assert (output.stdout, output.stderr) == (b"output", b"err")
        assert (joined.stdout, joined.stderr, joined.tail) == (b"outerrput", b"", b"outerrput")


def test_of_an_output_without_end_the_tail_is_kept_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTPUT_BYTES", 1 << 20)
    tail, output = Output(whole=False, terminal=True), Output(terminal=True)
    for number in range(1 << 10):
        tail.feed(b"%1023d\n" % number)
        output.feed(b"%1023d\n" % number)
    assert len(output.stdout) == 1 << 20
    assert tail.tail == output.stdout[-TAIL_BYTES:]
    assert tail.stdout == b""
    with pytest.raises(OutputError, match=r"^more than 1 MiB$"):
        output.feed(b"x")


def test_a_command_that_never_ends_is_left(
    engine_end: tuple[socket.socket, socket.socket],
) -> None:
    ours, engine = engine_end
    head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    engine.sendall(head + frame(1, b"begun"))
    left = iter([0.01, 0.01, 0.0])  # a prompt stops the clock once
    output = Output()
    with pytest.raises(TimeoutError):
        read_output(ours, "/exec/e/start", output, lambda: next(left))
    assert output.stdout == b"begun"
    assert list(left) == []
