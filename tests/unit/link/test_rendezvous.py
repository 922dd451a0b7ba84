"""The folder and socket over which a sidecar hands its sockets over."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from pytest_egress import EngineError
from pytest_egress.engine.endpoint import make_client
from pytest_egress.link.rendezvous import Rendezvous
from tests.support.docker_command import ENGINE_VARIABLES, LINK_VARIABLES


def test_the_rendezvous_is_closed_to_others_and_its_mounted_part_open() -> None:
    with Rendezvous() as rendezvous:
        folder = Path(rendezvous.folder)
        modes = [
            stat.S_IMODE(path.stat().st_mode)
            for path in (folder.parent, folder, folder / "nonce", folder / "socket")
        ]
        assert modes == [0o700, 0o755, 0o644, 0o666]
        assert (folder / "nonce").read_text() == rendezvous.nonce
    assert not folder.parent.exists()


def test_the_rendezvous_may_lie_deeper_than_a_socket_path_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with Rendezvous() as rendezvous:
        assert rendezvous.folder.startswith(str(deep))


@pytest.fixture(autouse=True)
def no_engine_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENGINE_VARIABLES, *LINK_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def test_a_temporary_folder_whose_path_is_too_long_for_a_socket_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(
        EngineError, match=r"AF_UNIX path too long\nWhere its path is too long, let T"
    ):
        make_client("ssh://nobody@engine.test")
    assert list(folder.iterdir()) == []
