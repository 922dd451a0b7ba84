"""A root that is read-only has the CA, and nothing is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
from docker.models.containers import Container as DockerContainer

from pytest_egress import CommandError, Egress, EngineError
from pytest_egress.engine.engine import Engine
from pytest_egress.engine.leftovers import SESSION_LABEL
from pytest_egress.session import Session
from pytest_egress.targets.trust import placing as trust
from tests.support.image_trees import (
    BUNDLE,
    FIRST,
    RUN_PROGRAM,
    SECOND,
    SHOW,
    Make,
    MakeImage,
    Options,
    Place,
    env_of,
    read,
)
from tests.support.stage import eventually

# A root that is read-only.


@pytest.fixture
def session(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    """A session of which no container and no image is left for its end to sweep up."""
    session = Session()
    with monkeypatch.context() as patch:
        patch.setattr(session.engine, "close", lambda: None)
        yield session
    label: Options = {"label": f"{SESSION_LABEL}={session.engine.labels[SESSION_LABEL]}"}
    images = engine_client.images.list(all=True, filters=label)
    gone = eventually(  # a sidecar goes in its own time
        lambda: not engine_client.containers.list(all=True, filters=label, ignore_removed=True)
    )
    session.close()
    assert (images, gone) == ([], True)


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[DockerContainer]:
    """Every container that is created meanwhile."""
    made: list[DockerContainer] = []
    create = Engine.create

    def record(*args: Any, **options: Any) -> DockerContainer:
        made.append(create(*args, **options))
        return made[-1]

    monkeypatch.setattr(Engine, "create", record)
    return made


def test_a_root_that_is_read_only_has_the_ca_and_the_files(
    session: Session, bare_image: str
) -> None:
    script = (
        'cat "$SSL_CERT_FILE" /etc/ssl/certs/ca-certificates.crt /srv/mine; echo "$GREETING $PIP_CERT"; '
        "touch /srv/other || id -u"
    )
    with Egress(session=session) as egress:
        result = egress.run(
            bare_image,
            ["sh", "-c", script],
            files={"/srv/mine": "mine\n"},
            env={"GREETING": "hello", "PIP_CERT": "/mine.pem"},
            read_only=True,
            user="1234",
        )
        ca = session.authority.ca_pem.decode()
    assert result.stdout == f"{ca}{ca}mine\nhello /mine.pem\n1234\n"
    assert "Read-only file system" in result.stderr


@pytest.mark.parametrize("changes", [(), ("VOLUME /data",)], ids=["plain", "with-volume"])
def test_nothing_is_left_of_a_root_that_is_read_only(
    changes: tuple[str, ...],
    session: Session,
    created: list[DockerContainer],
    make_image: MakeImage,
    engine_client: docker.DockerClient,
) -> None:
    image = make_image({BUNDLE: FIRST}, *changes)
    with Egress(session=session) as egress:
        egress.run(image, read_only=True)
        egress.start(image, read_only=True)
    volumes = [mount["Name"] for each in created for mount in each.attrs["Mounts"]]
    assert (len(created), len(volumes)) == (4, 4 * len(changes))
    for name in volumes:
        with pytest.raises(docker.errors.NotFound):
            engine_client.volumes.get(name)


@pytest.mark.parametrize(("entrypoint", "command"), [(None, RUN_PROGRAM), (RUN_PROGRAM, None)])
def test_an_image_without_a_command_may_have_a_root_that_is_read_only(
    egress: Egress,
    make_image: MakeImage,
    entrypoint: list[str] | None,
    command: list[str] | None,
) -> None:
    image = make_image({}, "CMD []")
    egress.run(image, command, entrypoint=entrypoint, read_only=True)
    with pytest.raises(EngineError, match="has no command of its own"):
        egress.run(image, read_only=True)


def test_an_image_without_a_command_has_docker_options(
    egress: Egress, make_image: MakeImage
) -> None:
    assert egress.docker_options(make_image({}, "CMD []"))["network_mode"]


def test_an_image_without_a_name_outlives_a_root_that_is_read_only(
    egress: Egress, make_image: MakeImage
) -> None:
    image = make_image({BUNDLE: FIRST}, named=False)
    for _ in range(2):
        egress.run(image, read_only=True)


def test_nothing_is_left_of_a_root_that_is_read_only_when_its_command_fails(
    session: Session, bare_image: str
) -> None:
    with Egress(session=session) as egress:
        with pytest.raises(CommandError):
            egress.run(bare_image, ["false"], read_only=True)
        with pytest.raises(EngineError, match="did not start"):
            egress.run(bare_image, ["/nosuch"], read_only=True)


@pytest.mark.parametrize("half", ["files", "commit", "create"])
def test_nothing_is_left_of_a_root_that_is_read_only_when_its_start_fails_half_way(
    half: str, session: Session, bare_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise EngineError("refused here")

    options: Options = {"read_only": True}
    if half == "files":
        put = trust.put
        monkeypatch.setattr(
            trust,
            "put",
            lambda container, archive, what: (put if what == "the CA" else refuse)(
                container, archive, what
            ),
        )
    elif half == "commit":
        monkeypatch.setattr(Engine, "commit", refuse)
    else:
        options["mem_limit"] = "1k"
    with Egress(session=session) as egress, pytest.raises(EngineError) as caught:
        egress.run(bare_image, ["true"], files={"/srv/mine": "mine"}, **options)
    assert ("refused here" in str(caught.value)) is (half != "create")


@pytest.mark.parametrize("point", ["/etc", "/etc/ssl/certs"])
def test_a_folder_of_the_host_under_a_root_that_is_read_only_is_read_and_never_written(
    point: str, host_folder: Callable[[str], Place], bare_image: str, egress: Egress, ca: bytes
) -> None:
    place = host_folder(point)
    before = place.snapshot()
    volumes = [f"{place.source}:{point}"]
    result = egress.run(bare_image, SHOW, volumes=volumes, read_only=True)
    assert result.stdout_bytes == SECOND + ca
    assert place.snapshot() == before


@pytest.mark.docker
@pytest.mark.parametrize("point", ["/etc/ssl", "/etc"])
def test_a_volume_of_the_image_under_a_root_that_is_read_only_has_the_ca(
    point: str, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    container = ours(make_image({BUNDLE: FIRST}, f"VOLUME {point}"), read_only=True)
    assert read(container, env_of(container)["SSL_CERT_FILE"]) == FIRST + ca
