"""`Bridge`: a local unix socket whose connections lead to an engine on another machine, by the user's own ssh.

Each connection is one `ssh host docker system dial-stdio`, as the Docker CLI makes it: keys, agents, jump hosts and
multiplexing are those of ~/.ssh/config. The connection is the program's standard input and output, so that no thread
copies.

Threads: one accepts, starts the programs and keeps their list; `close` waits for its end before it touches that. There
is no lock.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pytest_egress.base.sockets import Socket
from pytest_egress.engine.folder import RunFolder
from pytest_egress.errors import EngineError

# ssh must not ask for a password: pytest uses the terminal.
SSH: Final = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30")
END_SECONDS: Final = 5.0  # for a program that was told to end
BACKLOG: Final = 128
RETRY_SECONDS: Final = 0.1  # until the next accept, after one that failed


class Bridge:
    """A unix socket at `path`, and the ssh programs that serve its connections; EngineError for a malformed address.

    Args:
        address: `ssh://[user@]host[:port][/path of the engine's socket]`.
    """

    def __init__(self, address: str) -> None:
        self._command: Final = dial_command(address)
        self._folder: Final = RunFolder()
        self.path: Final = f"{self._folder.path}/engine"
        self._words: Final = Path(self._folder.path, "stderr")
        self._programs: list[subprocess.Popen[bytes]] = []
        self._closing = False
        self._listener = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(self.path)
        except OSError as error:
            self._listener.close()
            self._folder.remove()
            raise EngineError(
                f"no socket can be had at {self.path!r}: {error}\n"
                "Where its path is too long, let TMPDIR name a folder whose path is shorter."
            ) from None
        self._listener.listen(BACKLOG)
        self._thread = threading.Thread(target=self._serve, name="egress ssh", daemon=True)
        self._thread.start()

    def words(self) -> str:
        """The text that the programs have written to their standard error."""
        with contextlib.suppress(OSError):
            return self._words.read_text("utf-8", "replace").strip()
        return ""

    def close(self) -> None:
        """Calling it again does nothing."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for program in self._programs:
            program.terminate()
        for program in self._programs:
            end(program)
        self._programs = []
        self._folder.remove()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closing:
                    return
                time.sleep(RETRY_SECONDS)  # usually no descriptor is free
                continue
            with connection, contextlib.suppress(OSError):  # without ssh the connection ends
                self._dial(connection)
            self._programs = [each for each in self._programs if each.poll() is None]

    def _dial(self, connection: socket.socket) -> None:
        with self._words.open("ab") as words:
            try:
                program = subprocess.Popen(
                    self._command,
                    stdin=connection.fileno(),
                    stdout=connection.fileno(),
                    stderr=words,
                    start_new_session=True,  # Ctrl-C must not end it: it is needed for removals
                )
            except OSError as error:
                words.write(f"{error}\n".encode())
                raise
        self._programs.append(program)


def dial_command(address: str) -> list[str]:
    """The command whose standard streams are a connection to the engine; EngineError where the address is malformed."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise EngineError(f"the engine's address {address!r} is malformed: {error}") from None
    if not parts.hostname or parts.hostname.startswith("-") or parts.password is not None:
        raise EngineError(
            f"the engine's address {address!r} is malformed: it is ssh://[user@]host[:port]; "
            "a password belongs to an agent or a key"
        )
    user = ["-l", parts.username] if parts.username else []
    number = ["-p", str(port)] if port else []
    path = parts.path.rstrip("/")
    engine = ["--host", f"unix://{path}"] if path else []
    remote = ["docker", *engine, "system", "dial-stdio"]
    return [*SSH, *user, *number, "--", parts.hostname, *remote]


def end(program: subprocess.Popen[bytes]) -> None:
    try:
        program.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
