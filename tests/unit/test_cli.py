"""The command `pytest-egress`: what a user sees of `doctor` and `clean`."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from pytest_egress import cli
from pytest_egress.engine.folder import LOCK_NAME
from pytest_egress.engine.leftovers import SESSION_LABEL, labelled
from pytest_egress.errors import LinkError
from pytest_egress.link.descriptor import DescriptorLink
from tests.support.engines import OwnEngine, PrivateEngine
from tests.support.leftovers import identity
from tests.support.stage import eventually


def test_doctor_tries_what_a_test_needs_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = re.sub(r"\(\d+ ms\)", "(T ms)", capsys.readouterr().out).splitlines()
    assert re.fullmatch(
        r"ok      engine: \S+, API \S+, kernel \S+, at unix://\S+  \(T ms\)", lines[0]
    )
    assert lines[1].startswith("ok      sidecar: descriptor link, sidecar with this Python ")
    assert lines[1].endswith(", IPv4 and IPv6  (T ms)")
    assert lines[2:] == [
        "ok      capture: a connection to 203.0.113.9:443 arrived here and nowhere else  (T ms)",
        "Everything that a test needs is there.",
    ]


def test_doctor_says_what_to_do_where_no_engine_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert cli.main(["doctor"]) == 1
    failed, *reason = capsys.readouterr().out.splitlines()
    assert failed == "FAILED  engine:"
    assert reason[0].startswith("        no Docker engine answers at tcp://127.0.0.1:1: ")
    assert "DOCKER_HOST" in reason[1]


def test_doctor_finds_a_connection_that_does_not_arrive_as_it_was_dialled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DescriptorLink, "destination", lambda self, sock: ("192.0.2.1", 1))
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "        a connection to ('203.0.113.9', 443) arrived as one to ('192.0.2.1', 1)"
    )


def test_doctor_quotes_a_sidecar_that_gives_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*_: object, **__: object) -> None:
        raise LinkError("the kernel refused it")

    monkeypatch.setattr("pytest_egress.targets.sidecar.Sidecar.create", give_up)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "FAILED  sidecar:",
        "        the kernel refused it",
    ]


def test_doctor_leaves_nothing(engine_client: docker.DockerClient) -> None:
    seen: list[str] = []

    class Spy(cli.Examination):
        def check_capture(self) -> str:
            seen.append(self.engine.labels[SESSION_LABEL])
            return super().check_capture()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "Examination", Spy)
        assert cli.main(["doctor"]) == 0
    filters = {"label": f"{SESSION_LABEL}={seen[0]}"}
    # The engine tells of a removal that it has begun, and not yet ended, as of one that it has done.
    assert eventually(lambda: not engine_client.api.containers(all=True, filters=filters))


@pytest.fixture(scope="module")
def quiet_engine(
    own_engine: OwnEngine, engine_client: docker.DockerClient, bare_image: str
) -> Iterator[PrivateEngine]:
    """An engine on which no other run removes what it finds."""
    with own_engine(Path(tempfile.gettempdir())) as engine:
        engine.load(engine_client, bare_image)
        yield engine


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("told_by", ["network", "folder"])
def test_clean_removes_what_is_left_and_what_was_kept_on_request_only(
    quiet_engine: PrivateEngine,
    bare_image: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    told_by: str,
    kept: bool,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", quiet_engine.address)
    client = quiet_engine.client()
    (tmp_path / LOCK_NAME).touch()  # and nobody holds it
    folder = str(tmp_path) if told_by == "folder" else "/of/another/machine"
    session = "a run that is over"
    gone = client.containers.create(bare_image, network_mode="none")
    mode = f"container:{gone.id}" if told_by == "network" else "none"
    left = client.containers.create(bare_image, network_mode=mode, **identity(session, folder))
    looked_at = client.containers.create(
        bare_image, network_mode=mode, **identity(session, folder, kept=True)
    )
    gone.remove(force=True)
    try:
        assert cli.main(["clean", "--kept"] if kept else ["clean"]) == 0
        there = [each["Id"] for each in labelled(client.api, SESSION_LABEL)]
        assert there == ([] if kept else [looked_at.id])
        said = "removed 2 containers\n" if kept else "removed 1 container\n"
        assert capsys.readouterr().out == said
    finally:
        for container in (left, looked_at):
            try:
                container.remove(force=True)
            except docker.errors.NotFound:
                continue


def test_the_command_is_installed_and_its_help_needs_no_engine() -> None:
    code = "import sys; from pytest_egress.cli import main; sys.argv = ['x', '--help']; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    )
    assert "doctor" in done.stdout
    assert "docker" not in done.stderr
