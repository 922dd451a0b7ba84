"""The load: sends one request after the other for a while; prints how many were answered, and seconds.

Runs alone, in a container and with the standard library: raw bytes over TLS 1.3, so that the client
costs little and the same for every server. Several connections at once are kept alive by one process, which sends on
all of them and then reads all answers; new ones are made by a process each.

usage: client.py HOST PORT keep-alive|new SECONDS [AT_ONCE [PATH]]
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

SERVER_NAME = "api.test"
PATH = sys.argv[6] if len(sys.argv) > 6 else "/"
REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n".encode()
PATIENCE_SECONDS = 30  # for a server that is still starting


def main() -> None:
    # Looked up once: not what is compared, and the servers on loopback have no name.
    address = (socket.gethostbyname(sys.argv[1]), int(sys.argv[2]))
    measure = {"keep-alive": on_kept_connections, "new": on_new_connections}[sys.argv[3]]
    await_server(address)
    print(*measure(address, float(sys.argv[4]), int(sys.argv[5]) if len(sys.argv) > 5 else 1))


def client_context() -> ssl.SSLContext:
    # Unverified: what the client thinks of a certificate is not what is compared.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context


CONTEXT = client_context()


def await_server(address: tuple[str, int]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return request_once(address)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def on_kept_connections(
    address: tuple[str, int], seconds: float, at_once: int
) -> tuple[int, float]:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(address)) for _ in range(at_once)]
        count, elapsed = repeat(lambda: ask_all(connections), seconds)
        return count * at_once, elapsed


def on_new_connections(address: tuple[str, int], seconds: float, at_once: int) -> tuple[int, float]:
    if at_once == 1:
        return repeat(lambda: request_once(address), seconds)
    with ProcessPoolExecutor(at_once) as pool:
        together = [pool.submit(on_new_connections, address, seconds, 1) for _ in range(at_once)]
        counts, times = zip(*(each.result() for each in together), strict=True)
        return sum(counts), max(times)


def repeat(action: Callable[[], None], seconds: float) -> tuple[int, float]:
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        action()
        count += 1
    return count, elapsed


def request_once(address: tuple[str, int]) -> None:
    with connect(address) as connection:
        ask(connection)


def connect(address: tuple[str, int]) -> ssl.SSLSocket:
    sock = socket.create_connection(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return CONTEXT.wrap_socket(sock, server_hostname=SERVER_NAME)


def ask(connection: ssl.SSLSocket) -> None:
    ask_all([connection])


def ask_all(connections: list[ssl.SSLSocket]) -> None:
    for connection in connections:
        connection.sendall(REQUEST)
    for connection in connections:
        read_answer(connection)


def read_answer(connection: ssl.SSLSocket) -> None:
    received = connection.recv(65536)
    while b"\r\n\r\n" not in received:
        received += more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"not the answer: {received!r}")
    missing = content_length(head) - len(body)
    while missing > 0:
        missing -= len(more(connection))


def more(connection: ssl.SSLSocket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise RuntimeError("the server closed within a response")
    return data


def content_length(head: bytes) -> int:
    return int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])


if __name__ == "__main__":
    main()
