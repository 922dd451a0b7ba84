"""What each side of a relayed connection said last reaches a container, and comes from one."""

from __future__ import annotations

import contextlib
import socket
import textwrap
from collections.abc import Iterator

import pytest

from pytest_egress import Egress, forward
from pytest_egress.errors import LinkError
from pytest_egress.session import Session
from pytest_egress.targets.handle import Container
from tests.support.last_words import LAST_WORDS, TIMES, LastWords, assert_all_heard


@pytest.fixture
def server() -> Iterator[LastWords]:
    with contextlib.closing(LastWords()) as server:
        yield server


SENDER = textwrap.dedent("""
    import socket, threading
    heard = 0
    for _ in range({times}):
        sock = socket.create_connection(("db.test", 6379))
        def send():
            try:
                while True:
                    sock.send(b"x" * 5000)
            except OSError:
                pass
        thread = threading.Thread(target=send)
        thread.start()
        words = b""
        try:
            while data := sock.recv(65536):
                words += data
        except ConnectionError:
            pass
        try:
            sock.shutdown(2)
        except OSError:
            pass
        thread.join()
        sock.close()
        heard += words == {words!r}
    print(heard)
""")


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_all_last_words_reach_a_container(clients_image: str, server: LastWords, link: str) -> None:
    code = SENDER.format(times=TIMES, words=LAST_WORDS)
    with Egress(session=Session(link=link)) as egress:
        egress.intercept_tcp("db.test:6379", forward(f"tcp://127.0.0.1:{server.port}"))
        done = egress.run(clients_image, ["python3", "-c", code], timeout=120)
        assert done.stdout == f"{TIMES}\n"


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_all_last_words_of_a_container_reach_the_test(clients_image: str, link: str) -> None:
    code = f"""
        import socket
        server = socket.create_server(("0.0.0.0", 8000), backlog=256)
        print("up", flush=True)
        while True:
            sock, _ = server.accept()
            sock.recv(4)
            sock.sendall({LAST_WORDS!r})
            sock.close()
    """
    with Egress(session=Session(link=link)) as egress:
        command = ["python3", "-uc", textwrap.dedent(code)]
        target: Container = egress.start(clients_image, command)
        address = target.address(8000)
        while True:
            with contextlib.suppress(OSError, LinkError), target.connect(8000) as first:
                first.send(b"x")
                break
        assert_all_heard(lambda: socket.create_connection(address))
