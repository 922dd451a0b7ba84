"""A captured namespace: what it has, what leads into it, and what changes it."""

from __future__ import annotations

import select
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest

from pytest_egress.link.tampering import tampering
from pytest_egress.targets.sidecars.program import agent_archive
from pytest_egress.targets.sidecars.sidecar import AnyLink
from tests.support.target_shell import (
    LINK,
    SECONDS,
    Target,
    captured_namespace,
    is_silent,
    target_in,
)

# ------------------------------------------------------------------ the namespace


def test_the_namespace_has_no_way_out(target: Target) -> None:
    assert target.python("print(sorted(os.listdir('/sys/class/net')))") == (
        "['egress0', 'eth0', 'lo']"
    )


def test_addresses_are_usable_at_once(target: Target) -> None:
    assert target.python("""
        for family, address in ((socket.AF_INET, "10.213.0.2"), (socket.AF_INET6, "fd00:213::2")):
            socket.socket(family).bind((address, 0))
        print([line.split()[0] for line in open("/proc/net/if_inet6") if "eth0" in line])
    """) == ("['fd000213000000000000000000000002']")


@pytest.mark.docker
def test_the_host_name_resolves_without_asking(link: AnyLink, target: Target) -> None:
    assert target.python("print(socket.gethostbyname(socket.gethostname()))") == "10.213.0.2"


def test_nothing_that_the_tests_did_is_taken_for_tampering(link: AnyLink, target: Target) -> None:
    for monitor in link.monitors:
        while not is_silent((monitor,)):
            assert tampering(monitor) is None


# ------------------------------------------------------------------ into the namespace


def greeting(link: AnyLink, port: int) -> str:
    """What the server says, as soon as it listens."""
    for _ in range(1000):
        try:
            with link.connect(port, SECONDS) as client:
                client.settimeout(SECONDS)
                return client.recv(100).decode()
        except ConnectionRefusedError:
            select.select([], [], [], 0.01)
    raise AssertionError(f"nothing listens on {port}")


def test_a_port_of_the_target_is_reached_on_whichever_address_it_listens(
    link: AnyLink, target: Target
) -> None:
    target.start_python("""
        import threading
        places = ("127.0.0.1", 8001), ("::1", 8002), ("10.213.0.2", 8003), ("fd00:213::2", 8004)
        def serve(place):
            family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
            server = socket.create_server(place, family=family, backlog=200)
            while True:
                with server.accept()[0] as client:
                    client.sendall(place[0].encode())
        for place in places:
            threading.Thread(target=serve, args=(place,)).start()
    """)
    greetings = [greeting(link, port) for port in (8001, 8002, 8003, 8004)]
    assert greetings == ["127.0.0.1", "::1", "10.213.0.2", "fd00:213::2"]
    with ThreadPoolExecutor(8) as pool:  # more than one batch of sockets, from many threads
        many = set(pool.map(lambda _: greeting(link, 8001), range(100)))
    assert many == {"127.0.0.1"}


def test_a_port_where_nothing_listens_refuses(link: AnyLink) -> None:
    with pytest.raises(ConnectionRefusedError):
        link.connect(9, SECONDS)


# ------------------------------------------------------------------ the agent and its namespace


def test_capture_refuses_a_namespace_that_is_in_use(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    snippet = """
import os, sys
sys.path.insert(0, "/egress")
from agent.capture import Capture, CaptureError
try:
    Capture()
except CaptureError as error:
    print(error, sorted(os.listdir("/sys/class/net")))
"""
    container = engine_client.containers.create(
        clients_image, ["python3", "-I", "-S", "-c", snippet], cap_add=["NET_ADMIN"]
    )
    try:
        container.put_archive("/", agent_archive())
        container.start()
        container.wait()
        assert container.logs().decode().strip() == (
            "This network namespace is in use: eth0 is up. Capture needs an empty one, a container "
            "with network \"none\"; nothing was changed. ['eth0', 'lo']"
        )
    finally:
        container.remove(force=True)


def test_capture_refuses_a_namespace_that_captures_already(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client, LINK) as (sidecar, _),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        target.container.put_archive("/", agent_archive())
        text = target.python("""
            sys.path.insert(0, "/egress")
            from agent.capture import Capture, CaptureError
            try:
                Capture()
            except CaptureError as error:
                print(error)
        """)
    assert "egress0, eth0 is up" in text or "eth0, egress0 is up" in text


def test_the_kernels_own_refusal_of_an_expression_is_told(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    snippet = """
import sys
sys.path.insert(0, "/egress")
from agent import nftables
from agent.capture import Capture, CaptureError
real = nftables._expression
nftables._expression = lambda name, *parts: real("redxx" if name == "redir" else name, *parts)
try:
    Capture()
except CaptureError as error:
    print(error)
"""
    container = engine_client.containers.create(
        clients_image,
        ["python3", "-I", "-S", "-c", snippet],
        network_mode="none",
        cap_drop=["ALL"],
        cap_add=["NET_ADMIN"],
    )
    try:
        container.put_archive("/", agent_archive())
        container.start()
        container.wait()
        said = container.logs().decode()
        assert "(redirect of resolver DNS over UDP) (ENOENT). It lacks nf_tables NAT" in said
    finally:
        container.remove(force=True)


# ------------------------------------------------------------------ tampering

TAMPERING = {
    "an address": (
        "netlink.NetlinkRequest('', '', 21, 0, capture._address(socket.AF_INET6, eth0).body)",
        "something deleted an address of ours in the target's network namespace",
    ),
    "a policy rule": (
        "netlink.NetlinkRequest('', '', 33, 0, capture._routes(socket.AF_INET, eth0)[2].body)",
        "something deleted a policy rule in the target's network namespace",
    ),
    "a default route": (
        "netlink.NetlinkRequest('', '', 25, 0, capture._routes(socket.AF_INET, eth0)[0].body)",
        "something deleted a default route in the target's network namespace",
    ),
    "the interface": (
        "capture._link('', eth0, 0, 1)",
        "something shut down the interface eth0 in the target's network namespace",
    ),
    "the rules": (
        "nftables._request('', '', 2, 0, netlink.attribute(1, netlink.text('egress')))",
        "something deleted a rule of nftables in the target's network namespace",
    ),
    "a rule for frames": (
        "nftables._rule('egress0', '', '', nftables._ACCEPT, 5)",
        "something added a rule of nftables in the target's network namespace",
    ),
    "the rules for frames": (
        "nftables._request('', '', 2, 0, netlink.attribute(1, netlink.text('egress')), 5)",
        "something deleted a rule of nftables in the target's network namespace",
    ),
}

TAMPER = """
sys.path.insert(0, "/egress")
from agent import capture, netlink, nftables
eth0 = socket.if_nametoindex("eth0")
request = {request}
nft = request.kind >> 8
family = netlink.NETFILTER if nft else netlink.ROUTE
capture.ask(capture.open_netlink(family), [request], wrap=bool(nft))
"""


@pytest.fixture(scope="module")
def hostile(
    engine_client: docker.DockerClient, clients_image: str
) -> Iterator[tuple[AnyLink, Target]]:
    with (
        captured_namespace(engine_client, LINK) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        target.container.put_archive("/", agent_archive())
        yield link, target


def events(link: AnyLink) -> list[str]:
    """What the monitors tell by now: the kernel delivers before the change's call returns."""
    link.flush(SECONDS)
    told: list[str | None] = []
    for monitor in link.monitors:
        while not is_silent((monitor,)):
            told.append(tampering(monitor))
    return [text for text in told if text]


@pytest.mark.parametrize("change", TAMPERING)
def test_a_target_that_changes_what_captures_is_told_of(
    hostile: tuple[AnyLink, Target], change: str
) -> None:
    link, target = hostile
    request, expected = TAMPERING[change]
    events(link)
    target.python(TAMPER.replace("{request}", request))
    assert expected in events(link)


def test_a_target_may_make_an_interface_of_its_own(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client, LINK) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        target.container.put_archive("/", agent_archive())
        for name in ("tun7", "tun8"):
            attributes = f"netlink.attribute(3, b'{name}\\0')"
            kind = "netlink.nest(18, netlink.attribute(1, b'veth\\0'))"
            body = f"capture._interface() + {attributes} + {kind}"
            target.python(
                TAMPER.replace(
                    "{request}", f"netlink.NetlinkRequest('', '', 16, netlink.NEW, {body})"
                )
            )
        assert not all(is_silent((monitor,)) for monitor in link.monitors)
        assert events(link) == []
        assert tampering(link.monitors[0]) is None  # with nothing to read it does not wait
