"""Trees of files, as archives that an engine takes and gives."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import normpath
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from docker.models.containers import Container as DockerContainer

from pytest_egress.targets.trust import runtimes

LABEL = "org.pytest-egress.layout"  # on what a test has made, should it be killed
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
PROGRAM = (
    "/program"  # the only one in an image of ours; static, since there is nothing to link with
)
RUN_PROGRAM = [PROGRAM, "--version"]
ROOTS = [trustme.CA() for _ in range(3)]
FIRST, SECOND, THIRD = (ca.cert_pem.bytes() for ca in ROOTS)


# Images that are made here, from nothing.


@dataclass(frozen=True)
class Node:
    """What is at a path: of a directory the content is None, of a link its target counts."""

    type: bytes
    content: bytes | None
    mode: int
    uid: int = 0
    gid: int = 0
    target: str = ""
    mtime: int | None = None


def file(content: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = 0) -> Node:
    return Node(tarfile.REGTYPE, content, mode, uid, gid, mtime=mtime)


def link(target: str) -> Node:
    return Node(tarfile.SYMTYPE, None, 0o777, target=target)


Tree = Mapping[str, Node | bytes]
Options = dict[str, Any]
MakeImage = Callable[..., str]


def pack(tree: Tree) -> bytes:
    """An archive of a tree; the engine makes the folders that are not in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, given in sorted(tree.items()):
            node = file(given) if isinstance(given, bytes) else given
            info = tarfile.TarInfo(path.lstrip("/"))
            info.type, info.mode, info.linkname = node.type, node.mode, node.target
            info.uid, info.gid, info.mtime = node.uid, node.gid, node.mtime or 0
            info.size = len(node.content or b"")
            archive.addfile(info, io.BytesIO(node.content or b""))
    return buffer.getvalue()


# What the engine makes in each container, when it makes it.
PLACEHOLDERS = {"/.dockerenv", "/dev/console", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}


def unpack(chunks: Iterable[Any]) -> dict[str, Node]:
    """Every path of an archive."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        for info in archive:
            content = archive.extractfile(info) if info.isreg() else None
            found[normpath(f"/{info.name.lstrip('/')}")] = Node(
                info.type,
                content.read() if content else None,
                info.mode,
                info.uid,
                info.gid,
                info.linkname,
                int(info.mtime) if info.isreg() else None,
            )
    for path in found.keys() & PLACEHOLDERS:
        found[path] = replace(found[path], mtime=None)
    return found


Make = Callable[..., DockerContainer]


def files_of(container: DockerContainer, is_podman: bool) -> dict[str, Node]:
    """Every path of a container.

    By an export of Podman's alone: Docker 26.1 leaves the mount of each, and its layer, behind for good. With a
    thousand mounts on a machine, each container takes twice the CPU.
    """
    return unpack(container.export() if is_podman else container.get_archive("/")[0])


def node_at(container: DockerContainer, path: str) -> Node:
    """What is at a path, in a volume too."""
    for _ in range(100):  # Podman answers with nothing while it tidies up behind one that has ended
        if archive := b"".join(container.get_archive(path)[0]):
            break
    (node,) = unpack([archive]).values()
    return node


def read(container: DockerContainer, path: str) -> bytes:
    """The file at a path, in a volume too."""
    content = node_at(container, path).content
    assert content is not None, path
    return content


def env_of(container: DockerContainer) -> dict[str, str]:
    return runtimes.variables(container.attrs["Config"]["Env"] or [])


PKI = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
RHEL: Tree = {
    PKI: file(FIRST, 0o444),
    "/etc/pki/tls/certs/ca-bundle.crt": link(PKI),
    "/etc/pki/tls/cert.pem": link("certs/ca-bundle.crt"),
    "/etc/ssl/certs": link("../pki/tls/certs"),
}


# Mounts.


@dataclass(frozen=True)
class Place:
    """Something to mount, and how to see whether it has changed."""

    source: str
    snapshot: Callable[[], object]


def snapshot_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything that can be seen of a folder, times too."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        about = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(about.st_mode) else None
        found[str(path)] = (about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, content)
    return found


# What the engine mounts over, or makes, in a container's /etc.
FOR_THE_ENGINE = ("hosts", "hostname", "resolv.conf", "mtab")


def below(point: str, path: str) -> str:
    """A path of a container, in what is mounted at a point."""
    return path.removeprefix(point).lstrip("/")


SHOW = ["sh", "-c", 'cat "$SSL_CERT_FILE" && test -r "$NODE_EXTRA_CA_CERTS" && sleep 0.3']
"""It ends after the engine has noted its start: Docker may lose the output of what ends before."""


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
