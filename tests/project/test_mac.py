"""What the test process does on a Mac, in one that sees what macOS has; `make mac` runs containers in such a one."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.project import ROOT

SHIM = ROOT / "tests" / "support" / "mac"
LOADED = """
import pytest_egress.cli, pytest_egress.plugin, pytest_egress.session, pytest_egress.endpoint.server
import pytest_egress.commands.audit, pytest_egress.routes.raw.kafka_server
import pytest_egress.gateway.server as gateway
import pytest_egress.link.stream as link
from pytest_egress.base.polling import Poller, poller
"""
MISSING = """
for what in (lambda: gateway.select.epoll, lambda: gateway.socket.AF_NETLINK, lambda: gateway.os.pipe2):
    try:
        what()
    except AttributeError as error:
        print(error)
print(type(poller()) is Poller, gateway.sockets.descriptor_limit(), link.most_streams())
"""
COUNTED = """
import socket
from pytest_egress.base.acknowledged import unsent
from pytest_egress.gateway.tcp_info import ANYTHING, NOTHING, carried_so_far, traffic
from pytest_egress.link.stream_sockets import Listener
from tests.support.stage import reset
with Listener(1) as listener:
    end = listener.dial(("203.0.113.9", 443), ("10.213.0.2", 4000))
    sock, _ = listener.accept()
print(traffic(sock, NOTHING)[:2], sock.came)
end.send(b"abc")
sock.sendall(b"hello")
assert end.recv(9) == b"hello" and sock.recv(1) == b"a"
before = carried_so_far(sock)
print(before, traffic(sock, NOTHING)[:4], traffic(sock, before)[:2], unsent(sock), sock.came)
reset(end)
sock.recv(9)
print(traffic(sock, NOTHING) is ANYTHING, sock.came)
sock.close()
"""
OWN = """
from ipaddress import ip_address
from pytest_egress.gateway.upstream.reach import is_own, reserved
print([is_own(ip_address(each)) for each in ("127.0.0.1", "203.0.113.9", "2001:db8::9")], reserved("203.0.113.9"))
"""


@pytest.fixture(scope="module")
def printed() -> dict[str, list[str]]:
    """What each part of a program prints there, by lines: to compile the package takes more than a second."""
    parts = {"loaded": LOADED + MISSING, "counted": COUNTED, "own": OWN}
    code = "".join(f"print({name!r} * 3)\n{part}" for name, part in parts.items())
    environment = {**os.environ, "PYTHONPATH": f"{SHIM}:{ROOT}", "EGRESS_PORTABLE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = re.split("|".join(f"(?:{name * 3})" for name in parts), done.stdout)[1:]
    return {name: part.splitlines()[1:] for name, part in zip(parts, said, strict=True)}


def test_all_that_the_test_process_runs_can_be_imported(printed: dict[str, list[str]]) -> None:
    assert printed["loaded"] == [
        "macOS has no select.epoll",
        "macOS has no socket.AF_NETLINK",
        "macOS has no os.pipe2",
        "True 256 85",
    ]


def test_connections_are_counted_until_they_are_reset_and_then_by_the_link(
    printed: dict[str, list[str]],
) -> None:
    assert printed["counted"] == [
        "(False, False) 0",
        "Counts(heard=5, came=1, sent=5, received=1) (True, True, True, True) (True, False) 0 3",
        "True 3",
    ]


def test_an_address_is_this_machines_where_a_socket_can_be_bound_to_it(
    printed: dict[str, list[str]],
) -> None:
    assert printed["own"] == ["[True, False, False] "]
