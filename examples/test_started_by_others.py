"""Containers that something else starts: docker-py, testcontainers, Docker Compose.

`egress.docker_options(image)` is what to create the container with; `egress.trust(container)` puts the CA into its own
bundle too, before it starts, and returns the handle that `egress.start` would have returned.
"""

import json
import subprocess
from pathlib import Path

import docker
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from pytest_egress import Egress

CHARGE = ["python", "-m", "shop.charge"]


def test_docker_py(egress: Egress, shop_image: str) -> None:
    charges = egress.intercept_https("api.stripe.com", {"id": "ch_1"})
    client = docker.from_env()
    container = client.containers.create(shop_image, CHARGE, **egress.docker_options(shop_image))
    try:
        shop = egress.trust(container)
        container.start()
        assert shop.wait().stdout == "charged ch_1\n"
    finally:
        container.remove(force=True)
        client.close()
    assert charges.call_count == 1


def test_testcontainers(egress: Egress, shop_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It creates and starts in one: variables and a mounted folder lead to the CA."""
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)  # it would be pulled
    egress.intercept_https("api.stripe.com", {"id": "ch_2"})
    options = egress.docker_options(shop_image)
    shop = DockerContainer(shop_image).with_command(CHARGE)
    shop.with_kwargs(network_mode=options["network_mode"])
    for name, value in options["environment"].items():
        shop.with_env(name, value)
    for folder, mount in options["volumes"].items():
        shop.with_volume_mapping(folder, mount["bind"], mount["mode"])
    with shop.waiting_for(LogMessageWaitStrategy("charged ch_2")):
        pass


def test_compose(egress: Egress, shop_image: str, tmp_path: Path) -> None:
    """A file of ours, over the user's own, that changes nothing but where the service's network and roots are."""
    egress.intercept_https("api.stripe.com", {"id": "ch_3"})
    service = {"image": shop_image, "command": CHARGE}
    (tmp_path / "compose.yaml").write_text(json.dumps({"services": {"shop": service}}))
    options = egress.docker_options(shop_image)
    volumes = [f"{folder}:{m['bind']}:{m['mode']}" for folder, m in options["volumes"].items()]
    ours = {"services": {"shop": {**options, "volumes": volumes}}}
    (tmp_path / "egress.yaml").write_text(json.dumps(ours))

    compose = ["docker", "compose", "-f", "compose.yaml", "-f", "egress.yaml"]
    try:
        up = [*compose, "up", "--no-log-prefix", "--abort-on-container-exit"]
        done = subprocess.run(up, cwd=tmp_path, capture_output=True, text=True, check=True)
    finally:
        subprocess.run([*compose, "down"], cwd=tmp_path, capture_output=True, check=True)
    assert "charged ch_3" in done.stdout
