"""What is mounted over roots is read and never written."""

from __future__ import annotations

import uuid
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container as DockerContainer
from docker.types import DriverConfig, Mount

from pytest_egress import EngineError
from pytest_egress.targets.trust.certificates import java_keystore
from tests.support.image_trees import (
    BUNDLE,
    FIRST,
    LABEL,
    SECOND,
    Make,
    MakeImage,
    Options,
    Tree,
    env_of,
    file,
    link,
    node_at,
    read,
    snapshot_of,
    unpack,
)

VOLUMES: dict[str, tuple[tuple[str, ...], Options]] = {
    "volumes": ((), {"volumes": ["/etc/ssl"]}),
    "mounts": ((), {"mounts": [Mount("/etc/ssl", None)]}),
    "image": (("VOLUME /etc/ssl",), {}),
    "image-over-all-of-etc": (("VOLUME /etc",), {}),
}


# Podman fills a volume when its container starts.
@pytest.mark.docker
@pytest.mark.parametrize(("changes", "options"), VOLUMES.values(), ids=VOLUMES)
def test_a_volume_of_the_containers_own_is_extended(
    changes: tuple[str, ...], options: Options, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    image = make_image({BUNDLE: file(FIRST, 0o640, 1, 2)}, *changes)
    container = ours(image, **options)
    assert node_at(container, BUNDLE) == file(FIRST + ca, 0o640, 1, 2)
    assert read(container, env_of(container)["SSL_CERT_FILE"]) == FIRST + ca


@pytest.fixture
def neighbour(make_image: MakeImage, plain: Make) -> DockerContainer:
    """A container with an anonymous volume of its own."""
    return plain(make_image({BUNDLE: SECOND}), volumes=["/etc/ssl"])


@pytest.mark.parametrize("way", ["volumes_from", "by-its-name", "mounts"])
def test_the_volume_of_another_container_is_never_written(
    way: str, neighbour: DockerContainer, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    name = neighbour.attrs["Mounts"][0]["Name"]
    ways: dict[str, Options] = {
        "volumes_from": {"volumes_from": [neighbour.id]},
        "by-its-name": {"volumes": [f"{name}:/etc/ssl"]},
        "mounts": {"mounts": [Mount("/etc/ssl", name)]},
    }
    before = b"".join(neighbour.get_archive("/etc/ssl")[0])
    container = ours(make_image({BUNDLE: FIRST}), **ways[way])
    assert read(container, env_of(container)["SSL_CERT_FILE"]) == SECOND + ca
    assert b"".join(neighbour.get_archive("/etc/ssl")[0]) == before


@pytest.mark.docker
def test_a_volume_whose_driver_leads_to_the_host_is_never_written(
    tmp_path: Path, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    (tmp_path / "ca-certificates.crt").write_bytes(SECOND)
    before = snapshot_of(tmp_path)
    leads = DriverConfig("local", {"type": "none", "o": "bind", "device": str(tmp_path)})
    mount = Mount("/etc/ssl/certs", None, driver_config=leads)
    container = ours(make_image({BUNDLE: FIRST}), mounts=[mount])
    assert read(container, "/etc/pytest-egress/bundle.pem") == SECOND + ca
    assert snapshot_of(tmp_path) == before


def test_our_files_are_not_among_those_of_another_container(
    make_image: MakeImage, plain: Make, ours: Make, ca: bytes
) -> None:
    image = make_image({BUNDLE: FIRST})
    neighbour = plain(image, volumes=["/etc"])
    before = b"".join(neighbour.get_archive("/etc")[0])
    container = ours(image, volumes_from=[neighbour.id])
    assert read(container, env_of(container)["SSL_CERT_FILE"]) == FIRST + ca
    assert b"".join(neighbour.get_archive("/etc")[0]) == before


@pytest.mark.parametrize("read_only", [False, True])
def test_a_named_volume_that_is_empty_gets_what_the_image_has(
    read_only: bool, engine_client: docker.DockerClient, make_image: MakeImage, ours: Make
) -> None:
    image = make_image({BUNDLE: FIRST})
    volume = engine_client.volumes.create(f"layout-{uuid.uuid4().hex}", labels={LABEL: "1"})
    try:
        container = ours(image, volumes=[f"{volume.name}:/etc/ssl"], read_only=read_only)
        assert read(container, BUNDLE) == FIRST
        assert [p for p in unpack(container.get_archive("/etc/ssl/certs")[0]) if "0" in p] == []
    finally:
        for holder in engine_client.containers.list(all=True, filters={"volume": volume.name}):
            holder.remove(force=True)
        volume.remove()


# Links of an image that lead into a mount: what is written at a path is written where the link leads.

BROWSERS: Tree = {"/usr/bin/firefox": file(b"", 0o755), "/usr/bin/chromium": file(b"", 0o755)}
POINT = "/mnt/host"


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A folder of the host's in which each path of ours exists already."""
    (tmp_path / "policies" / "managed").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "policies"):
        (folder / "policies.json").write_text("{}")
    (tmp_path / "lib/security").mkdir(parents=True)
    (tmp_path / "lib/security/cacerts").write_bytes(java_keystore([]))
    return tmp_path


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        *("/etc/firefox", "/etc/firefox/policies", "/etc/chromium", "/etc/chromium/policies"),
        *("/opt/jdk", "/opt/jdk/lib"),
    ],
)
def test_a_link_of_the_image_leads_nothing_of_ours_into_a_mount(
    path: str, read_only: bool, mounted: Path, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    leads = POINT if path != "/opt/jdk/lib" else f"{POINT}/lib"
    image = make_image({**BROWSERS, BUNDLE: FIRST, path: link(leads)}, "ENV JAVA_HOME=/opt/jdk")
    before = snapshot_of(mounted)
    container = ours(image, volumes=[f"{mounted}:{POINT}"], read_only=read_only)
    assert snapshot_of(mounted) == before
    assert read(container, BUNDLE) == FIRST + ca


def test_what_a_link_in_a_folder_of_the_containers_own_leads_to_is_written(
    mounted: Path, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    tree = {**BROWSERS, "/opt/own": file(b""), "/etc/chromium": link("/srv/chromium")}
    container = ours(make_image(tree), volumes=[f"{mounted}:{POINT}"])
    assert b"CACertificates" in read(container, "/srv/chromium/policies/managed/pytest-egress.json")


def test_a_link_of_the_image_from_our_folder_into_a_mount_is_refused(
    mounted: Path, make_image: MakeImage, ours: Make
) -> None:
    image = make_image({BUNDLE: FIRST, "/etc/pytest-egress": link(f"{POINT}/sub")})
    before = snapshot_of(mounted)
    with pytest.raises(EngineError) as refused:
        ours(image, volumes=[f"{mounted}:{POINT}"])
    assert str(refused.value) == (
        "/etc/pytest-egress of the image is a link to /mnt/host/sub, which is in a mount, and nothing is ever written "
        "to that: leave the mount out, or the link"
    )
    assert snapshot_of(mounted) == before


@pytest.mark.parametrize("path", ["/mnt/host/conf", "/app/conf", "/mnt/host"])
def test_a_file_of_the_tests_in_a_mount_is_refused(
    path: str, mounted: Path, make_image: MakeImage, ours: Make
) -> None:
    image = make_image({BUNDLE: FIRST, "/app": link(POINT)})
    before = snapshot_of(mounted)
    with pytest.raises(EngineError) as refused:
        ours(image, volumes=[f"{mounted}:{POINT}"], files={path: "x"})
    assert str(refused.value) == (
        f"files={{{path!r}: ...}} is in a mount, which is never written to: put the file where the mount's content "
        "is kept, or leave the mount out"
    )
    assert snapshot_of(mounted) == before
