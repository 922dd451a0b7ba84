"""`EngineEndpoint`: the socket of the endpoint, and its connections.

Threads: one accepts, and each connection has one, up to `MAX_CONNECTIONS`. The lock guards the open connections; no
call of the engine is made while it is held.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import docker.errors
import h11

from pytest_egress.base.sockets import Socket
from pytest_egress.endpoint.calls import call_of
from pytest_egress.endpoint.container_calls import CapturedService, ContainerCalls
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.endpoint.wire import Tool
from pytest_egress.errors import EngineError

if TYPE_CHECKING:
    from pytest_egress.inner_egress import InnerEgress

MAX_CONNECTIONS: Final = 64  # at once; each attached container takes three
MAX_REFUSED: Final = 16  # more of them, which get a sentence; further ones are closed
MAX_PATH: Final = 100  # bytes of a socket's path; sun_path has 108
END_SECONDS: Final = 10.0  # for a connection to end once it was cut
PODMAN: Final = (
    "egress.engine() works with Docker alone: give Podman's containers egress.docker_options(image)"
)


class EngineEndpoint:
    """An address to give to any tool as DOCKER_HOST. Made by `Egress.engine`; usable as a context manager.

    Its containers are captured as those of `Egress.run`, and removed when it ends.
    """

    def __init__(self, scope: InnerEgress, *, publishes: bool = True) -> None:
        self._scope, self._engine = scope, scope.session.engine
        self._engine.check_owner()
        if self._engine.is_podman:
            raise EngineError(PODMAN)
        self._calls = ContainerCalls(scope, publishes=publishes)
        self._open: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._has_ended = False
        self._path = os.path.join(self._engine.folder, f"engine-{secrets.token_hex(4)}.sock")
        self._listener = listen(self._path)
        self._acceptor = threading.Thread(target=self._accept, name="egress engine", daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        """The value of DOCKER_HOST."""
        return f"unix://{self._path}"

    def environment(self) -> dict[str, str]:
        """The variables with which a tool uses this engine; add them to its environment."""
        return {"DOCKER_HOST": self.url, "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}

    def __enter__(self) -> EngineEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EngineEndpoint {self.url}>"

    def close(self) -> None:
        """End all connections, and remove the containers made through it. Calling it again does nothing."""
        if self._has_ended or self._engine.inherited:
            return
        self._calls.end()
        with self._lock:
            self._has_ended = True
            threads, socks = [*self._open], [*self._open.values()]
        for sock in (self._listener, *socks):
            cut(sock)
        for thread in (self._acceptor, *threads):
            thread.join(END_SECONDS)
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        self._calls.remove_all()

    def services(self, project: str) -> list[CapturedService]:
        """The containers of a Compose project."""
        return self._calls.services(project)

    def make_network(self, name: str) -> None:
        """Make a network that a tool expects to be there."""
        self._calls.make_network(name)

    # Connections.

    def _accept(self) -> None:
        while not self._has_ended:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(
                target=self._serve, args=[sock], name="egress engine call", daemon=True
            )
            with self._lock:
                most = MAX_CONNECTIONS + MAX_REFUSED
                has_room = len(self._open) < most and not self._has_ended
                if has_room:
                    self._open[thread] = sock
            if has_room:
                thread.start()
            else:
                sock.close()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, contextlib.suppress(OSError, h11.LocalProtocolError):
                tool = Tool(sock)
                self._answer(tool)
                tool.leave()
        finally:
            with self._lock:
                self._open.pop(threading.current_thread(), None)

    def _answer(self, tool: Tool) -> None:
        try:
            if tool.read_request():
                self._check_room()
                self._calls.answer(tool, call_of(tool.method, tool.target))
        except RefusedCall as refusal:
            self._refuse(tool, refusal)
        except h11.RemoteProtocolError as error:
            if tool.has_request:
                self._refuse(tool, RefusedCall(f"the request is no HTTP: {error}"))
        except RecursionError:
            self._refuse(tool, RefusedCall("the body is nested too deeply"))
        except docker.errors.APIError as error:  # the engine's own words
            said = json.dumps({"message": str(error.explanation or error)}).encode()
            if tool.is_open:
                tool.answer(error.status_code or HTTPStatus.INTERNAL_SERVER_ERROR, said)
        except (ValueError, TypeError) as error:
            self._refuse(tool, RefusedCall(str(error)))
        except Exception as error:
            # A tool that gets no answer says "EOF", and nothing of the cause.
            said_of_it = str(error) or type(error).__name__
            self._refuse(tool, RefusedCall(said_of_it, HTTPStatus.INTERNAL_SERVER_ERROR))

    def _check_room(self) -> None:
        with self._lock:
            others = list(self._open).index(threading.current_thread())
        if others >= MAX_CONNECTIONS:
            raise RefusedCall(
                f"{MAX_CONNECTIONS} calls are open at once, which is the most that egress.engine() takes: each "
                "`docker run` without --detach, `logs --follow`, `exec` and `events` keeps some of them open",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )

    def _refuse(self, tool: Tool, refusal: RefusedCall) -> None:
        if tool.is_open:
            text = self._scope.session.ledger.redactor.known(str(refusal))
            tool.answer(refusal.status, RefusedCall(text, refusal.status).body)


def listen(path: str) -> Socket:
    """A listener that only its owner can connect to."""
    if len(os.fsencode(path)) > MAX_PATH:
        raise EngineError(
            f"the path of a socket is too long: {path}; set TMPDIR to a folder with a shorter name"
        )
    sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(MAX_CONNECTIONS)
    except BaseException:
        sock.close()
        raise
    return sock


def cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
