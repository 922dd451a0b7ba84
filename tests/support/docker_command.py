"""What the docker command says of its settings."""

from __future__ import annotations

import subprocess

ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
LINK_VARIABLES = ("PYTEST_EGRESS_LINK", "PYTEST_EGRESS_SIDECAR_IMAGE")


def docker_command(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, capture_output=True)
