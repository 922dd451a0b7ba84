"""How far the pull of an image is, and whose credentials it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docker
import pytest

from pytest_egress.engine.images import PullProgress, pull
from pytest_egress.engine.progress import Progress, Step


def test_a_pull_says_how_many_bytes_have_come() -> None:
    pull = PullProgress("shop")
    step = {
        "id": "1",
        "status": "Downloading",
        "progressDetail": {"current": 10**6, "total": 10**7},
    }
    assert pull.take_step({"status": "Pulling fs layer", "id": "1"}) == "pulling shop"
    assert pull.take_step(step) == "pulling shop: 1.0 of 10.0 MB"
    assert (
        pull.take_step({"status": "Download complete", "id": "1"})
        == "pulling shop: 10.0 of 10.0 MB"
    )
    assert pull.take_step({"status": "Extracting", "id": "1"}) == "pulling shop: 10.0 of 10.0 MB"


class Registry(docker.APIClient):
    """An engine that is never asked: what a pull would send it is noted."""

    def __init__(self) -> None:
        self.sent: list[dict[str, bytes]] = []
        super().__init__(base_url="tcp://127.0.0.1:9", version="1.41")

    def _post(self, url: str, **options: Any) -> Any:
        self.sent.append(options["headers"])
        raise PullSent


class PullSent(Exception):
    """The engine has been asked."""


class Holder:
    """What has an API client, as a `DockerClient` has."""

    def __init__(self) -> None:
        self.api = Registry()


def test_a_pull_goes_without_credentials_where_the_program_that_keeps_them_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "nobody-has-it"}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    holder: Any = Holder()
    with pytest.raises(PullSent):
        pull(holder, "python:3.13-slim", Step(Progress(), "pulling"))
    (headers,) = holder.api.sent
    assert headers["X-Registry-Auth"] == b"e30="  # {}
    assert "pulling python without credentials" in caplog.text
    assert "docker-credential-nobody-has-it" in caplog.text
    holder.api.close()
