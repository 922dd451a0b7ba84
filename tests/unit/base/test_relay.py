"""What each side of a relayed connection has said reaches the other, however the first one ends."""

from __future__ import annotations

import contextlib
import socket
import ssl
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest
import trustme

from pytest_egress import Egress, forward
from pytest_egress.base.relay import relay, unsent
from pytest_egress.errors import LinkError
from pytest_egress.link.stream_sockets import loopback_pair
from pytest_egress.session import Session
from pytest_egress.targets.handle import Container
from pytest_egress.targets.ingress import Ingress
from tests.support.outside import Outside
from tests.support.stage import ADDRESS, SECONDS, Stage, end_of, eventually, reset, staged
from tests.support.stream_scene import Scene

TIMES = 200
BLOCK = b"x" * 5000
LAST_WORDS = b"-ERR that is enough\r\n"


class Server:
    """Answers after the first bytes of each connection, and closes it, whatever else is coming.

    Args:
        context: For TLS.
        words: What it says; with none it resets the connection.
        listener: By default one of 127.0.0.1.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        words: bytes = LAST_WORDS,
        listener: socket.socket | None = None,
    ) -> None:
        self.context, self.words = context, words
        self.listener = listener or socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._serve(sock)
            sock.close()

    def _serve(self, sock: socket.socket) -> None:
        if self.context is not None:
            sock = self.context.wrap_socket(sock, server_side=True)
        with sock:
            sock.recv(4)
            if self.words:
                sock.sendall(self.words)
                assert eventually(lambda: not unsent(sock))  # or its own kernel drops them
            else:
                reset(sock)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with contextlib.closing(Server()) as server:
        yield server


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def stage(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged(ca, request) as stage:
        yield stage


def hear_out(sock: socket.socket) -> bytes:
    """Send without end, and read to the end meanwhile."""
    sock.settimeout(SECONDS)

    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                socket.socket.send(sock, BLOCK)

    thread = threading.Thread(target=send)
    thread.start()
    heard = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            heard += data
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    thread.join()
    return heard


def hear_out_tls(sock: ssl.SSLSocket) -> bytes:
    """The same in TLS, on which no two threads may be."""
    sock.settimeout(0)
    heard = b""
    while True:
        try:
            if not (data := sock.recv(65536)):
                return heard
            heard += data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (ConnectionError, ssl.SSLError):
            return heard
        with contextlib.suppress(OSError):
            sock.send(BLOCK)


def assert_all_heard(dial: Callable[[], socket.socket], words: bytes = LAST_WORDS) -> None:
    heard = []
    for _ in range(TIMES):
        with dial() as sock:
            heard.append(hear_out_tls(sock) if isinstance(sock, ssl.SSLSocket) else hear_out(sock))
    assert heard.count(words) == TIMES


@contextlib.contextmanager
def relayed(one: socket.socket, other: socket.socket) -> Iterator[list[OSError]]:
    """Relay between two sockets, which are closed then; what it raised."""
    raised: list[OSError] = []

    def run() -> None:
        with one, other:
            try:
                relay(one, other)
            except OSError as error:
                raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield raised
    thread.join(SECONDS)
    assert not thread.is_alive()


def ends() -> tuple[socket.socket, socket.socket, socket.socket, socket.socket]:
    """A client, the two ends of a relay, and a server."""
    client, one = loopback_pair()
    other, server = loopback_pair()
    for sock in (client, server):
        sock.settimeout(SECONDS)
    return client, one, other, server


# A server that answers and closes while its client still sends.


def test_without_a_relay_all_last_words_arrive(server: Server) -> None:
    assert_all_heard(lambda: socket.create_connection(("127.0.0.1", server.port)))


def test_all_last_words_arrive_through_a_forward(stage: Stage, server: Server) -> None:
    stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
    assert_all_heard(lambda: stage.link.dial(ADDRESS, 5432))


def test_all_last_words_arrive_through_a_forward_of_what_is_in_tls(
    stage: Stage, server: Server
) -> None:
    stage.tls_route("api.test", forward(f"tcp://127.0.0.1:{server.port}"))
    assert_all_heard(stage.tls)


def test_all_last_words_arrive_of_a_server_that_speaks_tls(stage: Stage, outside: Outside) -> None:
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # those that a client has not read take the last words with them
    other.issue_cert("real.test").configure_cert(context)
    other.configure_trust(stage.gateway.upstreams.tls)
    with contextlib.closing(Server(context, listener=outside.listen(8443))):
        stage.tls_route("real.test:8443", forward())
        address = stage.resolve("real.test")
        assert_all_heard(lambda: stage.tls("real.test", address, 8443))


def test_all_last_words_arrive_through_an_ingress(server: Server) -> None:
    ingress = Ingress(lambda: socket.create_connection(("127.0.0.1", server.port)))
    with contextlib.closing(ingress):
        assert_all_heard(lambda: socket.create_connection(ingress.address))


def test_all_last_words_arrive_over_a_stream_link(server: Server) -> None:
    scene = Scene()
    heard = []
    with contextlib.closing(scene):
        for _ in range(TIMES):
            client, ours = scene.dial()
            upstream = socket.create_connection(("127.0.0.1", server.port))
            with client, relayed(ours, upstream):
                heard.append(hear_out(client))
    assert heard.count(LAST_WORDS) == TIMES


def test_last_words_may_be_more_than_buffers_hold(stage: Stage) -> None:
    words = bytes(range(256)) * 40_000
    with contextlib.closing(Server(words=words)) as server:
        stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
        with stage.link.dial(ADDRESS, 5432) as sock:
            assert hear_out(sock) == words


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
def test_all_last_words_reach_a_container(clients_image: str, server: Server, link: str) -> None:
    code = SENDER.format(times=TIMES, words=LAST_WORDS)
    with Egress(session=Session(link=link)) as egress:
        egress.intercept_tcp("db.test:6379", forward(f"tcp://127.0.0.1:{server.port}"))
        done = egress.run(clients_image, ["python3", "-c", code], timeout=120, check=True)
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


# How each end is passed on.


def test_a_server_that_resets_resets_its_client_after_what_it_said() -> None:
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        server.sendall(b"that is")
        assert client.recv(7) == b"that is"
        server.sendall(b" all")
        reset(server)
        assert client.recv(100) == b" all"
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert len(raised) == 1


def test_a_client_that_resets_resets_its_server_after_what_it_said() -> None:
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        client.sendall(b"that is all")
        reset(client)
        assert server.recv(100) == b"that is all"
        with pytest.raises(ConnectionResetError):
            server.recv(1)
    assert len(raised) == 1


def test_a_reset_without_a_word_is_a_reset(stage: Stage) -> None:
    with contextlib.closing(Server(words=b"")) as server:
        stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
        client = stage.dial(port=5432)
        client.sendall(b"four and more")
        assert end_of(client) == "reset"


def test_an_end_without_a_reset_is_none(stage: Stage, server: Server) -> None:
    stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
    client = stage.dial(port=5432)
    client.sendall(b"four")
    assert client.recv(100) == LAST_WORDS
    assert end_of(client) == "closed"


def test_what_a_client_sends_after_the_servers_end_is_still_passed_on() -> None:
    client, one, other, server = ends()
    with client, server, relayed(one, other) as raised:
        server.sendall(b"bye")
        server.shutdown(socket.SHUT_WR)
        assert client.recv(3) == b"bye"
        assert client.recv(1) == b""
        client.sendall(b"one more")
        client.close()
        assert server.recv(100) == b"one more"
        assert server.recv(1) == b""
    assert raised == []


def test_a_client_that_reads_nothing_holds_a_relay_no_longer_than_a_while() -> None:
    client, one, other, server = ends()
    with client, relayed(one, other) as raised:
        server.sendall(
            bytes(1 << 20)
        )  # less than the relay's socket holds, and more than the client's
        assert eventually(lambda: not unsent(server) and unsent(one))
        client.shutdown(socket.SHUT_WR)
        reset(server)
        assert eventually(lambda: raised)
    assert len(raised) == 1
