"""The least that answers datagrams in Python: one socket, which sends each of them back.

usage: datagram_server.py PORT
"""

from __future__ import annotations

import socket
import sys


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", int(sys.argv[1])))
        while True:
            sock.sendto(*sock.recvfrom(65535))


if __name__ == "__main__":
    main()
