"""What a target's kernel is told to refuse and drop, and what becomes of the dials that it tells of."""

from __future__ import annotations

import itertools
import random
import socket
import struct
from ipaddress import ip_network
from typing import Any

import pytest

import pytest_egress.gateway.dials as module
from pytest_egress import blackhole, refuse, sequence
from pytest_egress.agent import netlink
from pytest_egress.agent.dials import INSERT, REPLACE, RULE
from pytest_egress.errors import LinkError
from pytest_egress.gateway.dials import (
    SAME_TRY,
    TOO_LATE,
    VERDICTS,
    Deciding,
    verdict_of,
)
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.link.changes import DialRule, Verdict
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import keyed_on, opening
from pytest_egress.traffic.entries import TcpConnection
from tests.support.stage import ADDRESS, FIRST, SECONDS, NoPort, Stage, end_of, greets

FIRST6 = "fd00:198:18::1"  # of the first name that a target looks up
REFUSED, DROPPED, CAPTURED = Verdict.REFUSED, Verdict.DROPPED, Verdict.CAPTURED
PREFIX = {REFUSED: b"refused\0", DROPPED: b"dropped\0"}


@pytest.fixture
def scene(stage: Stage) -> Stage:
    """A stage whose routes tell the gateway of each change, as a session has it."""

    def revise() -> None:
        stage.gateway.revise()

    stage.ledger.routes_changed = revise
    stage.ledger.turns_changed = stage.gateway.dials.apply
    return stage


def told(stage: Stage) -> list[DialRule]:
    """The rules that the kernel has by now."""
    rules: list[DialRule] = []
    for change in stage.link.changes:
        new = [rule_of(*fields) for fields in RULE.iter_unpack(change[1:])]
        rules = {REPLACE: new, INSERT: new + rules}[change[:1]]
    return rules


def rule_of(
    kind: int, version: int, prefix: int, port: int, begins: bytes, address: bytes
) -> DialRule:
    packed = address[:4] if version == 4 else address
    network = ip_network((packed, prefix))
    return DialRule(Verdict(kind), network, port or None, begins.rstrip(b"\0"))


def shown(stage: Stage) -> list[str]:
    return [f"{rule.verdict.name} {rule.network} {rule.port}" for rule in told(stage)]


def decided(stage: Stage, address: str, port: int) -> Verdict:
    """What the kernel does with a dial, by the rules that it has."""
    rules = [rule for rule in told(stage) if not rule.begins]
    return verdict_of(rules, DialRule(CAPTURED, ip_network(address), port))


class Kernel:
    """Dials as a kernel does, by the rules that it has, and logs those that it ends."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.numbers = stage, itertools.count()

    def dial(self, address: str, port: int, source: int | None = None) -> Verdict:
        """Dial, and wait until the gateway has read the log of it."""
        verdict = decided(self.stage, address, port)
        if verdict is not CAPTURED:
            self.log(verdict, address, port, source)
            self.stage.settle()
        return verdict

    def log(self, verdict: Verdict, address: str, port: int, source: int | None = None) -> None:
        number = next(self.numbers)
        source = 20000 + number if source is None else source
        data = log_of_dial(address, port, source, number, PREFIX[verdict])
        self.stage.link.packet_source.send(data)


def log_of_dial(address: str, port: int, source: int, number: int, prefix: bytes) -> bytes:
    """What the kernel's log says of the first packet of a connection."""
    segment = struct.pack("!HHIIBBHHH", source, port, source * 7, 0, 5 << 4, 2, 64240, 0, 0)
    if ":" in address:
        ends = socket.inet_pton(socket.AF_INET6, "fd00:213::2")
        header = struct.pack("!IHBB", 6 << 28, 20, 6, 64) + ends
        header += socket.inet_pton(socket.AF_INET6, address)
    else:
        ends = socket.inet_aton("10.213.0.2") + socket.inet_aton(address)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ends
    attributes = (
        netlink.attribute(9, header + segment)
        + netlink.attribute(10, prefix)
        + netlink.attribute(12, number.to_bytes(4, "big"))
    )
    return netlink.message(4 << 8, 0, bytes(4) + attributes)


def end_of_dial(stage: Stage) -> str:
    """How a connection ends, which may be before its client knows that it is there."""
    try:
        return end_of(stage.dial())
    except ConnectionResetError:
        return "reset"


# What the kernel is told.


def test_a_run_without_faults_of_connecting_tells_the_kernel_nothing(scene: Stage) -> None:
    scene.tcp("db.test:5432", greets)
    scene.tcp("db.test:5433").remove()
    scene.resolve("db.test")
    assert scene.link.changes == []


def test_a_name_is_refused_before_its_addresses_are_known_to_the_target(scene: Stage) -> None:
    scene.tcp("db.test:5432", refuse())
    assert told(scene) == []
    assert scene.resolve("db.test") == FIRST
    assert shown(scene) == [f"REFUSED {FIRST6}/128 5432", "REFUSED 198.18.0.1/32 5432"]


def test_a_name_that_was_looked_up_before_is_refused(scene: Stage) -> None:
    scene.resolve("db.test")
    route = scene.tcp("db.test", blackhole())
    assert shown(scene) == [f"DROPPED {FIRST6}/128 None", "DROPPED 198.18.0.1/32 None"]
    route.respond(greets)
    assert told(scene) == []


def test_a_name_of_a_dns_route_is_refused_at_the_addresses_of_that(scene: Stage) -> None:
    scene.tcp("db.test:5432", refuse())
    scene.route("dns", "db.test", ["192.0.2.1", "2001:db8::1"])
    scene.query("db.test")
    assert decided(scene, "192.0.2.1", 5432) is REFUSED
    assert decided(scene, "192.0.2.1", 5433) is CAPTURED
    scene.query("db.test", "AAAA")
    assert decided(scene, "2001:db8::1", 5432) is REFUSED


def test_networks_and_every_address_are_rules_of_their_own(scene: Stage) -> None:
    scene.tcp("*", refuse())
    scene.tcp("192.0.2.0/24:80", blackhole())
    scene.http("192.0.2.7:80")
    assert shown(scene) == [
        "CAPTURED 192.0.2.7/32 80",
        "DROPPED 192.0.2.0/24 80",
        "REFUSED 0.0.0.0/0 None",
        "REFUSED ::/0 None",
    ]


def test_a_new_name_comes_before_what_the_kernel_has(scene: Stage) -> None:
    scene.tcp("*.test:5432", refuse())
    for name in ("a.test", "b.test", "c.test"):
        scene.resolve(name)
    assert [change[:1] for change in scene.link.changes[1:]] == [INSERT, INSERT]
    assert len(told(scene)) == 6


ADDRESSES = ("192.0.2.1", "192.0.2.130", "198.51.100.1", "2001:db8::1", "2001:db8:1::1")
NAMES = ("a.test", "b.test", "c.other.test")
PATTERNS = (
    *(*NAMES, "al.test"),
    *("*", "*.test", "*.other.test", "192.0.2.0/24", "192.0.2.128/25", "192.0.2.1"),
    *("2001:db8::/32", "2001:db8::1", "198.18.0.0/15"),
)
ANSWERS: tuple[Any, ...] = (refuse(), blackhole(), greets, sequence(refuse(), greets))


@pytest.mark.parametrize("seed", range(60))
def test_the_kernel_decides_as_the_routes_do(scene: Stage, seed: int) -> None:
    """For any routes of two kinds, whatever was dialled."""
    chance = random.Random(seed)
    given: dict[str, tuple[str, ...]] = {scene.resolve(name): (name,) for name in NAMES}
    scene.route("dns", "al.test", CNAME="a.test")
    given[str(scene.query("al.test").answer[-1][0])] = "al.test", "a.test"
    routes: list[InnerRoute] = []
    for _ in range(chance.randint(1, 8)):
        address = chance.choice(PATTERNS)
        ports = chance.choice(("*", "80", "443"))
        bracketed = f"[{address}]" if ":" in address else address
        if chance.random() < 0.25:
            routes.append(scene.http(f"{bracketed}:{ports}"))
        else:
            routes.append(scene.tcp(f"{bracketed}:{ports}", chance.choice(ANSWERS)))
    if chance.random() < 0.5:
        chance.choice(routes).remove()
    dials = itertools.product((*ADDRESSES, *given), (80, 443, 5432))
    for address, port in dials:
        host = keyed_on([scene.table], (*given.get(address, ()), address), port)
        route = opening([scene.table], host, port)
        fault = route.turns.next_fault if route else None
        expected = VERDICTS[fault] if fault else CAPTURED
        assert decided(scene, address, port) is expected, (address, port, [*map(str, routes)])


def test_a_declaration_looks_at_no_other_route(
    scene: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        scene.tcp(f"host{number}.test:5432", greets)
    scene.tcp("db.test:5432", refuse())
    scene.resolve("db.test")
    looks: list[str] = []
    covers = InnerRoute.covers

    def counted(route: InnerRoute, host: str, port: int) -> bool:
        looks.append(host)
        return covers(route, host, port)

    monkeypatch.setattr(InnerRoute, "covers", counted)
    scene.tcp("other.test:5432", greets)
    assert len(looks) < 20


# Dials.


def test_a_refused_dial_is_a_call(scene: Stage) -> None:
    route = scene.tcp("db.test:5432", refuse())
    scene.resolve("db.test")
    kernel = Kernel(scene)
    assert [kernel.dial(FIRST, 5432) for _ in range(3)] == [REFUSED] * 3
    assert len(route.calls) == 3
    call = route.calls[0]
    assert (call.host, call.address, call.fault, call.outcome) == (
        *("db.test", FIRST, refuse(), "routed"),
    )
    assert outcome_text(call) == "TCP db.test:5432 (198.18.0.1) -> refuse()"


def test_the_repetition_of_a_dropped_packet_is_no_other_call(scene: Stage) -> None:
    route = scene.tcp(ADDRESS, blackhole())
    kernel = Kernel(scene)
    for source in (4000, 4000, 4001, 4000):
        kernel.dial(ADDRESS, 443, source)
    assert len(route.calls) == 2
    assert len(scene.entries(TcpConnection)) == 2


def test_both_addresses_of_a_name_are_one_try_and_one_turn(scene: Stage) -> None:
    route = scene.tcp("db.test:5432", sequence(refuse(), refuse(), greets))
    scene.resolve("db.test")
    kernel = Kernel(scene)
    found = [kernel.dial(address, 5432) for _ in range(3) for address in (FIRST6, FIRST)]
    assert found == [REFUSED] * 4 + [CAPTURED] * 2
    assert [call.address for call in route.calls] == [FIRST6] * 2
    others = [entry for entry in scene.entries(TcpConnection) if entry not in route.calls]
    assert {(entry.outcome, entry.note, entry.address) for entry in others} == {
        ("recorded", SAME_TRY, FIRST)
    }


def test_a_fault_with_times_gives_way_to_the_next_route(scene: Stage) -> None:
    scene.tcp("db.test:5432", greets)
    route = scene.tcp("db.test:5432", refuse(), times=1)
    scene.resolve("db.test")
    kernel = Kernel(scene)
    found = [kernel.dial(address, 5432) for address in (FIRST6, FIRST, FIRST6, FIRST)]
    assert found == [REFUSED, REFUSED, CAPTURED, CAPTURED]
    assert len(route.calls) == 1


def test_a_client_of_one_address_takes_a_turn_by_each_dial(scene: Stage) -> None:
    route = scene.tcp("db.test:5432", sequence(refuse(), refuse(), greets))
    scene.resolve("db.test")
    kernel = Kernel(scene)
    assert [kernel.dial(FIRST, 5432) for _ in range(3)] == [REFUSED, REFUSED, CAPTURED]
    assert len(route.calls) == 2


def test_a_try_that_is_long_over_is_not_gone_on_with(
    scene: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = scene.tcp("db.test:5432", refuse())
    scene.resolve("db.test")
    kernel = Kernel(scene)
    monkeypatch.setitem(module.TRY_SECONDS, refuse(), 0.0)
    for address in (FIRST6, FIRST):
        kernel.dial(address, 5432)
    assert len(route.calls) == 2


def test_another_answer_ends_the_tries_of_the_one_before(scene: Stage) -> None:
    route = scene.tcp("db.test:5432", refuse())
    scene.resolve("db.test")
    kernel = Kernel(scene)
    assert kernel.dial(FIRST6, 5432) is REFUSED
    route.respond(greets)
    assert kernel.dial(FIRST, 5432) is CAPTURED


def test_a_dial_that_came_before_the_next_rules_is_no_call(scene: Stage) -> None:
    route = scene.tcp(f"{ADDRESS}:443", sequence(refuse(), greets))
    kernel = Kernel(scene)
    kernel.log(REFUSED, ADDRESS, 443)
    kernel.log(REFUSED, ADDRESS, 443)
    first, late = scene.entries(TcpConnection)
    assert route.calls == [first]
    assert (late.outcome, late.note) == ("recorded", TOO_LATE.format(fault=refuse()))
    assert decided(scene, ADDRESS, 443) is CAPTURED


def test_a_dropped_packet_is_not_let_in_when_it_comes_again(scene: Stage) -> None:
    scene.tcp(f"{ADDRESS}:443", sequence(blackhole(), greets))
    kernel = Kernel(scene)
    assert kernel.dial(ADDRESS, 443, 4000) is DROPPED
    (swallowed,) = (rule for rule in told(scene) if rule.begins)
    assert (swallowed.verdict, str(swallowed.network)) == (Verdict.SWALLOWED, f"{ADDRESS}/32")
    assert swallowed.begins == struct.pack("!HHI", 4000, 443, 28000)
    assert kernel.dial(ADDRESS, 443) is CAPTURED


def test_dials_that_were_lost_on_the_way_fail_the_test(scene: Stage) -> None:
    route = scene.tcp(f"{ADDRESS}:443", sequence(refuse(), refuse(), greets))
    kernel = Kernel(scene)
    next(kernel.numbers)
    kernel.dial(ADDRESS, 443)
    assert len(route.calls) == 1
    assert scene.window.unrecorded == 1
    assert decided(scene, ADDRESS, 443) is REFUSED  # no turn is lost with it


# Connections.


def test_a_connection_takes_a_turn_and_the_fault_after_it_is_in_force_at_its_answer(
    scene: Stage,
) -> None:
    ruled: list[Verdict] = []

    def handler(sock: socket.socket) -> None:
        ruled.append(decided(scene, ADDRESS, 443))
        sock.sendall(b"ready")

    scene.tcp(f"{ADDRESS}:443", sequence(handler, refuse()))
    assert decided(scene, ADDRESS, 443) is CAPTURED
    assert scene.dial().recv(100) == b"ready"
    assert ruled == [REFUSED]


def test_a_connection_that_the_fault_came_too_late_for_is_reset_and_no_call(scene: Stage) -> None:
    route = scene.tcp(f"{ADDRESS}:443", sequence(refuse(), greets))
    assert end_of_dial(scene) == "reset"
    entry = scene.only(TcpConnection)
    assert (entry.outcome, entry.fault) == ("recorded", refuse())
    assert entry.note == "connected before refuse() was in force, and was reset; it is no call"
    assert route.calls == []
    assert decided(scene, ADDRESS, 443) is REFUSED


def test_an_outage_cuts_what_lives_and_a_sequence_does_not(scene: Stage) -> None:
    lives = scene.tcp(f"{ADDRESS}:443", sequence(b"ready", refuse(), b"again"))
    sock = scene.dial()
    assert sock.recv(100) == b"ready"
    scene.tcp("other.test:5432", refuse(), optional=True)
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(SECONDS)
    lives.respond(blackhole())
    end_of(sock)
    assert decided(scene, ADDRESS, 443) is DROPPED


# Failures.


def test_a_kernel_that_does_not_do_it_fails_the_test_and_lets_nothing_in(scene: Stage) -> None:
    scene.link.refusal = "The target's kernel does not refuse or drop connections: no."
    scene.tcp(ADDRESS, refuse())
    with pytest.raises(LinkError, match=r"no\.$"):
        scene.gateway.dials.check()
    assert scene.window.complaints == [f"target: {scene.link.refusal}"]
    assert end_of_dial(scene) == "reset"
    scene.link.refusal = ""
    scene.gateway.revise()
    scene.gateway.dials.check()
    assert decided(scene, ADDRESS, 443) is REFUSED
    scene.window.complaints.clear()


def test_more_rules_than_a_kernel_takes_are_an_error_that_says_so(
    scene: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.agent.dials.MAX_RULES", 3)
    for number in range(4):
        scene.tcp(f"192.0.2.{number}", refuse())
    with pytest.raises(LinkError, match=r"that takes 4 rules .*, and 3 are the most\. Declare"):
        scene.gateway.dials.check()
    scene.window.complaints.clear()


def test_rules_of_no_route_are_none() -> None:
    assert Deciding([], {}, 0.0).named(["db.test"], FIRST) == []


def test_a_pattern_refuses_no_dial_of_a_containers_name(scene: Stage) -> None:
    scene.tcp("*:5432", refuse(), optional=True)
    scene.tcp("d*:443", blackhole(), optional=True)
    scene.resolve("db")
    assert [decided(scene, FIRST, port) for port in (5432, 443)] == [REFUSED, DROPPED]
    scene.containers = {"db": [NoPort()]}
    scene.gateway.revise()
    assert [decided(scene, FIRST, port) for port in (5432, 443)] == [CAPTURED, CAPTURED]
    assert decided(scene, ADDRESS, 5432) is REFUSED
    scene.tcp("db:5432", refuse(), optional=True)
    assert decided(scene, FIRST, 5432) is REFUSED
