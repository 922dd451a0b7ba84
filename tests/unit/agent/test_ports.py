"""Which socket of a namespace takes datagrams of a port, by the kernel's own table."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from pytest_egress.agent import ports
from pytest_egress.agent.ports import connect_datagrams, listening

HEAD = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = "  1: {}:{:04X} {} {} 00000000:00000000 00:00000000 00000000     0        0 7 2 0 0\n"
NOBODY4, ANY6 = "00000000:0000", "0" * 32


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET, "127.0.0.5"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::"),
    ],
)
def test_a_server_is_reached_at_whichever_address_it_listens(family: int, address: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.settimeout(10)
        server.bind((address, 0))
        sock = connect_datagrams(server.getsockname()[1])
        sock.send(b"question")
        question, client = server.recvfrom(100)
        server.sendto(question[::-1], client)
        assert sock.recv(100) == b"noitseuq"
        sock.close()


def test_a_client_with_that_port_is_no_server() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", 9))
        port = client.getsockname()[1]
        with pytest.raises(ConnectionRefusedError) as caught:
            connect_datagrams(port)
    assert caught.value.errno == errno.ECONNREFUSED


def test_without_ipv6_a_server_of_both_is_reached_by_ipv4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"TABLE4": "", "TABLE6": ROW.format(ANY6, 514, f"{ANY6}:0000", "07")}
    for name, rows in tables.items():
        table = tmp_path / name
        table.write_text(HEAD + rows)
        monkeypatch.setattr(ports, name, str(table))
    assert [*listening(514)] == [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]
    assert [*listening(515)] == []


def test_a_kernel_without_ipv6_has_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "udp"
    own = "{:08X}".format(int.from_bytes(socket.inet_aton("10.213.0.2"), "little"))
    table.write_text(HEAD + ROW.format(own, 53, NOBODY4, "07"))
    monkeypatch.setattr(ports, "TABLE4", str(table))
    monkeypatch.setattr(ports, "TABLE6", str(tmp_path / "udp6"))
    assert [*listening(53)] == [(socket.AF_INET, "10.213.0.2")]
