"""Tar archives, as the engine's archive endpoints take and return them.

The rule: pure functions over bytes. An archive made here is extracted at `/`, and has no entries for parent
directories: an entry for a directory that exists would reset its mode and owner, and the engine makes missing ones.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_DIRECTORY_MODE = 0o755
_PERMISSIONS = 0o7777
_HEADS = 1 << 20  # of a file's own headers, with its extended attributes
_END = bytes(2 * tarfile.BLOCKSIZE)  # ends every archive that is complete


@dataclass(frozen=True, kw_only=True)
class File:
    """A regular file in an archive.

    Attributes:
        uid: Its owner's number; the engine maps it and the group's into the container's user namespace.
        mtime: When it was changed, in seconds since 1970. With zero, equal files make equal archives.
    """

    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member of a folder's archive. A device or the like has none of these attributes."""

    directory: bool = False
    target: str | None = None
    file: File | None = None


def build_tar(files: Mapping[str, File | bytes], directories: Iterable[str] = ()) -> bytes:
    """Build the archive that, extracted at `/`, makes these directories and files.

    `PUT /containers/{id}/archive` replaces what exists at a path, links and directories included.

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
        end = archive.offset + len(_END)  # cut tar's padding behind it: Podman fails at that
    return buffer.getvalue()[:end]


class LargeFileError(ValueError):
    def __init__(self, limit: int) -> None:
        super().__init__(f"it has more than {limit >> 20} MiB")


class CutArchiveError(tarfile.ReadError):
    """An archive ended before its end mark: the engine has broken it off."""


def read_file(chunks: Iterable[bytes], limit: int) -> File:
    """Read the regular file of an archive (`GET /containers/{id}/archive`).

    Raises:
        LargeFileError: It has more. No more than that has been read.
        CutArchiveError: The archive ends within it, or before.
        tarfile.TarError: There is none.
    """
    stream = _ChunkFile(chunks, limit + _HEADS)
    try:
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as archive:
            for member in archive:
                if member.isreg() and member.size > limit:
                    raise LargeFileError(limit)
                if member.isreg():
                    return _read(archive, member)
    except tarfile.TarError:
        stream.check_end(within=True)
        raise
    stream.check_end()
    raise tarfile.ReadError("no regular file")


def read_folder(chunks: Iterable[bytes], limit: int) -> dict[str, Member] | None:
    """Read all members of a folder's archive, by the path in the folder; the folder itself is at "".

    `tarfile` takes an archive that was cut off for one that has ended, and the rest would seem not to exist. So only an
    archive with its end mark counts.

    Args:
        limit: How many bytes of it to read at most.

    Returns:
        None where the archive is not that of a folder, or over the limit.

    Raises:
        CutArchiveError: It is not complete.
    """
    stream, members = _ChunkFile(chunks, limit), dict[str, Member]()
    try:
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as archive:
            for info in archive:
                members[_inside(info.name)] = _member(archive, info, members)
            end = archive.offset
        while stream.read():
            pass
    except tarfile.TarError:
        stream.check_end(within=True)
        return None
    except KeyError:
        return None
    stream.check_end(within=stream.size < end + len(_END))
    return members if "" in members and members[""].directory else None


class _ChunkFile(io.RawIOBase):
    """A file over chunks that is read once from beginning to end, up to a limit."""

    def __init__(self, chunks: Iterable[bytes], limit: int) -> None:
        self._chunks, self._limit = iter(chunks), limit
        self._tail, self._has_ended = b"", False
        self.size = 0

    def check_end(self, *, within: bool = False) -> None:
        """Raise CutArchiveError where it ended without an end mark, or `within` what is known not to be whole."""
        if self._has_ended and (within or self._tail != _END):
            raise CutArchiveError(
                f"the archive ends after {self.size} bytes, without its end mark"
            ) from None

    def read(self, _size: int = -1) -> bytes:
        """The next chunk, whatever its length: `tarfile` buffers what it does not need yet."""
        chunk = next(self._chunks, b"")
        self._has_ended = not chunk
        self.size += len(chunk)
        if self.size > self._limit:
            raise tarfile.ReadError(f"more than {self._limit} bytes")
        self._tail = (self._tail + chunk)[-len(_END) :]
        return chunk


def _inside(name: str) -> str:
    """A member's name begins with the folder's own."""
    return posixpath.normpath(name).partition("/")[2]


def _member(
    archive: tarfile.TarFile, info: tarfile.TarInfo, members: Mapping[str, Member]
) -> Member:
    if info.islnk():  # a hard link: one more name of an earlier member
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
    """The name of a path in an archive that is extracted at `/`."""
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
