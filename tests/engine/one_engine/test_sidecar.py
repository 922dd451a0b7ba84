"""Sidecars on a real engine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import Mount

from pytest_egress.agent.nftables import LISTENERS
from pytest_egress.agent.original_destination import original_destination
from pytest_egress.engine.leftovers import NAME_LABEL
from pytest_egress.errors import LinkError
from pytest_egress.targets.sidecars import program, provision
from pytest_egress.targets.sidecars import sidecar as module
from pytest_egress.targets.sidecars.program import ensure_image
from pytest_egress.targets.sidecars.provision import SidecarError
from pytest_egress.targets.sidecars.sidecar import Sidecar
from tests.support.reaper import LABEL
from tests.support.target_shell import accepted, captured_namespace, target_in, wait_until_gone

NOT_SHARED = "does not share this machine's files"


@pytest.fixture
def prepared(engine_client: docker.DockerClient) -> Iterator[Sidecar]:
    """A sidecar that is created and not yet started."""
    sidecar = Sidecar.create(engine_client)
    yield sidecar
    sidecar.remove()


def folder_of(sidecar: Sidecar) -> str:
    """What it mounts for its link."""
    assert sidecar._rendezvous is not None
    return sidecar._rendezvous.folder


def failure(client: docker.DockerClient, sidecar: Sidecar) -> str:
    """Why it does not start; it is gone then."""
    with pytest.raises(LinkError) as caught:
        sidecar.start()
    wait_until_gone(client, sidecar.id)
    return str(caught.value)


def test_the_image_is_made_once(engine_client: docker.DockerClient) -> None:
    name = ensure_image(engine_client.api)
    first = engine_client.images.get(name)
    assert ensure_image(engine_client.api) == name
    assert engine_client.images.get(name).id == first.id
    assert first.attrs["Size"] == 0


def test_an_image_that_is_missing_is_made_even_by_two_at_once(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_name: str) -> None:
        raise ImageNotFound("no such image")

    monkeypatch.setattr(program, "IMAGE_REPOSITORY", "pytest-egress-test/imported")
    monkeypatch.setattr(engine_client.api, "inspect_image", unknown)
    first = ensure_image(engine_client.api)
    earlier = engine_client.api.images(first, quiet=True)
    assert ensure_image(engine_client.api) == first
    monkeypatch.undo()
    for image in {*earlier, engine_client.images.get(first).id}:
        engine_client.images.remove(image)


def test_a_sidecar_has_names_hosts_labels_and_a_resolver_of_ours(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    created: list[str] = []
    sidecar = Sidecar.create(
        engine_client,
        hostname="shop",
        domainname="corp.test",
        extra_hosts={"db": "192.0.2.7"},
        labels={"pytest-egress-test": "yes"},
        after_create=created.append,
    )
    try:
        assert created == [sidecar.id]
        container = engine_client.containers.get(sidecar.id)
        assert container.name == sidecar.name
        assert container.labels.pop(LABEL)  # by which it goes with this process
        assert container.labels == {"pytest-egress-test": "yes", NAME_LABEL: sidecar.name}
        link = sidecar.start()
        with target_in(engine_client, sidecar, clients_image) as target:
            names = target.python("""
                names = socket.gethostname(), "shop.corp.test", "db"
                print(*names, *map(socket.gethostbyname, names))
            """)
            assert names == "shop shop.corp.test db 10.213.0.2 10.213.0.2 192.0.2.7"
            configured = target.python("print(open('/etc/resolv.conf').read())").splitlines()
            assert {"nameserver 192.0.2.53", "options ndots:1"} <= {*configured}
            searched = {line for line in configured if line.startswith(("search", "domain"))}
            assert searched <= {"search ."}  # the engine may write it as no line at all
        link.close()
    finally:
        sidecar.remove()


def test_a_sidecar_has_no_capability_but_net_admin(prepared: Sidecar) -> None:
    found = prepared._api.inspect_container(prepared.id)["HostConfig"]
    assert (found["CapDrop"], found["NetworkMode"], found["AutoRemove"]) == (["ALL"], "none", True)
    assert [name.removeprefix("CAP_") for name in found["CapAdd"]] == ["NET_ADMIN", "NET_RAW"]


def test_a_sidecar_ends_with_its_link(engine_client: docker.DockerClient) -> None:
    with captured_namespace(engine_client) as (sidecar, link):
        link.close()
        wait_until_gone(engine_client, sidecar.id)


def test_a_sidecar_can_be_removed_before_it_starts_and_again(prepared: Sidecar) -> None:
    folder = Path(folder_of(prepared))
    prepared.remove()
    prepared.remove()
    assert not folder.exists()
    with pytest.raises(NotFound):
        prepared._api.inspect_container(prepared.id)


def test_without_ipv6_capture_goes_on(
    engine_client: docker.DockerClient, clients_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disabled = {name: "1" for name in module._ENABLE_IPV6}
    monkeypatch.setattr(module, "_ENABLE_IPV6", disabled)
    with (
        captured_namespace(engine_client) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        assert (link.ipv6, len(link.tcp), len(link.dns)) == (False, LISTENERS, 1)
        assert target.python("""
            socket.create_connection(("203.0.113.9", 443), 10)
            print(attempt(lambda: socket.create_connection(("2001:db8::9", 443), 10)))
        """) in ("ENETUNREACH", "EADDRNOTAVAIL")
        with accepted(link) as connection:
            assert original_destination(connection) == ("203.0.113.9", 443)
        with pytest.raises(ConnectionRefusedError):
            link.connect(9, 10)


def test_an_engine_that_refuses_sysctls_gets_none(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_client.api.create_container

    def refuse_sysctls(**options: Any) -> Any:
        if options["host_config"].get("Sysctls"):
            raise APIError("400 Client Error", explanation="sysctls cannot be set")
        return real(**options)

    monkeypatch.setattr(engine_client.api, "create_container", refuse_sysctls)
    with captured_namespace(engine_client) as (sidecar, link):
        assert not engine_client.api.inspect_container(sidecar.id)["HostConfig"].get("Sysctls")
        assert len(link.tcp) >= 1


# ------------------------------------------------------------------ what can go wrong


def test_a_folder_that_the_engine_does_not_know_is_another_machine(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Mount("/opt", "/no/such/folder", type="bind")
    monkeypatch.setattr(module, "python_mounts", lambda: [nowhere])
    with pytest.raises(SidecarError, match=NOT_SHARED) as caught:
        Sidecar.create(engine_client)
    assert "/no/such/folder" in str(caught.value)


def test_another_nonce_is_another_machine(
    engine_client: docker.DockerClient, prepared: Sidecar
) -> None:
    Path(folder_of(prepared), "nonce").write_text("of another test process")
    text = failure(engine_client, prepared)
    assert NOT_SHARED in text
    assert "the nonce is 'of another test process', not that of the test process" in text


def test_a_missing_nonce_is_another_machine(
    engine_client: docker.DockerClient, prepared: Sidecar
) -> None:
    Path(folder_of(prepared), "nonce").unlink()
    assert "the nonce of the test process cannot be read" in failure(engine_client, prepared)


def test_a_socket_that_cannot_be_connected_is_another_machine(
    engine_client: docker.DockerClient, prepared: Sidecar
) -> None:
    Path(folder_of(prepared), "socket").unlink()
    Path(folder_of(prepared), "socket").touch()
    text = failure(engine_client, prepared)
    assert NOT_SHARED in text
    assert "the unix socket of the test process cannot be connected: [Errno 111]" in text


def test_an_interpreter_that_fails_is_quoted(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BOOT", "raise SystemExit('libpython is missing')")
    text = failure(engine_client, Sidecar.create(engine_client))
    assert text.startswith("The sidecar ended before it sent its sockets")
    assert os.path.realpath(sys.executable) in text
    assert text.endswith("It wrote:\nlibpython is missing")


def test_an_interpreter_that_is_not_there_is_refused_by_the_engine(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provision, "executable", lambda: "/no/such/python")
    text = failure(engine_client, Sidecar.create(engine_client))
    assert "refuses the sidecar" in text
    assert "/no/such/python" in text


def test_a_silent_sidecar_is_waited_for_no_longer_than_the_limit(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.5)
    monkeypatch.setattr(module, "BOOT", "import time; print('busy', flush=True); time.sleep(60)")
    assert failure(engine_client, Sidecar.create(engine_client)) == (
        "The sidecar is running, but sent no sockets within 0.5 seconds. It wrote:\nbusy"
    )


def test_a_kernel_without_nf_tables_is_told_over_the_link(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine itself makes socket(AF_NETLINK, ..., NETLINK_NETFILTER) fail with EPROTONOSUPPORT.
    netfilter = [
        {"index": index, "value": value, "op": "SCMP_CMP_EQ"} for index, value in ((0, 16), (2, 12))
    ]
    refused = {
        "names": ["socket"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": 93,
        "args": netfilter,
    }
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]})
    real = engine_client.api.create_host_config

    def without_netfilter(**options: Any) -> Any:
        return real(**{**options, "security_opt": [f"seccomp={profile}"]})

    monkeypatch.setattr(engine_client.api, "create_host_config", without_netfilter)
    assert failure(engine_client, Sidecar.create(engine_client)) == (
        "The kernel refused a netfilter socket (EPROTONOSUPPORT). It lacks nf_tables NAT "
        "(CONFIG_NF_TABLES), which is neither built in nor loadable. Use an engine whose kernel "
        "has it: without it no target is started."
    )
