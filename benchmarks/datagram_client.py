"""The load of datagrams: sends one and waits for its answer, again and again; prints how many there were, and seconds.

usage: datagram_client.py HOST PORT SECONDS
"""

from __future__ import annotations

import socket
import sys
import time

CONTENT = b"a datagram of two hundred bytes ".ljust(200, b".")
PATIENCE_SECONDS = 15.0  # for a server that is still starting


def main() -> None:
    host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect((host, port))
        await_server(sock)
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            sock.send(CONTENT)
            assert sock.recv(65535) == CONTENT
            count += 1
        print(count, time.perf_counter() - began)


def await_server(sock: socket.socket) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            sock.send(CONTENT)
            sock.recv(65535)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


if __name__ == "__main__":
    main()
