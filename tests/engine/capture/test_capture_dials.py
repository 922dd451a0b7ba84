"""The dials that a namespace's own kernel refuses or drops when its link says so."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import docker
import pytest

from pytest_egress.agent.dials import MAX_RULES
from pytest_egress.errors import LinkError
from pytest_egress.link.changes import DialRule, Verdict, datagram_change, insertion, replacement
from pytest_egress.link.tampering import tampering
from pytest_egress.targets.sidecars.program import agent_archive
from pytest_egress.targets.sidecars.sidecar import AnyLink
from pytest_egress.traffic.packets import Packet
from tests.support.target_shell import (
    LINK,
    SECONDS,
    Target,
    captured_namespace,
    is_silent,
    packets,
    target_in,
)

CAPTURED, REFUSED, DROPPED, SWALLOWED, LET_OUT = Verdict
DIAL = """
def dial(address, port, seconds=10, source=0):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.settimeout(seconds)
    sock.bind(("", source))
    try:
        sock.connect((address, port))
    except TimeoutError:
        return "timed out"
    except OSError as error:
        return errno.errorcode[error.errno]
    return "connected"
"""


@pytest.fixture
def ruled(link: AnyLink) -> Iterator[AnyLink]:
    """The link of the module, which refuses nothing afterwards."""
    yield link
    link.change_dials(replacement([]))


def rule(verdict: Verdict, network: str, port: int | None = None) -> DialRule:
    return DialRule(verdict, ip_network(network), port)


def dialled(target: Target, *dials: str) -> list[str]:
    """What comes of dials, each the arguments of one."""
    calls = ", ".join(f"dial({each})" for each in dials)
    return target.python(DIAL + f"print({calls}, sep=',')").split(",")


def logged(link: AnyLink) -> list[tuple[str, str, int | None]]:
    link.flush(SECONDS)
    found: list[Packet] = []
    while more := packets(link):
        found += more
    return [(packet.prefix, packet.destination, packet.port) for packet in found]


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
        ("192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
        ("0.0.0.0/0", "192.0.2.1", "2001:db8::1"),
        ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ("2001:db8:8000::/33", "2001:db8:ffff::", "2001:db8::"),
        ("::/0", "2001:db8::1", "192.0.2.1"),
    ],
)
def test_a_network_is_refused_and_each_dial_is_logged(
    ruled: AnyLink, target: Target, network: str, inside: str, outside: str
) -> None:
    ruled.change_dials(replacement([rule(REFUSED, network, 80)]))
    dials = f"'{inside}', 80", f"'{inside}', 81", f"'{outside}', 80"
    assert dialled(target, *dials) == ["ECONNREFUSED", "connected", "connected"]
    assert logged(ruled) == [("refused", inside, 80)]


def test_the_first_rule_decides(ruled: AnyLink, target: Target) -> None:
    ruled.change_dials(replacement([rule(REFUSED, "192.0.2.0/24"), rule(CAPTURED, "0.0.0.0/0")]))
    ruled.change_dials(
        insertion([rule(CAPTURED, "192.0.2.1", 80), rule(DROPPED, "192.0.2.1", None)])
    )
    dials = "'192.0.2.1', 80", "'192.0.2.1', 81, 0.5", "'192.0.2.2', 81", "'198.51.100.1', 80"
    assert dialled(target, *dials) == ["connected", "timed out", "ECONNREFUSED", "connected"]


def test_a_dial_is_dropped_as_often_as_it_is_repeated(ruled: AnyLink, target: Target) -> None:
    ruled.change_dials(replacement([rule(DROPPED, "192.0.2.1", 80)]))
    assert dialled(target, "'192.0.2.1', 80, 1.5") == ["timed out"]
    first, again = (packet for packet in packets_of(ruled) if packet.prefix == "dropped")
    assert first.begins == again.begins != b""


def packets_of(link: AnyLink) -> list[Packet]:
    link.flush(SECONDS)
    found: list[Packet] = []
    while more := packets(link):
        found += more
    return found


def test_only_the_packet_that_is_meant_is_swallowed(ruled: AnyLink, target: Target) -> None:
    ruled.change_dials(replacement([rule(DROPPED, "192.0.2.1", 80)]))
    target.start_python(DIAL + "dial('192.0.2.1', 80, 30, 4000)")
    dropped: list[Packet] = []
    while not dropped:
        dropped = packets_of(ruled)
    held = DialRule(SWALLOWED, ip_network("192.0.2.1"), 80, dropped[0].begins)
    ruled.change_dials(replacement([held]))
    assert dialled(target, "'192.0.2.1', 80") == ["connected"]
    assert packets_of(ruled) == []


def test_own_addresses_and_resolvers_are_not_refused_with_all_others(
    ruled: AnyLink, target: Target
) -> None:
    ruled.change_dials(replacement([rule(REFUSED, "0.0.0.0/0"), rule(REFUSED, "::/0")]))
    target.python("""
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), 10).close()
    """)
    assert dialled(target, "'127.0.0.11', 53", "'192.0.2.1', 53") == ["ECONNREFUSED"] * 2


def test_changes_by_the_agent_are_no_tampering_however_many_rules_they_have(
    ruled: AnyLink, target: Target
) -> None:
    rules = [rule(REFUSED, "192.0.2.1", port) for port in range(1, MAX_RULES + 1)]
    let_out = [rule(LET_OUT, "192.0.2.1", port) for port in range(1, MAX_RULES + 1)]
    read = 0
    for change, wanted in (
        (replacement(rules), let_out),
        (replacement(rules[1:]), let_out[1:]),
        (insertion(rules[:1]), []),
    ):
        ruled.change_dials(change)
        ruled.change_dials(datagram_change([], wanted))
        ruled.flush(SECONDS)
        for monitor in ruled.monitors:
            while not is_silent((monitor,)):
                assert tampering(monitor, ruled.own_port) is None
                read += 1
    assert read > 0
    dials = f"'192.0.2.1', {MAX_RULES}", f"'192.0.2.1', {MAX_RULES + 1}"
    assert dialled(target, *dials) == ["ECONNREFUSED", "connected"]


FLUSH = """
sys.path.insert(0, "/egress")
from agent import capture, netlink, nftables
socket_ = capture.open_netlink(netlink.NETFILTER)
capture.ask(socket_, [nftables.no_rules('dials')], wrap=True)
table = netlink.NetlinkRequest("", "", 10 << 8 | 2, 0, b"\\1\\0\\0\\0" + netlink.attribute(1, b"egress\\0"))
capture.ask(socket_, [table], wrap=True)
"""


def test_rules_that_a_target_has_deleted_cannot_be_changed_and_that_is_told(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client, LINK) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        link.change_dials(replacement([rule(REFUSED, "192.0.2.1", 80)]))
        target.container.put_archive("/", agent_archive())
        target.python(FLUSH)
        with pytest.raises(LinkError, match=r"Something with CAP_NET_ADMIN .* has deleted them"):
            link.change_dials(replacement([rule(REFUSED, "192.0.2.1", 81)]))
        link.flush(SECONDS)
        told: list[str | None] = []
        while not is_silent((link.monitors[0],)):
            told.append(tampering(link.monitors[0], link.own_port))
        assert "something deleted a rule of nftables in the target's network namespace" in told


def test_a_link_that_is_closed_changes_nothing_and_says_so(
    engine_client: docker.DockerClient,
) -> None:
    with captured_namespace(engine_client, LINK) as (_, link):
        link.close()
        with pytest.raises(LinkError, match="the link to the sidecar is closed"):
            link.change_dials(replacement([]))
