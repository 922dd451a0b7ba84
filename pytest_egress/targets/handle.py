"""The interface of a container for tests: the names that editors complete, type checkers see and the reference lists.

`Egress` returns a `container.Container`, which has more names, for `Egress` itself and the gateway. The interface is a
module of its own since test files import it for their annotations: it takes 50 ms, and `container` 400, with docker-py.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, runtime_checkable

from pytest_egress.targets.ingress import CONNECT_SECONDS
from pytest_egress.targets.results import CompletedContainer

STOP_SECONDS: Final = 10.0  # between the two signals of `stop`: docker's own


@runtime_checkable
class Container(Protocol):
    """A target, running behind its sidecar. Made by `Egress.start`; usable as a context manager."""

    @property
    def name(self) -> str:
        """Its name in the ledger: the image's name, numbered where there are several."""

    @property
    def id(self) -> str:
        """The engine's identifier."""

    def connect(self, port: int, timeout: float = CONNECT_SECONDS) -> socket.socket:
        """A TCP connection to a port of the container, through its namespace.

        Args:
            timeout: Seconds.

        Raises:
            OSError: Nothing listens there.
        """

    def address(self, port: int) -> tuple[str, int]:
        """Host and port, in the test process, that lead to a port of the container."""

    def url(self, port: int, path: str = "/") -> str:
        """An `http://` URL that leads to a port of the container."""

    def logs(self) -> str:
        """The container's output, of both streams, as UTF-8 text; bytes that cannot be decoded are replaced."""

    def exec(
        self,
        command: Sequence[str] | str,
        *,
        user: str = "",
        workdir: str | None = None,
        env: Mapping[str, str] | None = None,
        privileged: bool = False,
        timeout: float = 60,
        check: bool = True,
    ) -> CompletedContainer:
        """Run a command in the container, and wait for its end.

        Args:
            command: A list of arguments, or a string that is split.
            user: A name or number, by default that of the container.
            workdir: An absolute path, by default that of the container.
            env: More variables for the command.
            privileged: Whether the command has all capabilities. Docker's own seccomp profile holds it in there:
                it is refused where `security_opt=` or the engine has another one, and on Podman, which takes it away.
            timeout: Seconds until an error is raised. An engine cannot end a command, so that it runs on.
            check: Whether another exit code than 0 is an error.

        Raises:
            CommandError: The command exited with another code than 0, and `check` is not False; what it wrote is in the
                text.
            ContainerTimeoutError: The command still runs.
            EngineError: The engine does not run it; or it wrote more than 256 MiB.
        """

    def wait(self, timeout: float = 60) -> CompletedContainer:
        """Wait for the container's end, and until everything that it sent has been handled.

        Args:
            timeout: Seconds.

        Raises:
            ContainerTimeoutError: It still runs. It is removed, and its logs are in the text.
        """

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Shut the container down: send SIGTERM, or the image's own stop signal; kill it if it still runs after a time.

        The routes answer what it sends meanwhile, the test is judged by that, and all of it has been handled when this
        returns. `wait` then returns its exit code and output, and its `note` says if it was killed. It is removed at
        the end of its scope, or of its `with` block. A container that has ended already is left as it is.

        Args:
            timeout: Seconds until it is killed.

        Raises:
            EngineError: The engine cannot stop it.
        """

    def __enter__(self) -> Container: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
