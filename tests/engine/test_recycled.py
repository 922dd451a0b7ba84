"""Sidecars that serve one target after the other: what a target leaves does not reach the next one."""

from __future__ import annotations

import ast
import contextlib
import io
import tarfile
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from pytest_egress import Container, Egress, Exchange, LinkError, refuse
from pytest_egress.agent.main import JOINED_SETTING
from pytest_egress.engine.archive import build_tar
from pytest_egress.engine.engine import Engine
from pytest_egress.link.attach import Output
from pytest_egress.link.descriptor import DescriptorLink
from pytest_egress.session import Session
from pytest_egress.targets.sidecars import sidecar as module
from pytest_egress.targets.sidecars.program import AGENT_FOLDER, agent_archive
from tests.support.killed_runs import KilledRun, assert_nothing_is_left
from tests.support.leftovers import Witness, until
from tests.support.target_shell import wait_until_gone

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif("os.environ.get('PYTEST_EGRESS_LINK') == 'stream'", reason="by descriptors"),
]

SLEEP = ["sleep", "600"]
CURL = "curl -sS https://api.test/"
LOOK = """
    import fcntl, os, socket
    SHARED = "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"
    def read(path):
        try:
            with open(path) as file:
                return file.read()
        except OSError as error:
            return str(error.errno)
    seen = {}
    for path in SHARED:
        about = os.stat(path)
        seen[path] = read(path), about.st_mode, about.st_uid, about.st_gid, os.listxattr(path)
    for path in "/etc/hosts", "/etc/hostname":
        with open(path) as file:
            seen["attributes of " + path] = fcntl.ioctl(file, 0x80086601, bytes(8))[:4]
    for folder, _, names in os.walk("/proc/sys/net"):
        for name in names:
            if "stable_secret" not in name:
                seen[f"{folder}/{name}"] = read(f"{folder}/{name}")
    for name in ("route", "ipv6_route", "if_inet6", "unix", "tcp", "tcp6", "udp", "raw", "packet"):
        lines = read(f"/proc/net/{name}").splitlines()
        seen[name] = len(lines) if name in ("tcp", "tcp6", "udp") else sorted(lines)
    used = [line.split() for line in seen["ipv6_route"]]  # each with two counters of use, which order them
    seen["ipv6_route"] = sorted(words[:6] + words[8:] for words in used)
    seen["unix"] = [line for line in seen["unix"] if "@" in line]
    # A line for each packet socket, whose address, references and inode are those of one socket and say no more.
    seen["packet"] = sorted(line.split()[2:8] for line in read("/proc/net/packet").splitlines())
    seen["addresses"] = read("/proc/net/fib_trie")
    seen["interfaces"] = sorted(socket.if_nameindex())
    seen["tables"] = read("/proc/net/ip_tables_names"), read("/proc/net/nf_conntrack")
    print(seen)
"""


def python(container: Container, code: str) -> str:
    result = container.exec(["python3", "-c", textwrap.dedent(code)])
    assert result.exit_code == 0, result
    return result.stdout.strip()


def look(container: Container) -> dict[str, Any]:
    """What a target finds that it could have of the one before it."""
    seen: dict[str, Any] = ast.literal_eval(python(container, LOOK))
    return seen


class Successors:
    """A session whose containers come one after the other.

    Args:
        egress: Starts them.
        client: The engine.
        image: What they run.
    """

    def __init__(self, egress: Egress, client: docker.DockerClient, image: str) -> None:
        self.egress, self.client, self.image = egress, client, image
        egress.intercept_https("api.test", {"id": 1}, optional=True)

    @contextlib.contextmanager
    def target(self, **options: Any) -> Iterator[Container]:
        container = self.egress.start(self.image, SLEEP, **options)
        with container:
            yield container

    def sidecar_of(self, target: Container) -> str:
        mode: str = self.client.api.inspect_container(target.id)["HostConfig"]["NetworkMode"]
        return mode.partition(":")[2]

    def capabilities_of(self, target: Container) -> set[str]:
        """Those that the sidecar of a target was created with."""
        found = self.client.api.inspect_container(self.sidecar_of(target))["HostConfig"]["CapAdd"]
        return {name.removeprefix("CAP_") for name in found}


@pytest.fixture
def scene(engine_client: docker.DockerClient, clients_image: str) -> Iterator[Successors]:
    with Egress() as egress:
        yield Successors(egress, engine_client, clients_image)


NAMESPACE = "import os; print(os.readlink('/proc/self/ns/net'))"


def test_a_next_target_has_the_same_sidecar_and_another_namespace(scene: Successors) -> None:
    sidecars, namespaces = set(), set()
    for count in range(1, 4):
        with scene.target() as target:
            assert '"id"' in target.exec(CURL).stdout
            sidecars.add(scene.sidecar_of(target))
            namespaces.add(python(target, NAMESPACE))
        asked = [e for e in scene.egress.ledger if isinstance(e, Exchange)]
        assert [e.outcome for e in asked] == ["routed"] * count
        assert len({e.container for e in asked}) == count
    assert (len(sidecars), len(namespaces)) == (1, 3)


DIRTY = """
    import fcntl, os, signal, socket, struct, time
    for path in "/etc/hosts", "/etc/hostname":
        with open(path) as file:
            before = fcntl.ioctl(file, 0x80086601, bytes(8))  # FS_IOC_GETFLAGS
            flags = int.from_bytes(before[:4], "little") | 0x8 | 0x40 | 0x80  # chattr +SdA
            fcntl.ioctl(file, 0x40086602, struct.pack("l", flags))
    with open("/etc/hosts", "a") as file: file.write("192.0.2.66 evil.test" + os.linesep)
    with open("/etc/hostname", "w") as file: file.write("evil")
    os.chmod("/etc/resolv.conf", 0o600)
    os.chmod("/etc/hosts", 0)
    os.system("curl -4 -sS https://api.test/")  # it leaves conntrack
    server = socket.create_server(("127.0.0.1", 9000))
    client = socket.create_connection(("127.0.0.1", 9000))
    accepted, _ = server.accept()
    client.close()  # it leaves TIME_WAIT
    accepted.close()
    control = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    address = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 1)  # 192.0.2.67 on lo
    for kind in (1, 2):
        address += struct.pack("=HH4B", 8, kind, 192, 0, 2, 67)
    control.send(struct.pack("=IHHII", 16 + len(address), 20, 0x605, 1, 0) + address)
    assert struct.unpack_from("=i", control.recv(1000), 16) == (0,)
    if not os.fork():  # it leaves a packet socket
        listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        os.dup2(os.dup2(os.open("/dev/null", os.O_RDWR), 1), 2)
        signal.pause()
    while len(open("/proc/net/packet").readlines()) < 3: time.sleep(0.01)
"""


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: (found[name], wanted.get(name)) for name in found if found[name] != wanted[name]}


def test_what_a_target_leaves_is_not_there_for_the_next(scene: Successors) -> None:
    settings = {"net.ipv4.ip_default_ttl": "42", "net.ipv4.ip_unprivileged_port_start": "7"}
    with scene.target() as target:
        first, before = scene.sidecar_of(target), look(target)
    with scene.target(cap_add=["NET_ADMIN", "NET_RAW"], sysctls=settings) as target:
        python(target, DIRTY)
        dirty = look(target)
    with scene.target() as target:
        second = scene.sidecar_of(target)
        assert differences(look(target), before) == {}
        answer = target.exec("getent hosts evil.test", check=False).stdout
    for changed in (
        *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "attributes of /etc/hosts"),
        *("attributes of /etc/hostname", "tcp", "addresses", "packet"),
    ):
        assert dirty[changed] != before[changed], changed
    assert dirty["/proc/sys/net/ipv4/ip_default_ttl"].strip() == "42"
    assert dirty["/proc/sys/net/ipv4/ip_unprivileged_port_start"].strip() == "7"
    assert first == second
    assert "192.0.2.66" not in answer


def test_a_container_that_stays_in_the_namespace_does_not_reach_the_next_target(
    scene: Successors,
) -> None:
    code = "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0left'); s.listen(); time.sleep(600)"
    with scene.target() as target:
        first = scene.sidecar_of(target)
        helper = scene.client.containers.run(
            scene.image, ["python3", "-c", code], network_mode=f"container:{first}", detach=True
        )
    try:
        with scene.target() as target:
            assert scene.sidecar_of(target) == first
            assert "left" not in target.exec("cat /proc/net/unix").stdout
            assert (
                "ConnectionRefused"
                in target.exec(
                    [
                        "python3",
                        "-c",
                        "import socket; socket.socket(socket.AF_UNIX).connect('\\0left')",
                    ],
                    check=False,
                ).stderr
            )
            helper.reload()
            assert helper.status == "running"
            old, _ = helper.exec_run(["curl", "-sS", "--max-time", "5", "https://api.test/"])
            assert old != 0
            assert '"id"' in target.exec(CURL).stdout
    finally:
        helper.remove(force=True)


def test_a_file_that_cannot_be_put_back_ends_its_sidecar(scene: Successors) -> None:
    with scene.target() as target:
        first = scene.sidecar_of(target)
        assert target.exec(["chown", "1000", "/etc/hosts"]).exit_code == 0
    wait_until_gone(scene.client, first)
    with scene.target() as target:
        assert scene.sidecar_of(target) != first
        assert look(target)["/etc/hosts"][2] == 0


HIDE = "import os; os.setxattr('/etc/hosts', 'trusted.left', b'1')"
HIDDEN = "import os; print(os.listxattr('/etc/hosts'))"


def test_a_target_that_could_hide_something_in_the_files_is_its_sidecars_last(
    scene: Successors,
) -> None:
    """What root has hidden is seen by root alone (xattr(7)), and so not by the agent."""
    for _ in range(2):
        with scene.target() as target:
            found = target.exec(["python3", "-c", HIDDEN], privileged=True)
            assert found.stdout.strip() == "[]", found
            assert target.exec(["python3", "-c", HIDE], privileged=True).exit_code == 0


def test_targets_that_share_processes_are_the_last_of_their_sidecars(scene: Successors) -> None:
    """One may keep a file of the other open, which has been removed."""
    with scene.target() as one:
        with scene.target(pid_mode=f"container:{one.id}") as other:
            sidecars = {scene.sidecar_of(one), scene.sidecar_of(other)}
        with scene.target() as target:
            sidecars.add(scene.sidecar_of(target))
    with scene.target() as target:
        sidecars.add(scene.sidecar_of(target))
    assert len(sidecars) == 4


def test_a_namespace_with_another_setting_of_ipv6_ends_its_sidecar(
    scene: Successors, caplog: pytest.LogCaptureFixture
) -> None:
    """A kernel may give new namespaces a setting of its own, which the engine overrides in those that it makes."""
    with scene.target() as target:
        first = scene.sidecar_of(target)
    (waiting,) = scene.egress._inner.session.sidecars._retired
    assert isinstance(waiting.link, DescriptorLink)
    waiting.link.ipv6 = not waiting.link.ipv6  # as if the engine's had been another
    with scene.target() as target:
        assert scene.sidecar_of(target) != first
        assert '"id"' in target.exec(CURL).stdout
    wait_until_gone(scene.client, first)
    (told,) = caplog.messages
    assert told.endswith("the engine's namespaces have another setting of IPv6 than new ones.")


def test_connections_that_one_target_was_refused_are_routed_for_the_next(scene: Successors) -> None:
    other = Egress(session=scene.egress._inner.session)
    refused = other.intercept_tcp("api.test:443", refuse())
    with contextlib.closing(other), other.start(scene.image, SLEEP) as target:
        first = scene.sidecar_of(target)
        assert target.exec(CURL, check=False).exit_code == 7, "refused"
        assert refused.calls
    with scene.target() as target:
        assert scene.sidecar_of(target) == first
        assert '"id"' in target.exec(CURL).stdout


def test_a_move_leaves_no_process_and_no_descriptor(scene: Successors) -> None:
    """A socket that somebody kept would keep its namespace."""
    counts = []
    for _ in range(4):
        with scene.target() as target:
            engine = scene.egress._inner.session.engine
            sidecar = engine.container(scene.sidecar_of(target))
            program = [*scene.egress._inner.session.provisioner.setups[0].python(), "-c", OPEN]
            output = Output()
            code = engine.exec(sidecar, program, {}, "look", output, lambda: 60.0)
            assert code == 0, output.tail
            counts.append(output.stdout)
    assert len({*counts}) == 1, counts


OPEN = """
import os
pids = [pid for pid in sorted(os.listdir("/proc")) if pid.isdecimal() and int(pid) != os.getpid()]
print([len(os.listdir(f"/proc/{pid}/fd")) for pid in pids])
"""
STATUS = """
    import os
    for pid in sorted(map(int, filter(str.isdecimal, os.listdir("/proc")))):
        if pid != os.getpid():
            words = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
            names = "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"
            print(*(int(words[name], 16) for name in names), int(words["NoNewPrivs"]))
"""
NET_ADMIN, NET_RAW, SYS_ADMIN, SETPCAP = 1 << 12, 1 << 13, 1 << 21, 1 << 8


def test_the_first_process_alone_may_make_namespaces(scene: Successors) -> None:
    for _ in range(2):
        with scene.target() as target:
            engine = scene.egress._inner.session.engine
            sidecar = engine.container(scene.sidecar_of(target))
            program = [*scene.egress._inner.session.provisioner.setups[0].python(), "-c"]
            output, code = Output(), [*program, textwrap.dedent(STATUS)]
            assert engine.exec(sidecar, code, {}, "look", output, lambda: 60.0) == 0, output.tail
            lines = output.stdout.decode().splitlines()
            keeper, agent = ([*map(int, line.split())] for line in lines)
            most = NET_ADMIN | NET_RAW | SYS_ADMIN | SETPCAP
            assert keeper == [0, most, most, most, 0, 0]
            assert agent == [0, NET_ADMIN, NET_ADMIN, NET_ADMIN, 0, 1]


def test_a_target_that_is_not_root_binds_any_port_in_each_namespace(scene: Successors) -> None:
    code = "import socket; socket.create_server(('', 80)); print('bound')"
    for _ in range(2):
        with scene.target(user="1000:1000") as target:
            assert python(target, code) == "bound"


def test_two_at_once_have_two_and_a_restarted_one_keeps_its_own(scene: Successors) -> None:
    with scene.target() as one, scene.target() as other:
        assert scene.sidecar_of(one) != scene.sidecar_of(other)
        before = python(one, NAMESPACE)
        scene.client.api.restart(one.id, timeout=0)
        assert python(one, NAMESPACE) == before
        for each in (one, other):
            assert '"id"' in each.exec(CURL).stdout


def test_one_that_dies_while_it_waits_is_replaced(scene: Successors) -> None:
    with scene.target() as target:
        first = scene.sidecar_of(target)
    scene.client.api.kill(first)
    wait_until_gone(scene.client, first)
    with scene.target() as target:
        assert scene.sidecar_of(target) != first
        second = scene.sidecar_of(target)
    with scene.target() as target:
        assert scene.sidecar_of(target) == second


def test_where_the_kernel_refuses_a_namespace_each_target_has_a_sidecar_of_its_own(
    scene: Successors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "KEEPER_CAPABILITIES", ("SETPCAP",))
    sidecars = []
    for _ in range(3):
        with scene.target() as target:
            assert '"id"' in target.exec(CURL).stdout
            sidecars.append(scene.sidecar_of(target))
            capabilities = scene.capabilities_of(target)
    assert len({*sidecars}) == 3
    assert capabilities == {"NET_ADMIN", "NET_RAW"}
    (told,) = caplog.messages
    assert told.startswith(
        "Each container has a sidecar of its own from now on: The kernel refused"
    )


def test_where_the_first_process_cannot_start_each_target_has_a_sidecar_of_its_own(
    scene: Successors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "KEEPER_CAPABILITIES", ())
    for _ in range(2):
        with scene.target() as target:
            assert '"id"' in target.exec(CURL).stdout
            assert scene.capabilities_of(target) == {"NET_ADMIN", "NET_RAW"}
    (told,) = caplog.messages
    assert told.startswith("Each container has a sidecar of its own from now on: The agent failed")


def test_a_target_that_does_not_join_the_namespace_of_its_sidecar_is_refused(
    scene: Successors,
) -> None:
    with scene.target():
        pass
    (moving,) = scene.egress._inner.session.sidecars._retired
    moving.id = scene.egress.docker_options(scene.image)["network_mode"].partition(":")[2]
    with pytest.raises(LinkError, match=r"in another network namespace(.|\n)*sidecar-reuse=off"):
        scene.egress.start(scene.image, SLEEP)
    with scene.target() as target:
        assert scene.capabilities_of(target) == {"NET_ADMIN", "NET_RAW"}
        assert '"id"' in target.exec(CURL).stdout


def test_a_target_with_the_setting_by_which_it_is_seen_to_join_has_a_new_sidecar(
    scene: Successors,
) -> None:
    with scene.target() as target:
        first = scene.sidecar_of(target)
    with scene.target(sysctls={JOINED_SETTING: "1 0"}) as target:
        assert scene.sidecar_of(target) != first
        assert '"id"' in target.exec(CURL).stdout


def test_the_processes_of_a_sidecar_are_refused(scene: Successors) -> None:
    with scene.target() as target:
        other = scene.egress.docker_options(scene.image)["network_mode"]
        for sidecar in (f"container:{scene.sidecar_of(target)}", other):
            with pytest.raises(ValueError, match="can reach the capabilities of a sidecar; name a"):
                scene.egress.start(scene.image, SLEEP, pid_mode=sidecar)


def test_where_it_is_off_or_a_sidecar_has_names_of_its_own_it_has_no_such_capability(
    scene: Successors, engine_client: docker.DockerClient
) -> None:
    with scene.target(hostname="shop") as target:
        assert scene.capabilities_of(target) == {"NET_ADMIN", "NET_RAW"}
    options = scene.egress.docker_options(scene.image)
    sidecar = engine_client.api.inspect_container(options["network_mode"].partition(":")[2])
    assert [name.removeprefix("CAP_") for name in sidecar["HostConfig"]["CapAdd"]] == [
        "NET_ADMIN",
        "NET_RAW",
    ]
    with Egress(session=Session(sidecar_reuse=False)) as egress:
        off = Successors(egress, engine_client, scene.image)
        with off.target() as target:
            assert off.capabilities_of(target) == {"NET_ADMIN", "NET_RAW"}
            first = off.sidecar_of(target)
        with off.target() as target:
            assert off.sidecar_of(target) != first


def test_a_run_that_is_killed_leaves_none_that_waits(witness: Witness, bare_image: str) -> None:
    ready = f"""
    egress.run({bare_image!r}, ["true"])
"""
    with contextlib.closing(KilledRun(ready)) as run:
        assert run.line() == "up"
        assert until(lambda: any("sidecar" in each for each in run.left(witness)))
        run.kill()
        assert_nothing_is_left(witness, run)


# Agent, first process, engine and test process wait for each other, however slow one of them is.

PAUSE = 0.7  # longer than the engine takes to start a target
OF_THE_SIDECAR = [
    *(("main", name) for name in ("hand_over", "hand_out", "joined_setting")),
    *(("keeper", name) for name in ("start_agent", "be_agent", "is_ordered")),
    ("shared_files", "mode_of"),
]
OF_THE_TEST = [
    (module.Sidecar, "renew"),
    (module.Sidecar, "check_joined"),
    (DescriptorLink, "put_back"),
    (Engine, "create"),
]


def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def slowed(stem: str, name: str) -> bytes:
    """The archive of an agent that waits before each call of one of its functions."""
    with tarfile.open(fileobj=io.BytesIO(agent_archive())) as archive:
        modules = [member for member in archive if member.name.endswith(".py")]
        contents = {f"/{each.name}": read(archive, each) for each in modules}
    (path,) = (path for path in contents if path.endswith(f"/{stem}.py"))
    wrapper = f"""
_before_{name} = {name}
def {name}(*args):
    import time
    time.sleep({PAUSE})
    return _before_{name}(*args)
"""
    contents[path] += wrapper.encode()
    return build_tar(contents, [AGENT_FOLDER, f"{AGENT_FOLDER}/agent"])


def assert_one_sidecar_serves_two(scene: Successors) -> None:
    sidecars = set()
    for _ in range(2):
        with scene.target() as target:
            sidecars.add(scene.sidecar_of(target))
            assert '"id"' in target.exec(CURL).stdout
    assert len(sidecars) == 1


@pytest.mark.parametrize(("stem", "name"), OF_THE_SIDECAR)
def test_a_sidecar_that_is_slow_serves_the_next_target(
    stem: str, name: str, scene: Successors, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = slowed(stem, name)
    monkeypatch.setattr(module, "agent_archive", lambda _link: archive)
    assert_one_sidecar_serves_two(scene)


@pytest.mark.parametrize(("owner", "name"), OF_THE_TEST)
def test_a_test_process_that_is_slow_is_waited_for(
    owner: type, name: str, scene: Successors, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(owner, name)

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(PAUSE)
        result = real(*args, **options)
        time.sleep(PAUSE)
        return result

    monkeypatch.setattr(owner, name, slow)
    assert_one_sidecar_serves_two(scene)
