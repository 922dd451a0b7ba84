"""Tar archives, as the engine's archive endpoints take and give them.

Rule: pure functions over bytes. An archive made here is meant to be extracted at `/`, and holds an
entry only for what was asked for: an entry for a directory that exists would reset its mode and
owner, so parents get none (the engine makes those that are missing).
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

_DIRECTORY_MODE = 0o755
_PERMISSIONS = 0o7777
_END = bytes(2 * tarfile.BLOCKSIZE)  # of every archive that is whole


@dataclass(frozen=True, kw_only=True)
class File:
    """A regular file in an archive.

    Attributes:
        content: All of it.
        mode: Its permission bits.
        uid: Its owner; the engine maps the number into the container's user namespace.
        gid: Its group, likewise.
        mtime: When it was changed, in seconds since 1970. Zero makes equal archives equal bytes.
    """

    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0


@dataclass(frozen=True, kw_only=True)
class Member:
    """What a folder has at a path; neither of these where it is a device, or the like.

    Attributes:
        directory: Whether it is one.
        target: Where it leads, of a link.
        file: A regular file.
    """

    directory: bool = False
    target: str | None = None
    file: File | None = None


def build_tar(files: Mapping[str, File | bytes], directories: Iterable[str] = ()) -> bytes:
    """The archive that, extracted at `/`, makes these directories and files.

    `PUT /containers/{id}/archive` replaces what is there: a link by a regular file, and a directory
    too.

    Args:
        files: From the absolute path in the container to the file, or to its content alone.
        directories: Absolute paths of directories that do not exist yet; mode 0755, owner root.

    Raises:
        ValueError: A path is relative, is `/`, has a `..`, or occurs twice.
    """
    members: dict[str, File | None] = {}
    for path in directories:
        _add(members, path, None)
    for path, file in files.items():
        _add(members, path, File(content=file) if isinstance(file, bytes) else file)
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8"
    ) as archive:
        for name, entry in sorted(members.items(), key=lambda member: member[0]):
            content = b"" if entry is None else entry.content
            archive.addfile(_describe(name, entry), io.BytesIO(content))
        end = archive.offset + len(_END)  # Podman breaks off at what would fill a record behind it
    return buffer.getvalue()[:end]


def read_tar(data: bytes | Iterable[bytes]) -> dict[str, File]:
    """The regular files of an archive, by their name in it.

    `GET /containers/{id}/archive` names them relatively to the parent of the path it is asked for.

    Args:
        data: The archive, whole or in chunks as a response body brings it.

    Raises:
        tarfile.TarError: `data` is no archive.
    """
    whole = data if isinstance(data, bytes) else b"".join(data)
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:", encoding="utf-8") as archive:
        return {member.name: _read(archive, member) for member in archive if member.isreg()}


def read_folder(chunks: Iterable[bytes], limit: int) -> dict[str, Member] | None:
    """All that a folder has, by the path in it; the folder itself is at "".

    An archive that is cut off looks like one that ends, and what is not in it as if it were missing: only where the
    end is marked it counts.

    Args:
        chunks: The archive that `GET /containers/{id}/archive` answers with.
        limit: The bytes of it that are read at most.

    Returns:
        None where this is not the whole of a folder, or cannot be told.
    """
    stream, members = _Stream(chunks, limit), dict[str, Member]()
    try:
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as archive:
            for info in archive:
                members[_inside(info.name)] = _member(archive, info, members)
            end = archive.offset
        while stream.read():
            pass
    except (tarfile.TarError, KeyError):
        return None
    whole = stream.size >= end + len(_END) and stream.tail == _END
    return members if whole and "" in members and members[""].directory else None


class _Stream(io.RawIOBase):
    """Chunks as a file that is read from the beginning to the end, and up to a limit."""

    def __init__(self, chunks: Iterable[bytes], limit: int) -> None:
        self._chunks, self._limit = iter(chunks), limit
        self.size, self.tail = 0, b""

    def read(self, _size: int = -1) -> bytes:
        """The next chunk, however long it is: `tarfile` keeps what it does not need yet."""
        chunk = next(self._chunks, b"")
        self.size += len(chunk)
        if self.size > self._limit:
            raise tarfile.ReadError(f"more than {self._limit} bytes")
        self.tail = (self.tail + chunk)[-len(_END) :]
        return chunk


def _inside(name: str) -> str:
    """The path in a folder of what is named with it."""
    return posixpath.normpath(name).partition("/")[2]


def _member(
    archive: tarfile.TarFile, info: tarfile.TarInfo, members: Mapping[str, Member]
) -> Member:
    if info.islnk():  # one more name of what went before
        return members[_inside(info.linkname)]
    return Member(
        directory=info.isdir(),
        target=info.linkname if info.issym() else None,
        file=_read(archive, info) if info.isreg() else None,
    )


def _add(members: dict[str, File | None], path: str, entry: File | None) -> None:
    name = _relative(path)
    if name in members:
        raise ValueError(f"cannot put {path!r} into an archive twice")
    members[name] = entry


def _relative(path: str) -> str:
    """`path` as it is named in an archive that is extracted at `/`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/"):
        raise ValueError(f"cannot put {path!r} into a container: its path is not absolute")
    if ".." in parts:
        raise ValueError(f"cannot put {path!r} into a container: '..' may lead anywhere")
    if not parts:
        raise ValueError(f"cannot put {path!r} into a container: it is the root itself")
    if "\0" in path:
        raise ValueError(f"cannot put {path!r} into a container: no path has a null character")
    return "/".join(parts)


def _describe(name: str, entry: File | None) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    if entry is None:
        info.type, info.mode = tarfile.DIRTYPE, _DIRECTORY_MODE
        return info
    info.size, info.mode, info.mtime = len(entry.content), entry.mode, entry.mtime
    info.uid, info.gid = entry.uid, entry.gid
    return info


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> File:
    reader = archive.extractfile(member)
    assert reader is not None, "a regular file has content"
    return File(
        content=reader.read(),
        mode=member.mode & _PERMISSIONS,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
    )
