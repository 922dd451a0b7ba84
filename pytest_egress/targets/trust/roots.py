"""Finds the roots that a created container trusts: their real paths and their content.

The engine is asked as rarely as possible: for each call it mounts the container's files anew, which takes milliseconds.
All knowledge is in the tables here: one row for each distribution.
"""

from __future__ import annotations

import contextlib
import itertools
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from pytest_egress.base.once import once_property
from pytest_egress.base.paths import is_under, is_within, normal
from pytest_egress.engine.archive import File, LargeFileError, Member
from pytest_egress.targets.trust.certificates import (
    JKS_MAGIC,
    from_java_keystore,
    from_pem,
    java_keystore,
    merge,
)
from pytest_egress.targets.trust.runtimes import VARIABLES

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer

    from pytest_egress.engine.engine import Engine

BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, distroless
    "/etc/ssl/cert.pem",  # Alpine, as a link
    "/etc/ssl/certs/ca-bundle.crt",  # Nix
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/pki/tls/cert.pem",  # Fedora, RHEL, for OpenSSL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL, where the links lead
    "/etc/ssl/ca-bundle.pem",  # openSUSE, as a link
    "/etc/pki/tls/cacert.pem",  # OpenELEC
)
DEFAULT_BUNDLE: Final = BUNDLES[0]
HASHED_DIRECTORY: Final = "/etc/ssl/certs"  # where OpenSSL looks for a CA by its name
KEYSTORES: Final = ("/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts")
OF_JAVA_HOME: Final = ("lib/security", "jre/lib/security")  # the second is Java 8's
OF_JAVA: Final = ("jssecacerts", "cacerts")  # in the JVM's own order
# Folders that are each read in one call. The last, openSUSE's, is read only if a link leads there.
FOLDERS: Final = ("/etc/ssl", "/etc/pki", "/var/lib/ca-certificates")
FOLDER_BYTES: Final = 8 << 20  # to read of one at most: several times a distribution's
MAX_FILE_BYTES: Final = 16 << 20  # of roots, or of a list of packages: many times a large one's
MAX_LINKS: Final = 40  # to follow in a row, as Linux does (path_resolution(7))
CLIMB: Final = re.compile(r"(\.\./+)*")  # at the start of a link's target
NEVER_LINKS: Final = ("/etc", "/var", "/var/lib")  # not looked at where nothing is mounted
GO_DIRECTORY: Final = 1 << 31  # of an os.FileMode
GO_TYPES: Final = 0x8F280000  # of an os.FileMode: whatever makes a file no regular one


@dataclass(frozen=True, kw_only=True)
class Roots:
    """The roots that an image trusts.

    Attributes:
        bundles: Its PEM bundles, each once, at its real path.
        names: The paths that lead to bundles, each with the real path.
        default_bundle: The real path at which `DEFAULT_BUNDLE` can be created; None where something else is there.
        keystores: Its Java keystore, at its real path; empty where it has none that can be read.
        of_java: The certificates that a Java trusts, in DER: those of the keystore, or else of the bundles.
        hashed_directory: The real path of `HASHED_DIRECTORY`, or None where it has none.
        mounts: The real paths of the mounts that are not the container's own.
        large: The real paths of bundles that were left, since no roots are so large.
    """

    bundles: Mapping[str, File] = field(default_factory=dict)
    merged: bytes = b""
    names: Mapping[str, str] = field(default_factory=dict)
    default_bundle: str | None = DEFAULT_BUNDLE
    keystores: Mapping[str, File] = field(default_factory=dict)
    of_java: Sequence[bytes] = ()
    hashed_directory: str | None = None
    mounts: Sequence[str] = ()
    large: Sequence[str] = ()

    def extended(self) -> list[str]:
        """The paths, links among them, of the bundles that get the CA."""
        return [name for name, real in self.names.items() if not is_within(real, self.mounts)]


class FileKind(Enum):
    MISSING = auto()
    DIRECTORY = auto()
    REGULAR = auto()
    OTHER = auto()


def find_roots(files: Files, image_env: Mapping[str, str], user_env: Mapping[str, str]) -> Roots:
    """Find the roots that a created container trusts, those that variables of the image or the test name among them."""
    named = [
        path
        for values in (image_env, user_env)
        for variable in VARIABLES
        if variable.form == "bundle" and (path := values.get(variable.name, "")).startswith("/")
    ]
    names = {
        path: real
        for path in dict.fromkeys([*BUNDLES, *map(normal, named)])
        for real, kind in [files.resolve(path)]
        if kind is FileKind.REGULAR
    }
    bundles = files.read_small(dict.fromkeys(names.values()))
    names = {path: real for path, real in names.items() if real in bundles}
    merged = merge(file.content for file in bundles.values())
    keystores, of_java = find_keystore(files)
    default, default_kind = files.resolve(DEFAULT_BUNDLE)
    hashed, hashed_kind = files.resolve(HASHED_DIRECTORY)
    return Roots(
        bundles=bundles,
        merged=merged,
        names=names,
        default_bundle=default if default_kind is FileKind.MISSING else None,
        keystores=keystores,
        of_java=of_java or from_pem(merged),
        hashed_directory=hashed if hashed_kind is FileKind.DIRECTORY else None,
        mounts=files.mounts,
        large=tuple(files.large),
    )


def find_keystore(files: Files) -> tuple[dict[str, File], list[bytes]]:
    """Find the first Java keystore that can be read, by its real path, and its certificates; both may be empty."""
    find = files.resolve if files.foreign else files.look  # a home's links may lead into a mount
    of_home = (find(f"{home}/{name}") for home in files.homes for name in OF_JAVA)
    known = (files.resolve(path) for path in KEYSTORES)
    # Lazy: the engine is asked until one is found.
    for real, kind in itertools.chain(of_home, known):
        if kind is FileKind.REGULAR and (file := files.read_small([real]).get(real)) is not None:
            with contextlib.suppress(ValueError):  # the JVM would use the next one too
                found = from_java_keystore(file.content)
                if not file.content.startswith(JKS_MAGIC):  # once: it may take a process
                    file = replace(file, content=java_keystore(found))
                return {real: file}, found
    return {}, []


class Files:
    """The files of a created container. The engine is asked once for each path.

    Args:
        foreign: The mount points whose content is not the container's own. Without any, `NEVER_LINKS` are taken for
            folders.
        java_home: The variable JAVA_HOME of the container; "" for none.

    Attributes:
        foreign: The same mount points.
        homes: The folders below `java_home` that may have keystores: each is read in one call, and its path may have
            links.
        large: The paths of files that were left, since no roots are so large.
    """

    def __init__(
        self,
        engine: Engine,
        container: DockerContainer,
        foreign: Sequence[str],
        java_home: str = "",
    ) -> None:
        self._engine, self._container = engine, container
        self.foreign = foreign
        self.homes = [
            normal(f"{java_home}/{path}") for path in OF_JAVA_HOME if java_home[:1] == "/"
        ]
        self._mounts = [normal(each["Destination"]) for each in container.attrs.get("Mounts") or ()]
        # Podman's archive of a folder lacks the content of mounts below it.
        whole = not (engine.is_podman and self._mounts)
        self._whole: tuple[str, ...] = (*self.homes, *(FOLDERS if whole else ()))
        self.large: list[str] = []
        folders = ("/", *(() if foreign else NEVER_LINKS))
        self._seen = {path: (path, FileKind.DIRECTORY) for path in folders}
        self._stats: dict[str, Mapping[str, Any] | None] = {}
        self._folders: dict[str, Mapping[str, Member] | None] = {}
        self._links = 0

    @once_property
    def mounts(self) -> Sequence[str]:
        return [self.resolve(point)[0] for point in self.foreign]

    def place(self, path: str) -> str | None:
        """The path, without links among its folders, of a file that is written at a path. A link there is replaced.

        Returns:
            None where it is in a mount that is not the container's own.
        """
        if not self.foreign:  # wherever a link leads, that is the container's own
            return path
        folder, _ = self.resolve(posixpath.dirname(path))
        place = posixpath.join(folder, posixpath.basename(path))
        return None if is_within(place, self.mounts) else place

    def resolve(self, path: str) -> tuple[str, FileKind]:
        """The real path of a path, through links among its folders too, and the kind of file there."""
        if path not in self._seen:
            folder, kind = self.resolve(posixpath.dirname(path))
            real = posixpath.join(folder, posixpath.basename(path))
            if kind is FileKind.DIRECTORY:
                self._seen[path] = self.look(real)
            else:
                self._seen[path] = real, kind if kind is FileKind.MISSING else FileKind.OTHER
        return self._seen[path]

    def look(self, path: str) -> tuple[str, FileKind]:
        """The real path of a path whose folders are no links, and the kind of file there."""
        if path not in self._seen:
            found = self._by_folder(path) or self._by_engine(path)
            if found[1] is FileKind.MISSING and any(
                is_under(point, path) for point in self._mounts
            ):
                found = path, FileKind.DIRECTORY  # Podman makes folders above a mount at the start
            self._seen[path] = found
        return self._seen[path]

    def read(self, path: str) -> File:
        """Read the regular file at a real path; LargeFileError where it has more than `MAX_FILE_BYTES`."""
        member = (self._folder(path) or {}).get(path)
        file = (member and member.file) or self._engine.read(self._container, path, MAX_FILE_BYTES)
        if not self._engine.is_podman:
            return file
        # Podman says that every file belongs to the container's user. Roots belong to root, and anyone may read them.
        return replace(file, uid=0, gid=0, mode=file.mode | 0o444)

    def read_small(self, paths: Iterable[str]) -> dict[str, File]:
        """Read the regular files at real paths, but for those that are too large, which `large` lists."""
        found = {}
        for path in paths:
            try:
                found[path] = self.read(path)
            except LargeFileError:
                self.large.append(path)
        return found

    def peek(self, folder: str, limit: int) -> tuple[str, FileKind]:
        """As `look`; a folder with an archive of at most `limit` bytes is read whole, and not asked for again."""
        if folder not in self._folders and folder not in self._seen:
            self._stats[folder], members = self._engine.members(self._container, folder, limit)
            if members is not None:
                self._folders[folder] = by_path(folder, members)
                self._whole = (folder, *self._whole)
        return self.look(folder)

    def is_read(self, path: str) -> bool:
        """Whether a path is in a folder that was read whole."""
        return is_within(path, (folder for folder, found in self._folders.items() if found))

    def names(self, folder: str, limit: int) -> list[str]:
        """The names in a folder, whose archive is read up to a limit; empty where it is no folder, or larger."""
        _, members = self._engine.members(self._container, folder, limit)
        return [name for name in members or () if name]

    def _by_engine(self, path: str) -> tuple[str, FileKind]:
        stat = self._stat(path)
        if not stat or not stat.get("linkTarget"):
            return path, kind_of(stat)
        real = stat["linkTarget"]  # the end of all links, which need not exist
        if real not in self._seen:
            self._seen[real] = self._by_folder(real) or (real, kind_of(self._stat(real)))
        return self._seen[real]

    def _stat(self, path: str) -> Mapping[str, Any] | None:
        if path not in self._stats:
            self._stats[path] = self._engine.stat(self._container, path)
        return self._stats[path]

    def _by_folder(self, path: str) -> tuple[str, FileKind] | None:
        """The real path and the kind of file, from a folder that was read; None where the engine has to be asked."""
        folder = self._folder(path)
        if folder is None:
            return None
        if (member := folder.get(path)) is None:
            return path, FileKind.MISSING
        if member.target is not None:
            return self._follow(path, member.target)
        return path, kind_of_member(member)

    def _follow(self, path: str, target: str) -> tuple[str, FileKind] | None:
        """The real path behind a link, and its kind; None where it leads to what was not read, back, or in a circle."""
        end = normal(posixpath.join(posixpath.dirname(path), target))
        known = target.startswith("/") or not is_within(path, self.homes)
        back = ".." in CLIMB.sub("", target, count=1).split("/")
        if back or not known or not is_within(end, FOLDERS) or self._links == MAX_LINKS:
            return None
        self._links += 1
        try:
            return self.resolve(end)
        finally:
            self._links -= 1

    def _folder(self, path: str) -> Mapping[str, Member] | None:
        """The members, by path, of the folder that a path is in; None where that is none of those read whole."""
        folder = next((f for f in self._whole if is_under(path, f)), None)
        if folder is None:
            return None
        if folder not in self._folders:
            stat, members = self._engine.members(self._container, folder, FOLDER_BYTES)
            self._stats[folder] = stat
            self._folders[folder] = {} if stat is None else by_path(folder, members)
        return self._folders[folder]


def by_path(folder: str, members: Mapping[str, Member] | None) -> Mapping[str, Member] | None:
    if members is None:
        return None
    return {posixpath.join(folder, name).rstrip("/"): each for name, each in members.items()}


def kind_of(stat: Mapping[str, Any] | None) -> FileKind:
    """The engine describes a file by Go's `os.FileMode`."""
    if stat is None:
        return FileKind.MISSING
    if stat["mode"] & GO_DIRECTORY:
        return FileKind.DIRECTORY
    return FileKind.OTHER if stat["mode"] & GO_TYPES else FileKind.REGULAR


def kind_of_member(member: Member) -> FileKind:
    if member.directory:
        return FileKind.DIRECTORY
    return FileKind.REGULAR if member.file is not None else FileKind.OTHER
