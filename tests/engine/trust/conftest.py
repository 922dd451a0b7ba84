"""Images that are made here, from nothing."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import trustme
from docker.models.containers import Container as DockerContainer

from pytest_egress import Egress
from tests.support.image_trees import (
    BUNDLE,
    FOR_THE_ENGINE,
    LABEL,
    PROGRAM,
    RUN_PROGRAM,
    SECOND,
    MakeImage,
    Place,
    Tree,
    below,
    file,
    pack,
    snapshot_of,
    unpack,
)


@pytest.fixture(scope="module")
def program(engine_client: docker.DockerClient, bare_image: str) -> bytes:
    """A static program: Debian links ldconfig so."""
    container = engine_client.containers.create(bare_image)
    try:
        (found,) = unpack(container.get_archive("/usr/sbin/ldconfig")[0]).values()
    finally:
        container.remove(v=True)
    assert found.content is not None
    return found.content


@pytest.fixture(scope="module")
def make_image(engine_client: docker.DockerClient, program: bytes) -> Iterator[MakeImage]:
    """Makes an image of a tree and the program; changes are instructions of a Dockerfile."""
    cleanup = contextlib.ExitStack()

    def make(tree: Tree, *changes: str, named: bool = True) -> str:
        data = pack({PROGRAM: file(program, 0o755), **tree})
        name = f"layout-{uuid.uuid4().hex}" if named else None
        answer = engine_client.api.import_image_from_data(
            data,
            repository=name,
            changes=[f"LABEL {LABEL}=1", f"CMD {json.dumps(RUN_PROGRAM)}", *changes],
        )
        image = name or str(json.loads(answer)["status"])
        cleanup.callback(engine_client.images.remove, image, force=True)
        return image

    with cleanup:
        yield make


@pytest.fixture
def plain(engine_client: docker.DockerClient) -> Iterator[Callable[..., DockerContainer]]:
    """Makes a container that has nothing of ours, started, and ended where its command ends."""
    made: list[DockerContainer] = []

    def make(image: str, command: Any = None, **options: Any) -> DockerContainer:
        options.setdefault("network_mode", "none")
        made.append(engine_client.containers.create(image, command, **options))
        made[-1].start()
        made[-1].wait()
        made[-1].reload()
        return made[-1]

    yield make
    for container in made:
        container.remove(force=True, v=True)


@pytest.fixture
def ours(egress: Egress, engine_client: docker.DockerClient) -> Callable[..., DockerContainer]:
    """Makes a container with the CA, started and ended likewise."""

    def make(image: str, command: Any = None, **options: Any) -> DockerContainer:
        target = egress.start(image, command, **options)
        result = target.wait()
        assert result.exit_code == 0, result.stderr
        return engine_client.containers.get(target.id)

    return make


@pytest.fixture
def ca(egress_ca: trustme.CA) -> bytes:
    return egress_ca.cert_pem.bytes()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the engine is asked for meanwhile: the paths of a container's files, in any way."""
    calls: list[str] = []

    def record(method: Any) -> Any:
        def recorded(api: docker.APIClient, url: str, **options: Any) -> Any:
            if url.endswith("/archive"):
                calls.append(options["params"]["path"])
            return method(api, url, **options)

        return recorded

    for name in ("head", "get", "put"):
        monkeypatch.setattr(docker.APIClient, name, record(getattr(docker.APIClient, name)))
    return calls


@pytest.fixture
def host_folder(tmp_path: Path) -> Callable[[str], Place]:
    """Makes a folder, or one file, of this machine with a bundle at its place."""

    def make(point: str) -> Place:
        folder = tmp_path / "mounted"
        folder.mkdir()
        inside = below(point, BUNDLE)
        path = folder / (inside or "one.pem")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SECOND)
        for name in FOR_THE_ENGINE if point == "/etc" else ():
            (folder / name).touch()
        return Place(str(folder if inside else path), lambda: snapshot_of(folder))

    return make
