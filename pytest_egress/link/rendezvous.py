"""`Rendezvous`: the mounted folder, with a nonce and a unix socket, through which a sidecar's agent connects."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

from pytest_egress.agent.main import NONCE_NAME, SOCKET_NAME
from pytest_egress.base.sockets import Socket
from pytest_egress.link.descriptor import DescriptorLink


class Rendezvous:
    """A folder to mount into the sidecar, in which the agent finds a nonce and a unix socket; a context manager.

    Args:
        parent: Where the folder is made; the machine's folder for temporary files by default.

    The outer folder keeps other users of this machine out. The inner one, which is mounted, is open to
    every user: the sidecar's root may be mapped to any, and has no capability to get around permissions.

    Attributes:
        folder: The absolute path of the inner folder.
        nonce: A random text in the folder, which proves that the agent sees this machine's files.
        socket: The listener for the agent; it is readable when the agent has connected.
    """

    def __init__(self, parent: str | None = None) -> None:
        self._outer = tempfile.mkdtemp(prefix="pytest-egress-", dir=parent)
        self.folder = f"{self._outer}/link"
        self.nonce = secrets.token_hex(16)
        self.socket = Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._fill()
        except BaseException:
            self.close()
            raise

    def _fill(self) -> None:
        # chmod, not a mode at creation: the process may have any umask
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)
        nonce = Path(self.folder, NONCE_NAME)
        nonce.write_text(self.nonce, encoding="ascii")
        nonce.chmod(0o644)
        # Bound through a descriptor: a unix socket's own path has room for 107 bytes (unix(7)).
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self.socket.bind(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
        finally:
            os.close(folder)
        os.chmod(f"{self.folder}/{SOCKET_NAME}", 0o666)
        self.socket.listen(1)

    def accept(self) -> DescriptorLink:
        """LinkError where the agent gave up, with the agent's own text, or ended, or sent nothing."""
        channel, _ = self.socket.accept()
        return DescriptorLink.receive(channel)

    def close(self) -> None:
        """A link that was accepted needs neither the folder nor the listener."""
        self.socket.close()
        shutil.rmtree(self._outer, ignore_errors=True)

    def __enter__(self) -> Rendezvous:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
