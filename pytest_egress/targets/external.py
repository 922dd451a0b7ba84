"""`ExternalContainer`: a target that something else creates and starts, in the network of a sidecar of ours."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest_egress.targets.trust.placing as trust
from pytest_egress.engine.engine import Engine, check_runtime
from pytest_egress.targets.container import Container
from pytest_egress.targets.contents import Contents
from pytest_egress.targets.created import check_machine
from pytest_egress.targets.ingress import Ingress
from pytest_egress.targets.options import check_container_options
from pytest_egress.targets.processes import check_processes
from pytest_egress.targets.sidecars.provision import SidecarSetup
from pytest_egress.targets.sidecars.sidecar import Sidecar
from pytest_egress.targets.trust.runtimes import DIRECTORY, variables

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer
    from docker.models.images import Image

# The options with which a container can leave its namespaces, by their names in `GET /containers/{id}/json`.
ESCAPES: Final = {
    "privileged": "Privileged",
    "pid_mode": "PidMode",
    "ipc_mode": "IpcMode",
    "uts_mode": "UTSMode",
    "cap_add": "CapAdd",
    "security_opt": "SecurityOpt",
}
NEVER_RUN: Final = ["never-run"]  # the engine creates no container without a command


class ExternalContainer(Container):
    """A target that something else creates and starts, in the network of a sidecar of ours.

    Attributes:
        network_mode: The network mode that such a target is created with, and recognised by.
        find_peers: Finds the containers that a name is for, in a network of both.
    """

    network_mode = ""
    find_peers: Callable[[str], Sequence[Container]] = staticmethod(lambda name: ())

    def peers(self, name: str) -> Sequence[Container]:
        return self.find_peers(name)

    def open(self) -> dict[str, Any]:
        """Start the sidecar; return docker-py's options to create the target with. After an error nothing is left."""
        try:
            return self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> dict[str, Any]:
        image = self._services.engine.image(self._plan.image)
        sidecar, setup = self._services.provisioner.sidecar(self._start_sidecar, self.close)
        self.hints = ["trust(container) was not called for it: variables alone lead to the CA"]
        self.network_mode = f"container:{sidecar.id}"
        contents = self._contents(image)
        found = {
            "network_mode": self.network_mode,
            "environment": contents.environment(),
            **self._names(),
        }
        if setup.image is None:  # else the engine may not see this machine's folders
            found["volumes"] = {self._folder(image, contents): {"bind": DIRECTORY, "mode": "ro"}}
        return found

    def _contents(self, image: Image) -> Contents:
        return Contents(self._services, self._plan, image, self._hostname)

    def _start_sidecar(self, setup: SidecarSetup) -> tuple[Sidecar, SidecarSetup]:
        sidecar = self._create_sidecar(dict(self._plan.options), setup)
        self._open_gateway(sidecar.start())
        return sidecar, setup

    def _folder(self, image: Image, contents: Contents) -> str:
        """Make a folder with our files, to be mounted, so that a target trusts the CA without a call of `adopt`."""
        engine, authority = self._services.engine, self._services.authority
        scratch = engine.create(image, self._plan.image, command=NEVER_RUN)
        try:
            roots = contents.roots(contents.files(scratch))
        finally:
            engine.remove(scratch)
        folder = tempfile.mkdtemp(dir=engine.folder)
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        os.chmod(folder, 0o755)  # the target may run as any user
        for name, content in trust.own_files(authority.ca_pem, roots).items():
            path = Path(folder, name)
            path.write_bytes(content)
            path.chmod(0o644)
        return folder

    @property
    def hostname(self) -> str:
        """The name that its programs see."""
        return self._hostname

    @property
    def own_address(self) -> str:
        """The IPv4 address that its programs see."""
        return str(self.hosts[self._hostname.lower()].addresses[0])

    def publish(
        self, port: int, address: tuple[str, int], note_closed: Callable[[], object]
    ) -> Ingress:
        """Have an address of loopback lead to a port of the target, until it is closed.

        Args:
            note_closed: Called for each connection for which nothing listened.

        Raises:
            OSError: That address is taken.
        """

        def note() -> None:
            self._note_closed(port)
            note_closed()

        ingress = Ingress(lambda: self.connect(port), note, address)
        self._cleanup.callback(ingress.close)
        return ingress

    def adopt(self, container: DockerContainer) -> None:
        """Put the CA into the target's bundles; ValueError if it runs already, or has options that `start` refuses."""
        if container.status != "created":
            raise ValueError(
                f"{container.name} is {container.status}: trust() takes a container that is created and not yet started"
            )
        check_runtime(container)
        check_created(self._services.engine, container)
        self._take(container)
        image = container.image
        assert image is not None
        of_image = image.attrs["Config"].get("Env") or []
        given = {*(container.attrs["Config"].get("Env") or [])} - {*of_image}
        self._services.hide(variables([*given]))
        self.variables.update(variables([*given]))
        contents = self._contents(image)
        contents.fill(container)
        self.hints = contents.hints
        self.search |= contents.search


def check_created(engine: Engine, container: DockerContainer) -> None:
    """Raise ValueError for options by which a container could leave its sidecar, as `start` does.

    The other options that `start` refuses are refused by the engine itself together with another container's network.
    """
    config = container.attrs["HostConfig"]
    try:
        check_container_options({name: config.get(field) for name, field in ESCAPES.items()})
        check_machine(engine, container)
        check_processes(engine, container)
    except ValueError as error:
        raise ValueError(f"{container.name}: {error}") from None
