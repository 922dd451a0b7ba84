"""The load of raw connections: small echoes, one after the other, or one long download; prints a count and seconds.

Runs alone, in a container and with the standard library. It counts echoes, or bytes.

usage: relay_client.py HOST PORT echo|bulk SECONDS
"""

from __future__ import annotations

import socket
import sys
import time

PATIENCE_SECONDS = 30.0  # for a server that is still starting
MESSAGE = b"thirty-two bytes, there and back"


def main() -> None:
    host, port, mode, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    with connect((host, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(*{"echo": echo, "bulk": download}[mode](sock, seconds))


def connect(address: tuple[str, int]) -> socket.socket:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return socket.create_connection(address)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def echo(sock: socket.socket, seconds: float) -> tuple[int, float]:
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        sock.sendall(MESSAGE)
        missing = len(MESSAGE)
        while missing:
            missing -= len(received(sock.recv(missing)))
        count += 1
    return count, elapsed


def download(sock: socket.socket, seconds: float) -> tuple[int, float]:
    buffer = bytearray(1 << 20)
    sock.sendall(b"B")
    received(sock.recv(1, socket.MSG_PEEK))  # the clock starts when the bytes do
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        count += sock.recv_into(buffer)
    return count, elapsed


def received(data: bytes) -> bytes:
    if not data:
        raise RuntimeError("the server closed the connection")
    return data


if __name__ == "__main__":
    main()
