"""The command `pytest-egress` on a real engine."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from pytest_egress import cli
from pytest_egress.engine.folder import LOCK_NAME
from pytest_egress.engine.leftovers import SESSION_LABEL, labelled
from tests.support.engines import PrivateEngine
from tests.support.leftovers import identity
from tests.support.stage import eventually


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


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("told_by", ["network", "folder"])
def test_clean_removes_what_is_left_and_what_was_kept_on_request_only(
    engine: PrivateEngine,
    bare_image: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    told_by: str,
    kept: bool,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    client = engine.client()
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
