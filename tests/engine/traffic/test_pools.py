"""Clients that keep connections, in containers: more than there are threads, and longer than they are used."""

from __future__ import annotations

import textwrap

import pytest

from pytest_egress import Egress
from pytest_egress.gateway.connections import MAX_CONNECTIONS

pytestmark = pytest.mark.engine

MANY = 1_500
assert MANY > MAX_CONNECTIONS

POOL = """
    import socket, ssl, sys
    secure = ssl.create_default_context()
    def connect():
        sock = socket.create_connection(("api.test", 443))
        return secure.wrap_socket(sock, server_hostname="api.test")
    def ask(sock):
        sock.sendall(b"GET / HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n")
        answer = b""
        while not answer.endswith(b"yes"):
            data = sock.recv(65536)
            if not data:
                return 0
            answer += data
        return 1
    socks = [connect() for _ in range(int(sys.argv[1]))]
    print(sum(map(ask, socks)))
"""

UNREAD = "require('https').get('https://api.test/', answer => console.log(answer.statusCode))"


def test_1500_connections_that_are_opened_first_and_used_afterwards_are_all_answered(
    egress: Egress, clients_image: str
) -> None:
    route = egress.intercept_https("api.test", b"yes")
    command = ["python3", "-c", textwrap.dedent(POOL), str(MANY)]
    done = egress.run(clients_image, command, timeout=300)
    assert done.stdout.split() == [str(MANY)]
    assert route.call_count == MANY


def test_a_node_program_that_does_not_read_its_answer_ends(
    egress: Egress, clients_image: str
) -> None:
    route = egress.intercept_https("api.test", {"answer": 42})
    done = egress.run(clients_image, ["node", "-e", UNREAD], timeout=60)
    assert done.stdout.strip() == "200"
    assert route.call_count == 1
