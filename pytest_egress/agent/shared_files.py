"""The files that a target shares with its sidecar besides the network: the engine mounts them into both, writable.

They are put back before a sidecar serves another target. Where a file cannot be put back, the sidecar serves no other.
"""

from __future__ import annotations

import fcntl
import posix
from errno import EINVAL, ENOTTY, EOPNOTSUPP
from struct import calcsize, pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Attributes: TypeAlias = tuple[int, ...]

SHARED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_MOST_BYTES = 1 << 20
_READ, _WRITE = 2, 1  # of an ioctl's number, ioctl(2)
_FLAGS, _EXTENDED = "l", "=5I8x"  # the arguments of FS_IOC_GETFLAGS and FS_IOC_FSGETXATTR
_HAS_NONE = (ENOTTY, EOPNOTSUPP, EINVAL)  # of a file system without such attributes


class SharedFiles:
    """The states of the files when this was made."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = {path: State(path) for path in SHARED}

    def put_back(self) -> bool:
        """Return whether each file is as it was before a target."""
        try:
            self._write_back()
            return all(State(path) == before for path, before in self._before.items())
        except OSError:
            return False

    def _write_back(self) -> None:
        """Files that seem unchanged are written too: only this shows whether chattr(1) has forbidden it."""
        for path, before in self._before.items():
            if mode_of(path) != before.mode:  # before its content: this mode may keep us from that
                posix.chmod(path, before.mode)
            with open(path, "r+b") as file:
                set_attributes(file.fileno(), before.attributes)
                file.truncate(0)
                file.write(before.content)
            posix.utime(path)


def number(direction: int, group: str, index: int, form: str) -> int:
    return direction << 30 | calcsize(form) << 16 | ord(group) << 8 | index


def attributes_of(file: int) -> Attributes:
    """The attributes that chattr(1) sets: the flags; then the extended flags, the project and sizes of extents."""
    flags = get(file, number(_READ, "f", 1, _FLAGS), _FLAGS)
    extended = get(file, number(_READ, "X", 31, _EXTENDED), _EXTENDED)
    (found,) = unpack_from("=I", flags)
    more, size, _extents, project, copied_size = unpack_from(_EXTENDED, extended)
    return found, more, size, project, copied_size


def get(file: int, request: int, form: str) -> bytes:
    """Zeros where the file system has no such attributes."""
    try:
        return fcntl.ioctl(file, request, bytes(calcsize(form)))
    except OSError as error:
        if error.errno not in _HAS_NONE:
            raise
        return bytes(calcsize(form))


def set_attributes(file: int, wanted: Attributes) -> None:
    if attributes_of(file) == wanted:
        return
    flags, more, size, project, copied_size = wanted
    extended = pack(_EXTENDED, more, size, 0, project, copied_size)
    fcntl.ioctl(file, number(_WRITE, "X", 32, _EXTENDED), extended)
    fcntl.ioctl(file, number(_WRITE, "f", 2, _FLAGS), pack(_FLAGS, flags))


def mode_of(path: str) -> int:
    return posix.stat(path).st_mode & 0o7777


class State:
    """A file's content, mode, owner, extended attributes (xattr(7)), and attributes by chattr(1)."""

    __slots__ = ("attributes", "content", "extended", "mode", "owner")

    def __init__(self, path: str) -> None:
        found = posix.stat(path)
        self.mode, self.owner = mode_of(path), (found.st_uid, found.st_gid)
        self.extended = {name: posix.getxattr(path, name) for name in posix.listxattr(path)}
        with open(path, "rb") as file:
            self.attributes = attributes_of(file.fileno())
            self.content = file.read(_MOST_BYTES)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in State.__slots__)

    __hash__ = None  # type: ignore[assignment]
