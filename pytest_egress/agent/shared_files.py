"""The files that a target shares with its sidecar besides the network: the engine mounts them into both, writable.

They are put back before a sidecar serves another target. Where a file cannot be put back, the sidecar serves no other.
"""

from __future__ import annotations

import posix

SHARED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_MOST_BYTES = 1 << 20


class SharedFiles:
    """The files, and what they were when this was made."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = {path: State(path) for path in SHARED}

    def put_back(self) -> bool:
        """Undo what a target has made of the files; return whether each is as it was."""
        try:
            self._write_back()
            return all(State(path) == before for path, before in self._before.items())
        except OSError:
            return False

    def _write_back(self) -> None:
        """Write each file, also one that seems to be as it was: chattr(1) may have forbidden that, which shows so."""
        for path, before in self._before.items():
            if mode_of(path) != before.mode:  # before its content: this mode may keep us from that
                posix.chmod(path, before.mode)
            with open(path, "r+b") as file:
                file.truncate(0)
                file.write(before.content)


def mode_of(path: str) -> int:
    """The permission bits of a file."""
    return posix.stat(path).st_mode & 0o7777


class State:
    """A file's content, mode, owner, and the names of its extended attributes."""

    __slots__ = ("content", "mode", "names", "owner")

    def __init__(self, path: str) -> None:
        found = posix.stat(path)
        self.mode, self.owner = mode_of(path), (found.st_uid, found.st_gid)
        self.names = posix.listxattr(path)
        with open(path, "rb") as file:
            self.content = file.read(_MOST_BYTES)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in State.__slots__)

    __hash__ = None  # type: ignore[assignment]
