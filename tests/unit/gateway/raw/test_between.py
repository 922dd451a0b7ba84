"""Connections between containers of one network: they are copied, told apart from egress, and led by exact routes."""

from __future__ import annotations

import socket

import pytest

from pytest_egress.evidence.destinations import sightings
from pytest_egress.ledger.encryption import weak
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.traffic.entries import DnsQuery, TcpConnection
from tests.support.echo import Echo, end_of_dial, read_line, read_to_end
from tests.support.stage import ADDRESS, FIRST, Stage, end_of, eventually

pytestmark = pytest.mark.usefixtures("no_first_byte")


class NamedPort:
    """A container whose port 5432 is a port of this machine."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self._port = name, port

    def connect(self, port: int, timeout: float = 5) -> socket.socket:
        assert port == 5432
        return socket.create_connection(("127.0.0.1", self._port), timeout)


@pytest.fixture
def closed() -> int:
    """A port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_a_connection_to_a_container_is_copied_and_is_no_egress(stage: Stage, echo: Echo) -> None:
    stage.containers = {"db": [NamedPort("postgres", echo.port)]}
    client = stage.dial(stage.resolve("db"), 5432)
    client.sendall(b"x" * 1_000_000)
    client.shutdown(socket.SHUT_WR)
    assert len(read_to_end(client)) == 1_000_000
    entry = stage.only(TcpConnection)
    assert eventually(lambda: entry.duration is not None)
    assert (entry.outcome, entry.host, entry.between) == ("recorded", "db", "postgres")
    assert (entry.sent, entry.received, entry.content) == (1_000_000, 1_000_000, b"")
    assert judge(stage.window, []) is None
    assert not weak([entry], 0, [])
    assert entry.to_dict()["between"] == "postgres"
    assert not sightings(stage.window.entries, {})


def test_an_open_connection_keeps_no_window_open(stage: Stage, echo: Echo) -> None:
    stage.containers = {"db": [NamedPort("postgres", echo.port)]}
    client = stage.dial(stage.resolve("db"), 5432)
    client.sendall(b"select 1\n")
    assert read_line(client) == b"select 1\n"
    stage.settle()
    stage.next_window()
    assert not stage.gateway.revise(test_over=True)
    client.sendall(b"select 2\n")
    assert read_line(client) == b"select 2\n"


def test_a_port_without_a_listener_resets_the_client_and_is_noted(
    stage: Stage, closed: int
) -> None:
    stage.containers = {"db": [NamedPort("postgres", closed)]}
    assert end_of_dial(stage, stage.resolve("db")) == "reset"
    entry = stage.only(TcpConnection)
    assert entry.note.startswith("port 5432 of postgres cannot be reached: ")
    assert (entry.outcome, judge(stage.window, [])) == ("recorded", None)


def test_of_several_containers_one_that_listens_is_taken(
    stage: Stage, echo: Echo, closed: int
) -> None:
    refusing = [NamedPort(f"web#{n}", closed) for n in range(5)]
    stage.containers = {"web": [*refusing, NamedPort("web#6", echo.port)]}
    client = stage.dial(stage.resolve("web"), 5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"hello\n"
    assert stage.only(TcpConnection).between == "web#6"


def test_a_route_for_the_name_comes_between_and_a_pattern_does_not(
    stage: Stage, echo: Echo
) -> None:
    stage.containers = {"db": [NamedPort("postgres", echo.port)]}
    stage.tcp("*:5432", b"by pattern\n")
    client = stage.dial(stage.resolve("db"), 5432)
    client.sendall(b"select 1\n")
    assert read_line(client) == b"select 1\n"
    stage.tcp("other:5432", b"other\n")
    stage.tcp("db:5433", b"other\n")
    client.sendall(b"select 2\n")
    assert read_line(client) == b"select 2\n"
    route = stage.tcp("db:5432", b"by route\n")
    assert end_of(client) == "closed"  # a pool dials again
    assert read_line(stage.dial(stage.resolve("db"), 5432)) == b"by route\n"
    route.remove()
    client = stage.dial(stage.resolve("db"), 5432)
    client.sendall(b"select 3\n")
    assert read_line(client) == b"select 3\n"


def test_a_lookup_alone_of_a_containers_name_is_no_destination(stage: Stage) -> None:
    stage.containers = {"db": [NamedPort("postgres", 1)]}
    stage.resolve("db")
    stage.resolve("dc")
    assert [line.where for line in sightings(stage.window.entries, {})] == ["dc"]


def test_names_of_containers_exist_by_strict_dns(stage: Stage, echo: Echo) -> None:
    stage.window.dns = "strict"
    stage.containers = {"db": [NamedPort("postgres", echo.port)]}
    assert stage.resolve("db")
    assert [query.outcome for query in stage.entries(DnsQuery)] == ["recorded"]
    assert stage.query("dc").rcode().name == "NXDOMAIN"


def test_an_address_is_no_name_of_a_container(stage: Stage, echo: Echo) -> None:
    stage.containers = {ADDRESS: [NamedPort("postgres", echo.port)]}
    client = stage.dial(ADDRESS, 5432)
    client.sendall(b"select 1\n")
    assert end_of(client) == "reset"
    entry = stage.only(TcpConnection)
    assert (entry.outcome, entry.between) == ("unrouted", "")


@pytest.mark.parametrize("kind", ["intercept_tcp", "passthrough"])
def test_what_a_route_passes_on_to_the_real_server_goes_to_the_container(
    stage: Stage, echo: Echo, closed: int, kind: str
) -> None:
    stage.containers = {"db": [NamedPort("closed", closed), NamedPort("postgres", echo.port)]}
    answer = forward() if kind == "intercept_tcp" else None
    route = stage.route(kind, "db:5432", answer)
    client = stage.dial(stage.resolve("db"), 5432)
    client.sendall(b"select 1\n")
    assert read_line(client) == b"select 1\n"
    assert len(route.calls) == 1


def test_a_pattern_answers_no_dns_for_a_containers_name(stage: Stage, echo: Echo) -> None:
    stage.containers = {"db": [NamedPort("postgres", echo.port)]}
    stage.route("dns", "*", "NXDOMAIN", optional=True)
    assert stage.resolve("db") == FIRST
    assert stage.query("dc").rcode().name == "NXDOMAIN"
    stage.route("dns", "db", "NXDOMAIN")
    assert stage.query("db").rcode().name == "NXDOMAIN"
