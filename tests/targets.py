"""A container in a sidecar's namespace that runs snippets of Python, for tests of what captures."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from pytest_egress.link import DescriptorLink
from pytest_egress.sidecar import Sidecar

_PREAMBLE = """
import errno, os, socket, struct, sys, time
def attempt(action):
    try:
        return action()
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
"""


class Target:
    """A container that waits for snippets."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def python(self, code: str) -> str:
        """What the snippet prints, stripped; a failure of it is one of the test."""
        result = self.container.exec_run(["python3", "-c", _PREAMBLE + textwrap.dedent(code)])
        assert isinstance(result.output, bytes)
        output = result.output.decode()
        assert result.exit_code == 0, output
        return output.strip()

    def start_python(self, code: str) -> None:
        """Start the snippet and leave it running."""
        command = ["python3", "-c", _PREAMBLE + textwrap.dedent(code)]
        self.container.exec_run(command, detach=True)


def wait_until_gone(client: docker.DockerClient, container: str) -> None:
    """Return when the engine knows the container no longer."""
    with contextlib.suppress(NotFound):
        while True:
            client.api.inspect_container(container)


@contextmanager
def captured_namespace(client: docker.DockerClient) -> Iterator[tuple[Sidecar, DescriptorLink]]:
    """A sidecar of its own and its link, both gone at the end."""
    sidecar = Sidecar.create(client)
    try:
        link = sidecar.start()
        try:
            yield sidecar, link
        finally:
            link.close()
    finally:
        sidecar.remove()


@contextmanager
def target_in(
    client: docker.DockerClient, sidecar: Sidecar, image: str, **options: Any
) -> Iterator[Target]:
    """A target in the sidecar's namespace."""
    container = client.containers.create(
        image, ["sleep", "600"], network_mode=f"container:{sidecar.id}", **options
    )
    try:
        container.start()
        yield Target(container)
    finally:
        container.remove(force=True)
