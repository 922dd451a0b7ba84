"""`refuse()` and `blackhole()`: what the clients in a container see, over both links and by both families."""

from __future__ import annotations

import contextlib
import socket
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pytest_egress import Egress, Route, blackhole, forward, refuse, sequence
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.ledger.windows import Window
from pytest_egress.link.changes import Verdict
from pytest_egress.session import Session
from pytest_egress.targets.container import Container
from pytest_egress.traffic.entries import TcpConnection
from tests.support.clients import python
from tests.support.stage import SECONDS, eventually

LINKS = ["descriptor", "stream"]

PREAMBLE = '''
import errno, socket, sys, time

def dial(host, port, seconds=20):
    """What connect(2) says, to the addresses of a name one after the other, and what the server says."""
    try:
        with socket.create_connection((host, port), seconds) as sock:
            return sock.recv(100).decode()
    except TimeoutError:
        return "timed out"
    except OSError as error:
        return errno.errorcode[error.errno]

def dial_one(address, port, seconds=20):
    """What connect(2) says to one address, without a look-up."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(seconds)
        try:
            sock.connect((address, port))
        except TimeoutError:
            return "timed out"
        except OSError as error:
            return errno.errorcode[error.errno]
        return "connected"

def addresses(host, port):
    return [found[4][0] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
'''


class Outage:
    """A test of a container that is there already."""

    def __init__(self, module: Egress, container: Container) -> None:
        self.session, self.container = module._inner.session, container
        self.window: Window = self.session.open_window()
        self.egress = Egress(session=self.session, parent=module)

    def python(self, code: str) -> list[str]:
        """What a client prints, line by line."""
        return python(self.container, PREAMBLE + textwrap.dedent(code)).splitlines()

    def connections(self) -> list[TcpConnection]:
        """Those of the test so far."""
        self.container.gateway.settle()
        return [entry for entry in self.window.entries if isinstance(entry, TcpConnection)]

    def timeline(self) -> list[str]:
        """The lines about them."""
        return [outcome_text(entry) for entry in self.connections()]

    def close(self) -> None:
        """End it; nothing that it did may be taken for tampering, or fail it in another way."""
        self.session.close_window(self.window)
        verdict = judge(self.window, [])
        self.egress.close()
        assert verdict is None
        assert self.window.complaints == []
        assert self.window.unrecorded == 0


@pytest.fixture(scope="module", params=LINKS)
def module(request: pytest.FixtureRequest) -> Iterator[Egress]:
    session = Session(link=request.param)
    with contextlib.closing(session), Egress(session=session, scope="module") as egress:
        yield egress


@pytest.fixture(scope="module")
def container(module: Egress, clients_image: str) -> Any:
    return module.start(clients_image, ["sleep", "600"])


@pytest.fixture
def scene(module: Egress, container: Container) -> Iterator[Outage]:
    scene = Outage(module, container)
    try:
        yield scene
    finally:
        scene.close()


def greets(sock: socket.socket) -> None:
    sock.sendall(b"ready")


@contextlib.contextmanager
def database() -> Iterator[int]:
    """A server of this process that greets one client; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as sock:
                sock.sendall(b"ready")

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join(SECONDS)


def test_a_refused_name_is_refused_by_the_kernel_at_each_of_its_addresses(scene: Outage) -> None:
    route = scene.egress.intercept_tcp("db.test:5432", refuse())
    scene.egress.intercept_tcp("db.test:5433", greets)
    found = scene.python(
        """
        print(dial("db.test", 5432))
        print(*(dial_one(address, 5432) for address in addresses("db.test", 5432)))
        print(dial("db.test", 5433))
        """
    )
    assert found == ["ECONNREFUSED", "ECONNREFUSED ECONNREFUSED", "ready"]
    first, same, second, again, _other = scene.connections()
    assert route.calls == [first, second]
    assert {first.address, same.address} == {second.address, again.address}
    assert first.fault == refuse()
    assert [":" in entry.address for entry in (first, same)].count(True) == 1
    assert outcome_text(first) == f"TCP db.test:5432 ({first.address}) -> refuse()"


def test_nobody_answers_a_dial_into_a_black_hole(scene: Outage) -> None:
    route = scene.egress.intercept_tcp("db.test", blackhole())
    found = scene.python(
        """
        print(*(dial_one(address, 7, 1.5) for address in addresses("db.test", 7)))
        """
    )
    assert found == ["timed out timed out"]
    assert [call.fault for call in route.calls] == [blackhole()]
    assert len(scene.connections()) == 2  # each first packet came twice


@pytest.mark.parametrize(
    ("address", "refused", "free"),
    [
        ("192.0.2.7:5432", "192.0.2.7", "192.0.2.8"),
        ("[2001:db8::7]:5432", "2001:db8::7", "2001:db8::8"),
        ("192.0.2.0/25:5432", "192.0.2.127", "192.0.2.128"),
        ("[2001:db8:1::/48]:5432", "2001:db8:1::9", "2001:db8:2::9"),
    ],
)
def test_addresses_and_networks_are_refused(
    scene: Outage, address: str, refused: str, free: str
) -> None:
    scene.egress.intercept_tcp("*:5432", greets)
    scene.egress.intercept_tcp("*:5433", greets)
    scene.egress.intercept_tcp(address, refuse())
    found = scene.python(
        f"""
        print(dial_one("{refused}", 5432), dial("{refused}", 5433), dial("{free}", 5432))
        """
    )
    assert found == ["ECONNREFUSED ready ready"]


def test_what_is_more_specific_is_answered_where_all_others_are_refused(scene: Outage) -> None:
    scene.egress.intercept_tcp("*", refuse())
    scene.egress.intercept_tcp("db.test:5432", greets)
    scene.egress.intercept_tcp("*.svc.test:5432", blackhole())
    scene.egress.intercept_tcp("a.svc.test:5432", greets)
    scene.egress.intercept_https("api.test")
    found = scene.python(
        """
        print(dial("db.test", 5432), dial("db.test", 5433), dial("other.test", 80))
        print(dial("a.svc.test", 5432), dial("b.svc.test", 5432, 0.3))
        print(dial_one("192.0.2.1", 1), dial_one("2001:db8::1", 1), dial_one("api.test", 443))
        """
    )
    assert found == [
        "ready ECONNREFUSED ECONNREFUSED",
        "ready timed out",
        "ECONNREFUSED ECONNREFUSED connected",
    ]


def test_a_route_of_the_test_goes_before_that_of_its_module(scene: Outage, module: Egress) -> None:
    wide = module.intercept_tcp("db.test:5432", refuse())
    own = scene.egress.intercept_tcp("*.test:5432", greets)
    dials = """
        print(dial("db.test", 5432))
        """
    assert scene.python(dials) == ["ready"]
    own.remove()
    assert scene.python(dials) == ["ECONNREFUSED"]
    assert wide.call_count == 1
    wide.remove()


def test_a_database_comes_up_third(scene: Outage) -> None:
    with database() as port:
        route = scene.egress.intercept_tcp(
            "db.test:5432", sequence(refuse(), refuse(), forward(f"tcp://127.0.0.1:{port}"))
        )
        found = scene.python(
            """
            while (said := dial("db.test", 5432)) != "ready":
                print(said)
                time.sleep(0.5)
            print(said)
            """
        )
    assert found == ["ECONNREFUSED", "ECONNREFUSED", "ready"]
    assert [call.fault for call in route.calls] == [refuse(), refuse(), None]


def test_the_repetition_of_a_lost_packet_stays_lost(scene: Outage) -> None:
    route = scene.egress.intercept_tcp("192.0.2.7:5432", sequence(blackhole(), greets))
    found = scene.python(
        """
        print(dial("192.0.2.7", 5432, 3.5), dial("192.0.2.7", 5432))
        """
    )
    assert found == ["timed out ready"]
    assert [call.fault for call in route.calls] == [blackhole(), None]


def test_a_fault_comes_after_a_connection(scene: Outage) -> None:
    route = scene.egress.intercept_tcp("db.test:5432", sequence(greets, refuse(), greets))
    found = scene.python(
        """
        print(dial("db.test", 5432), dial("db.test", 5432))
        time.sleep(0.5)
        print(dial("db.test", 5432))
        """
    )
    assert found == ["ready ECONNREFUSED", "ready"]
    # A connection is a call when its handler has ended, for which its client does not wait.
    calls = sorted(route.calls, key=lambda call: call.started)
    assert [call.fault for call in calls] == [None, refuse(), None]


def test_times_ends_a_fault_and_the_next_route_answers(scene: Outage) -> None:
    scene.egress.intercept_tcp("db.test:5432", greets)
    scene.egress.intercept_tcp("db.test:5432", refuse(), times=1)
    found = scene.python(
        """
        print(dial("db.test", 5432))
        time.sleep(0.5)
        print(dial("db.test", 5432))
        """
    )
    assert found == ["ECONNREFUSED", "ready"]


HOLDS = """
    held = socket.create_connection(("db.test", 5432), 60)
    print(held.recv(100).decode(), flush=True)
    try:
        print(repr(held.recv(100)))
    except OSError as error:
        print(errno.errorcode[error.errno])
    print(dial("db.test", 5432))
    while (said := dial("db.test", 5432)) == "ECONNREFUSED":
        time.sleep(0.05)
    print(said)
"""


def test_an_outage_cuts_what_lives_and_passes(scene: Outage) -> None:
    lives = threading.Event()

    def holds_on(sock: socket.socket) -> None:
        sock.sendall(b"ready")
        lives.set()
        sock.recv(1)

    route = scene.egress.intercept_tcp("db.test:5432", holds_on)
    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(scene.python, HOLDS)
        assert lives.wait(SECONDS)
        route.respond(refuse())
        assert eventually(lambda: any(call.fault == refuse() for call in route.calls))
        route.respond(greets)
        said = client.result(SECONDS)
    assert said[0] == "ready"
    assert said[1] in ("b''", "ECONNRESET")
    assert said[2:] == ["ECONNREFUSED", "ready"]


def test_each_dial_is_a_call(scene: Outage) -> None:
    route = scene.egress.intercept_tcp("db.test:5432", refuse())
    found = scene.python(
        """
        print({dial("db.test", 5432) for _ in range(100)})
        """
    )
    assert found == ["{'ECONNREFUSED'}"]
    scene.container.gateway.settle()
    assert route.call_count == 100


def test_a_flood_of_dials_is_recorded_and_no_tampering(scene: Outage) -> None:
    route = scene.egress.intercept_tcp("192.0.2.0/24", refuse())
    found = scene.python(
        """
        print({dial_one(f"192.0.2.{number % 256}", 1 + number) for number in range(5000)})
        """
    )
    assert found == ["{'ECONNREFUSED'}"]
    scene.container.gateway.settle()
    assert route.call_count == 5000
    route.respond(greets)
    route.respond(refuse())


def test_a_name_over_tcp_is_refused_too(scene: Outage) -> None:
    scene.egress.intercept_tcp("192.0.2.53:53", refuse())
    assert scene.python('print(dial_one("192.0.2.53", 53))') == ["ECONNREFUSED"]


def test_routes_that_are_declared_before_the_container_hold_from_its_start(
    module: Egress, container: Container, clients_image: str
) -> None:
    session = module._inner.session
    window = session.open_window()
    with Egress(session=session, parent=module) as egress:
        egress.intercept_tcp("db.test:5432", greets)
        route: Route[TcpConnection] = egress.intercept_tcp("db.test:5432", sequence(refuse()))
        unused = egress.intercept_tcp("cache.test:6379", refuse(), optional=True)
        code = PREAMBLE + 'print(dial("db.test", 5432))'
        assert egress.run(clients_image, ["python3", "-c", code]).stdout == "ECONNREFUSED\n"
        # A turn that one container has taken is gone for the others.
        assert route.call_count == 1
        assert python(container, code) == "ready"
        assert unused.call_count == 0
        session.close_window(window)
    left = {rule.verdict for rule in container.gateway.dials._in_force}
    assert left <= {Verdict.SWALLOWED}  # the repetitions of packets that other tests have dropped
