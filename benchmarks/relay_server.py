"""The upstream of raw connections: echoes what comes, or sends zeros without end to a client that sends a `B`.

usage: relay_server.py ADDRESS PORT
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

CHUNK = bytes(1 << 18)


def main() -> None:
    with socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(sock,), daemon=True).start()


def serve(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError), sock:
        while data := sock.recv(65536):
            while data == b"B":
                sock.sendall(CHUNK)
            sock.sendall(data)


if __name__ == "__main__":
    main()
