"""The CA in images of every layout, under mounts of every kind: what is extended, and that nothing else differs."""

from __future__ import annotations

import contextlib
import io
import json
import stat
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    pkcs12,
)
from docker.models.containers import Container as DockerContainer
from docker.types import DriverConfig, Mount

from pytest_egress import CommandError, Egress, EngineError
from pytest_egress.engine.archive import build_tar
from pytest_egress.engine.engine import Engine
from pytest_egress.engine.leftovers import SESSION_LABEL
from pytest_egress.gateway.authority import Authority
from pytest_egress.session import Session
from pytest_egress.targets import mounts, roots, runtimes, trust
from pytest_egress.targets.certificates import from_java_keystore, hashed_name, java_keystore
from pytest_egress.targets.roots import FOLDER_BYTES, Roots
from pytest_egress.traffic.entries import TlsFailure
from tests.support.stage import eventually

LABEL = "org.pytest-egress.layout"  # on what a test has made, should it be killed
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
PROGRAM = (
    "/program"  # the only one in an image of ours; static, since there is nothing to link with
)
RUN_PROGRAM = [PROGRAM, "--version"]
ROOTS = [trustme.CA() for _ in range(3)]
FIRST, SECOND, THIRD = (ca.cert_pem.bytes() for ca in ROOTS)


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


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


DIRECTORY = Node(tarfile.DIRTYPE, None, 0o755)
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
            found[f"/{info.name}".rstrip("/")] = Node(
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


@pytest.fixture(scope="module")
def program(engine_client: docker.DockerClient, bare_image: str) -> bytes:
    """A static program: Debian links ldconfig so."""
    container = engine_client.containers.create(bare_image)
    try:
        (found,) = unpack(container.get_archive("/usr/sbin/ldconfig")[0]).values()
    finally:
        container.remove(v=True)
    assert found.content is not None
    return found.content


@pytest.fixture(scope="module")
def make_image(engine_client: docker.DockerClient, program: bytes) -> Iterator[MakeImage]:
    """Makes an image of a tree and the program; changes are instructions of a Dockerfile."""
    cleanup = contextlib.ExitStack()

    def make(tree: Tree, *changes: str, named: bool = True) -> str:
        data = pack({PROGRAM: file(program, 0o755), **tree})
        name = f"layout-{uuid.uuid4().hex}" if named else None
        answer = engine_client.api.import_image_from_data(
            data,
            repository=name,
            changes=[f"LABEL {LABEL}=1", f"CMD {json.dumps(RUN_PROGRAM)}", *changes],
        )
        image = name or str(json.loads(answer)["status"])
        cleanup.callback(engine_client.images.remove, image, force=True)
        return image

    with cleanup:
        yield make


@pytest.fixture
def plain(engine_client: docker.DockerClient) -> Iterator[Callable[..., DockerContainer]]:
    """Makes a container that has nothing of ours, started, and ended where its command ends."""
    made: list[DockerContainer] = []

    def make(image: str, command: Any = None, **options: Any) -> DockerContainer:
        options.setdefault("network_mode", "none")
        made.append(engine_client.containers.create(image, command, **options))
        made[-1].start()
        made[-1].wait()
        made[-1].reload()
        return made[-1]

    yield make
    for container in made:
        container.remove(force=True, v=True)


@pytest.fixture
def ours(egress: Egress, engine_client: docker.DockerClient) -> Callable[..., DockerContainer]:
    """Makes a container with the CA, started and ended likewise."""

    def make(image: str, command: Any = None, **options: Any) -> DockerContainer:
        target = egress.start(image, command, **options)
        result = target.wait()
        assert result.exit_code == 0, result.stderr
        return engine_client.containers.get(target.id)

    return make


@pytest.fixture
def ca(egress_ca: trustme.CA) -> bytes:
    return egress_ca.cert_pem.bytes()


@pytest.fixture
def hashed(egress_ca: trustme.CA) -> str:
    """The name under which OpenSSL finds the CA in a directory."""
    return f"{hashed_name(Authority(egress_ca).ca_subject)}.0"


Make = Callable[..., DockerContainer]


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


# Layouts.


@dataclass(frozen=True)
class Layout:
    """Roots in an image, and what becomes of them.

    Attributes:
        extended: The real paths of what gets the CA at its end.
        made: What there was not and is then: files with the CA alone, and the folders for them.
        roots: The certificates that the merged bundle has before the CA.
        hashed: The real path of OpenSSL's directory.
    """

    tree: Tree
    extended: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    roots: bytes = FIRST
    hashed: str | None = "/etc/ssl/certs"
    changes: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()


PKI = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
RHEL: Tree = {
    PKI: file(FIRST, 0o444),
    "/etc/pki/tls/certs/ca-bundle.crt": link(PKI),
    "/etc/pki/tls/cert.pem": link("certs/ca-bundle.crt"),
    "/etc/ssl/certs": link("../pki/tls/certs"),
}
LAYOUTS: dict[str, Layout] = {
    "Debian": Layout(
        {
            BUNDLE: FIRST,
            "/usr/share/ca-certificates/first.crt": FIRST,
            "/etc/ssl/certs/first.pem": link("/usr/share/ca-certificates/first.crt"),
            "/etc/ssl/certs/0a1b2c3d.0": link("first.pem"),
            "/etc/ssl/openssl.cnf": b"[default]\n",
        },
        extended=(BUNDLE,),
    ),
    "Alpine": Layout(
        {BUNDLE: FIRST, "/etc/ssl/cert.pem": link("certs/ca-certificates.crt")},
        extended=(BUNDLE,),
    ),
    "RHEL": Layout(RHEL, extended=(PKI,), hashed="/etc/pki/tls/certs"),
    "openSUSE": Layout(
        {
            "/var/lib/ca-certificates/ca-bundle.pem": file(FIRST, 0o444),
            "/etc/ssl/ca-bundle.pem": link("/var/lib/ca-certificates/ca-bundle.pem"),
            "/var/lib/ca-certificates/pem/first.pem": FIRST,
            "/etc/ssl/certs": link("/var/lib/ca-certificates/pem"),
        },
        extended=("/var/lib/ca-certificates/ca-bundle.pem",),
        hashed="/var/lib/ca-certificates/pem",
    ),
    "Nix": Layout(
        {
            "/nix/store/abc-cacert/etc/ssl/certs/ca-bundle.crt": file(FIRST, 0o444),
            "/etc/ssl/certs/ca-bundle.crt": link(
                "/nix/store/abc-cacert/etc/ssl/certs/ca-bundle.crt"
            ),
            BUNDLE: link("/nix/store/abc-cacert/etc/ssl/certs/ca-bundle.crt"),
        },
        extended=("/nix/store/abc-cacert/etc/ssl/certs/ca-bundle.crt",),
    ),
    "distroless": Layout({BUNDLE: FIRST}, extended=(BUNDLE,), changes=("USER 65532:65532",)),
    "empty": Layout(
        {}, made=(BUNDLE,), roots=b"", hashed=None, folders=("/etc/ssl", "/etc/ssl/certs")
    ),
    "no-bundle": Layout({"/etc/ssl/certs": DIRECTORY}, made=(BUNDLE,), roots=b""),
    "links-to-links": Layout(
        {
            "/opt/roots/real.pem": FIRST,
            "/opt/roots/middle.pem": link("real.pem"),
            "/opt/linked": link("roots"),
            BUNDLE: link("../../../opt/linked/middle.pem"),
            "/etc/ssl/cert.pem": link("certs/ca-certificates.crt"),
        },
        extended=("/opt/roots/real.pem",),
    ),
    "an-absolute-link": Layout(
        {"/opt/roots.pem": FIRST, BUNDLE: link("/opt/roots.pem")}, extended=("/opt/roots.pem",)
    ),
    "a-link-that-climbs-above-the-root": Layout(
        {"/opt/roots.pem": FIRST, BUNDLE: link("../../../../../../opt/roots.pem")},
        extended=("/opt/roots.pem",),
    ),
    "a-linked-folder": Layout(
        {"/opt/tls/certs/ca-certificates.crt": FIRST, "/etc/ssl": link("/opt/tls")},
        extended=("/opt/tls/certs/ca-certificates.crt",),
        hashed="/opt/tls/certs",
    ),
    "a-dangling-link": Layout(
        {"/opt": DIRECTORY, BUNDLE: link("/opt/roots.pem"), "/etc/ssl/cert.pem": link("none.pem")},
        made=("/opt/roots.pem",),
        roots=b"",
    ),
    "a-dangling-link-besides": Layout(
        {BUNDLE: FIRST, "/etc/ssl/cert.pem": link("/opt/none.pem")}, extended=(BUNDLE,)
    ),
    "links-in-circles-besides": Layout(
        {
            BUNDLE: FIRST,
            "/etc/ssl/cert.pem": link("cert.pem"),
            "/etc/ssl/ca-bundle.pem": link("other.pem"),
            "/etc/ssl/other.pem": link("ca-bundle.pem"),
            "/etc/pki": link("tls/../pki"),
        },
        extended=(BUNDLE,),
    ),
    "a-directory-in-its-place": Layout(
        {f"{BUNDLE}/first.pem": FIRST, f"{BUNDLE}/second.pem": SECOND}, roots=b""
    ),
    "a-file-in-its-folders-place": Layout({"/etc/ssl/certs": b"no folder"}, roots=b"", hashed=None),
    "a-fifo-in-its-place": Layout({BUNDLE: Node(tarfile.FIFOTYPE, None, 0o644)}, roots=b""),
    "an-odd-folder": Layout(
        {
            BUNDLE: FIRST,
            "/etc/ssl/pipe": Node(tarfile.FIFOTYPE, None, 0o644),
            "/etc/ssl/device": Node(tarfile.BLKTYPE, None, 0o600),
            f"/etc/ssl/{'ü' * 120}.pem": link("../" * 60 + "nowhere"),
            "/etc/pki": b"no folder",
            "/var/lib/ca-certificates": link("../../etc/ssl/certs"),
            "/etc/ssl/certs/ca-bundle.crt": SECOND,
        },
        extended=(BUNDLE, "/etc/ssl/certs/ca-bundle.crt"),
        roots=FIRST + SECOND,
    ),
    "more-than-is-read-of-a-folder": Layout(
        {
            BUNDLE: FIRST,
            "/etc/ssl/cert.pem": link("../ssl/certs/ca-certificates.crt"),
            "/etc/ssl/large": bytes(FOLDER_BYTES),
        },
        extended=(BUNDLE,),
    ),
    "a-link-that-goes-back-through-a-link": Layout(
        {
            "/opt/deep/roots.pem": FIRST,
            "/opt/deep/er": DIRECTORY,
            "/etc/ssl/linked": link("/opt/deep/er"),
            "/etc/ssl/roots.pem": SECOND,
            BUNDLE: link("../linked/../roots.pem"),
        },
        extended=("/opt/deep/roots.pem",),
    ),
    "folders-that-are-links-to-each-other": Layout(
        {
            "/etc/ssl/certs": link("../pki/certs"),
            "/etc/pki/certs": link("/etc/ssl/real/."),
            "/etc/ssl/real/ca-certificates.crt": link("./../../pki/roots.pem"),
            "/etc/pki/roots.pem": file(FIRST, 0o444),
        },
        extended=("/etc/pki/roots.pem",),
        hashed="/etc/ssl/real",
    ),
    "many-links-besides": Layout(
        {
            BUNDLE: FIRST,
            "/etc/ssl/cert.pem": link("link-0"),
            **{f"/etc/ssl/link-{n}": link(f"link-{n + 1}") for n in range(300)},
            "/etc/ssl/link-300": SECOND,
        },
        extended=(BUNDLE,),
    ),
    "no-line-feed-mode-and-owner": Layout(
        {BUNDLE: file(FIRST.rstrip(), 0o640, 1234, 4321, 1_700_000_000)}, extended=(BUNDLE,)
    ),
    "set-user-id-and-no-root": Layout(
        {BUNDLE: file(FIRST, 0o4755, 65534, 65534)}, extended=(BUNDLE,), changes=("USER 65534",)
    ),
    "several": Layout(
        {
            BUNDLE: FIRST,
            "/etc/ssl/cert.pem": FIRST + SECOND,
            "/etc/pki/tls/cacert.pem": THIRD + SECOND,
        },
        extended=(BUNDLE, "/etc/ssl/cert.pem", "/etc/pki/tls/cacert.pem"),
        roots=FIRST + SECOND + THIRD,
    ),
    "named-by-the-image": Layout(
        {BUNDLE: FIRST, "/opt/mine.pem": SECOND, "/opt/link.pem": link("mine.pem")},
        extended=(BUNDLE, "/opt/mine.pem"),
        roots=FIRST + SECOND,
        changes=("ENV SSL_CERT_FILE=/opt/link.pem",),
    ),
    "named-by-the-test": Layout(
        {BUNDLE: FIRST, "/opt/mine.pem": SECOND},
        extended=(BUNDLE, "/opt/mine.pem"),
        roots=FIRST + SECOND,
        env={"CURL_CA_BUNDLE": "/opt/../opt//mine.pem"},
    ),
}


# Podman follows such a link by its text.
ON_DOCKER = {"a-link-that-goes-back-through-a-link": [pytest.mark.docker]}


@pytest.mark.parametrize(
    "layout",
    [pytest.param(each, id=name, marks=ON_DOCKER.get(name, ())) for name, each in LAYOUTS.items()],
)
def test_the_roots_of_an_image_are_extended_and_nothing_else_is_changed(
    layout: Layout,
    make_image: MakeImage,
    plain: Make,
    ours: Make,
    ca: bytes,
    hashed: str,
    is_podman: bool,
) -> None:
    image = make_image(layout.tree, *layout.changes)
    before = unpack(plain(image).export())
    after = unpack(ours(image, env=layout.env).export())
    merged = (layout.roots + ca).replace(b"-----\n\n", b"-----\n")
    expected = {path: file(ca) for path in layout.made}
    for path in layout.extended:
        content = before[path].content
        assert content is not None
        expected[path] = replace(before[path], content=content.rstrip(b"\n") + b"\n" + ca)
    if layout.hashed is not None:
        expected[f"{layout.hashed}/{hashed}"] = file(ca)
    keystore = java_keystore([der(part) for part in pems(merged)])
    expected |= {
        "/etc/pytest-egress/ca.pem": file(ca),
        "/etc/pytest-egress/bundle.pem": file(merged),
        "/etc/pytest-egress/truststore.jks": file(keystore),
        "/etc/pytest-egress": DIRECTORY,
        **dict.fromkeys(layout.folders, DIRECTORY),
    }
    if is_podman:
        for path in layout.extended:
            mode = expected[path].mode | 0o444
            expected[path] = replace(expected[path], mode=mode, uid=0, gid=0)  # it tells no owner
        for path in ("/run/.containerenv", "/etc/passwd", "/etc/group"):  # or not, in either
            before.pop(path, None)
            after.pop(path, None)
        resolver = after.pop("/etc/resolv.conf")
        assert resolver.content == b"nameserver 192.0.2.53\nsearch .\noptions ndots:1\n"
        before.pop("/etc/resolv.conf", None)
    assert {path: node for path, node in after.items() if before.get(path) != node} == expected
    assert before.keys() <= after.keys()


def pems(bundle: bytes) -> list[bytes]:
    """Its certificates, each in PEM."""
    end = b"-----END CERTIFICATE-----\n"
    return [part + end for part in bundle.split(end) if part]


# All that differs, as the engine and the container's own environment tell it.


def changes_of(container: DockerContainer) -> set[tuple[str, int]]:
    return {(str(change["Path"]), int(change["Kind"])) for change in container.diff() or ()}


MODIFIED, ADDED = 0, 1
OF_OURS = {
    ("/etc", MODIFIED),
    ("/etc/pytest-egress", ADDED),
    ("/etc/pytest-egress/ca.pem", ADDED),
    ("/etc/pytest-egress/bundle.pem", ADDED),
    ("/etc/pytest-egress/truststore.jks", ADDED),
}


@pytest.fixture(scope="module")
def rhel_image(engine_client: docker.DockerClient) -> Iterator[str]:
    """RHEL's layout over Debian's programs."""
    container = engine_client.containers.create(
        "debian:trixie-slim", ["rm", "-rf", "/etc/ssl"], network_mode="none", labels={LABEL: "1"}
    )
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0
        container.put_archive("/", pack(RHEL))
        image = container.commit(changes='CMD ["env"]')
    finally:
        container.remove(force=True)
    yield str(image.id)
    engine_client.images.remove(str(image.id), force=True)


def test_the_engine_sees_no_other_change_in_debian(
    clients_image: str, plain: Make, ours: Make, hashed: str
) -> None:
    before, after = (changes_of(make(clients_image, ["env"])) for make in (plain, ours))
    assert after - before == {
        ("/etc/ssl", MODIFIED),
        ("/etc/ssl/certs", MODIFIED),
        (BUNDLE, MODIFIED),
        (f"/etc/ssl/certs/{hashed}", ADDED),
        *(OF_OURS - before),
    }
    assert before <= after


# Podman's list of changes lacks folders in which something else has changed.
@pytest.mark.docker
def test_the_engine_sees_no_other_change_in_rhel(
    rhel_image: str, plain: Make, ours: Make, hashed: str
) -> None:
    before, after = (changes_of(make(rhel_image, ["env"])) for make in (plain, ours))
    folders = (
        "",
        "/ca-trust",
        "/ca-trust/extracted",
        "/ca-trust/extracted/pem",
        "/tls",
        "/tls/certs",
    )
    assert after - before == {
        *((f"/etc/pki{folder}", MODIFIED) for folder in folders),
        (PKI, MODIFIED),
        (f"/etc/pki/tls/certs/{hashed}", ADDED),
        *(OF_OURS - before),
    }
    assert before <= after


@pytest.mark.docker
def test_the_engine_sees_no_other_change_in_an_empty_image(
    make_image: MakeImage, plain: Make, ours: Make
) -> None:
    image = make_image({})
    before, after = (changes_of(make(image)) for make in (plain, ours))
    assert after - before == {
        ("/etc/ssl", ADDED),
        ("/etc/ssl/certs", ADDED),
        (BUNDLE, ADDED),
        *OF_OURS,
    }
    assert before <= after


@pytest.mark.parametrize("name", ["clients_image", "rhel_image"])
def test_a_process_has_its_own_variables_and_those_of_the_table(
    name: str, request: pytest.FixtureRequest, plain: Make, ours: Make
) -> None:
    image = request.getfixturevalue(name)
    before, after = (
        runtimes.variables(make(image, ["env"]).logs().decode().splitlines())
        for make in (plain, ours)
    )
    before.pop("HOSTNAME"), after.pop("HOSTNAME")  # the engine makes them up
    expected = {each.name: each.value("/etc/pytest-egress") for each in runtimes.VARIABLES}
    assert after == {**before, **expected}


def test_an_empty_image_is_given_the_variables_of_the_table(
    make_image: MakeImage, plain: Make, ours: Make
) -> None:
    image = make_image({}, "ENV GREETING=hello")
    before, after = (env_of(make(image)) for make in (plain, ours))
    for variables in (before, after):
        variables.pop("HOSTNAME", None)  # Podman makes them up
    expected = {each.name: each.value("/etc/pytest-egress") for each in runtimes.VARIABLES}
    assert before["GREETING"] == "hello"
    assert after == {**before, **expected}


# Java's roots.


def java_12(pem: bytes, sealed: bool) -> bytes:
    entry = pkcs12.PKCS12Certificate(x509.load_pem_x509_certificate(pem), b"root")
    seal = BestAvailableEncryption(b"changeit") if sealed else NoEncryption()
    return pkcs12.serialize_java_truststore([entry], seal)


HOME = "ENV JAVA_HOME=/opt/java"
JKS = java_keystore([der(SECOND)])
CACERTS = "lib/security/cacerts"
KEYSTORES: dict[str, tuple[Tree, tuple[str, ...]]] = {
    "Debian": ({"/etc/ssl/certs/java/cacerts": JKS}, ()),
    "RHEL": ({"/etc/pki/java/cacerts": JKS}, ()),
    "home": ({f"/opt/java/{CACERTS}": JKS}, (HOME,)),
    "home-of-java-8": ({f"/opt/java/jre/{CACERTS}": JKS}, (HOME,)),
    "home-behind-links": (
        {
            "/usr/lib/jvm/java-21/lib/security/cacerts": link("/etc/ssl/certs/java/cacerts"),
            "/opt/java": link("../usr/lib/jvm/java-21"),
            "/etc/ssl/certs/java/cacerts": JKS,
        },
        (HOME,),
    ),
    "home-before-the-known-places": (
        {f"/opt/java/{CACERTS}": JKS, "/etc/pki/java/cacerts": java_keystore([der(THIRD)])},
        (HOME,),
    ),
    "jssecacerts-first": (
        {
            "/opt/java/lib/security/jssecacerts": JKS,
            f"/opt/java/{CACERTS}": java_keystore([der(THIRD)]),
        },
        (HOME,),
    ),
    "PKCS-12": ({f"/opt/java/{CACERTS}": java_12(SECOND, sealed=True)}, (HOME,)),
    "PKCS-12-without-password": ({f"/opt/java/{CACERTS}": java_12(SECOND, sealed=False)}, (HOME,)),
    "after-one-that-cannot-be-read": (
        {f"/opt/java/{CACERTS}": b"no keystore", "/etc/pki/java/cacerts": JKS},
        (HOME,),
    ),
    "home-whose-folder-is-a-link": (
        {"/opt/java/lib/security": link("/opt/conf/security"), "/opt/conf/security/cacerts": JKS},
        (HOME,),
    ),
    "home-behind-a-link-with-a-relative-one": (
        {
            "/etc/java": link("/srv/java"),
            "/srv/java/lib/security/cacerts": link("../../../pki/java/cacerts"),
            "/srv/pki/java/cacerts": JKS,
            "/etc/pki/java/cacerts": java_keystore([der(THIRD)]),
        },
        ("ENV JAVA_HOME=/etc/java",),
    ),
    "home-in-a-folder-that-is-read-whole": (
        {"/etc/pki/java": link("/opt/jdk"), f"/opt/jdk/{CACERTS}": JKS},
        ("ENV JAVA_HOME=/etc/pki/java",),
    ),
    "home-that-is-not-there": ({"/etc/pki/java/cacerts": JKS}, (HOME,)),
    "home-that-is-no-path": ({"/etc/pki/java/cacerts": JKS}, ("ENV JAVA_HOME=java",)),
}


def from_any_keystore(data: bytes) -> list[bytes]:
    try:
        return from_java_keystore(data)
    except ValueError:
        return []


@pytest.mark.parametrize(("tree", "changes"), KEYSTORES.values(), ids=KEYSTORES)
def test_the_roots_of_javas_stay_beside_the_ca(
    tree: Tree, changes: tuple[str, ...], make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    image = make_image({BUNDLE: FIRST, **tree}, *changes)
    container = ours(image)
    assert from_java_keystore(read(container, "/etc/pytest-egress/truststore.jks")) == [
        der(SECOND),
        der(ca),
    ]
    for path, node in tree.items():
        if isinstance(node, bytes) and from_any_keystore(node) == [
            der(SECOND)
        ]:  # the one that the JVM reads, and no other
            assert from_java_keystore(read(container, path)) == [der(SECOND), der(ca)]
        elif isinstance(node, bytes):
            assert read(container, path) == node


def test_where_java_has_no_roots_of_its_own_it_gets_those_of_the_bundle(
    make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    container = ours(make_image({BUNDLE: FIRST + SECOND}))
    keystore = read(container, "/etc/pytest-egress/truststore.jks")
    assert from_java_keystore(keystore) == [der(FIRST), der(SECOND), der(ca)]


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


@pytest.fixture
def host_folder(tmp_path: Path) -> Callable[[str], Place]:
    """Makes a folder, or one file, of this machine with a bundle at its place."""

    def make(point: str) -> Place:
        folder = tmp_path / "mounted"
        folder.mkdir()
        inside = below(point, BUNDLE)
        path = folder / (inside or "one.pem")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SECOND)
        for name in FOR_THE_ENGINE if point == "/etc" else ():
            (folder / name).touch()
        return Place(str(folder if inside else path), lambda: snapshot_of(folder))

    return make


@pytest.fixture
def named_volume(
    engine_client: docker.DockerClient, bare_image: str
) -> Iterator[Callable[[str], Place]]:
    """Makes a named volume with a bundle at its place."""
    cleanup = contextlib.ExitStack()

    def make(point: str) -> Place:
        name = f"layout-{uuid.uuid4().hex}"
        volume = engine_client.volumes.create(name, labels={LABEL: "1"})
        cleanup.callback(volume.remove)
        container = engine_client.containers.create(bare_image, volumes=[f"{name}:/data"])
        cleanup.callback(container.remove, v=True)
        names = FOR_THE_ENGINE if point == "/etc" else ()
        files = {f"/{below(point, BUNDLE)}": SECOND} | {f"/{n}": b"" for n in names}
        container.put_archive("/data", build_tar(files))
        return Place(name, lambda: b"".join(container.get_archive("/data")[0]))

    with cleanup:
        yield make


BINDS: dict[str, Callable[[str, str], Options]] = {
    "volumes-ro": lambda source, point: {"volumes": {source: {"bind": point, "mode": "ro"}}},
    "volumes-rw": lambda source, point: {"volumes": [f"{source}:{point}"]},
    "mounts-ro": lambda source, point: {
        "mounts": [Mount(point, source, type="bind", read_only=True)]
    },
    "mounts-rw": lambda source, point: {"mounts": [Mount(point, source, type="bind")]},
}
NAMED: dict[str, Callable[[str, str], Options]] = {
    "volumes-ro": lambda source, point: {"volumes": [f"{source}:{point}:ro"]},
    "volumes-rw": lambda source, point: {"volumes": {source: {"bind": f"{point}/"}}},
    "mounts-rw": lambda source, point: {"mounts": [Mount(point, source)]},
}
POINTS = ["/etc", "/etc/ssl", "/etc/ssl/certs"]
SHOW = ["sh", "-c", 'cat "$SSL_CERT_FILE" && test -r "$NODE_EXTRA_CA_CERTS"']


@pytest.mark.parametrize(  # Podman does not read a file that is mounted by itself
    "point", [*POINTS, pytest.param(BUNDLE, marks=pytest.mark.docker)]
)
@pytest.mark.parametrize("options", BINDS.values(), ids=BINDS)
def test_a_folder_of_the_host_is_read_and_never_written(
    options: Callable[[str, str], Options],
    point: str,
    host_folder: Callable[[str], Place],
    bare_image: str,
    egress: Egress,
    ca: bytes,
) -> None:
    place = host_folder(point)
    before = place.snapshot()
    result = egress.run(bare_image, SHOW, check=True, **options(place.source, point))
    assert result.stdout_bytes == SECOND + ca
    assert place.snapshot() == before


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("options", NAMED.values(), ids=NAMED)
def test_a_named_volume_is_read_and_never_written(
    options: Callable[[str, str], Options],
    point: str,
    named_volume: Callable[[str], Place],
    bare_image: str,
    egress: Egress,
    ca: bytes,
) -> None:
    place = named_volume(point)
    before = place.snapshot()
    result = egress.run(bare_image, SHOW, check=True, **options(place.source, point))
    assert result.stdout_bytes == SECOND + ca
    assert place.snapshot() == before


@pytest.mark.parametrize("point", ["/etc/ssl/certs", "/etc/pki/tls/certs"])
def test_a_folder_of_the_host_behind_a_link_is_never_written(
    point: str, tmp_path: Path, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    image = make_image(
        {
            "/etc/pki/tls/certs/ca-certificates.crt": FIRST,
            "/etc/ssl/certs": link("../pki/tls/certs"),
        }
    )
    (tmp_path / "ca-certificates.crt").write_bytes(SECOND)
    before = snapshot_of(tmp_path)
    container = ours(image, volumes=[f"{tmp_path}:{point}"])
    assert read(container, "/etc/pytest-egress/bundle.pem") == SECOND + ca
    assert snapshot_of(tmp_path) == before


@pytest.mark.parametrize("made", ["/etc/pytest-egress", "/etc/pytest-egress/ca.pem"])
def test_a_mount_where_our_files_would_be_is_never_written(
    made: str, tmp_path: Path, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    source = tmp_path / "mine"
    if made.endswith(".pem"):
        source.write_bytes(SECOND)
    else:
        source.mkdir()
    before = snapshot_of(tmp_path)
    container = ours(make_image({BUNDLE: FIRST}), volumes=[f"{source}:{made}"])
    assert read(container, env_of(container)["SSL_CERT_FILE"]) == FIRST + ca
    assert read(container, env_of(container)["NODE_EXTRA_CA_CERTS"]) == ca
    assert snapshot_of(tmp_path) == before


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("options", ["tmpfs", "mounts"])
def test_variables_lead_past_what_is_mounted_empty(
    options: str, point: str, clients_image: str, is_podman: bool, egress: Egress, ca: bytes
) -> None:
    given: Options = {"tmpfs": {point: ""}}
    if options == "mounts":
        given = {"mounts": [Mount(point, None, type="tmpfs")]}
    result = egress.run(
        clients_image, ["sh", "-c", f"{SHOW[2]}; ls -A {point}"], check=True, **given
    )
    text, _, listed = result.stdout_bytes.rpartition(b"-----END CERTIFICATE-----\n")
    assert (text + b"-----END CERTIFICATE-----\n").endswith(ca)
    assert text.count(b"BEGIN CERTIFICATE") > 100
    assert b"pytest-egress" not in listed
    assert is_podman or b"certificates" not in listed  # Podman copies what the image has there


VOLUMES: dict[str, tuple[tuple[str, ...], Options]] = {
    "volumes": ((), {"volumes": ["/etc/ssl"]}),
    "mounts": ((), {"mounts": [Mount("/etc/ssl", None)]}),
    "image": (("VOLUME /etc/ssl",), {}),
    "image-over-all-of-etc": (("VOLUME /etc",), {}),
}


# Podman fills a volume when its container starts.
@pytest.mark.docker
@pytest.mark.parametrize(("changes", "options"), VOLUMES.values(), ids=VOLUMES)
def test_a_volume_of_the_containers_own_is_extended(
    changes: tuple[str, ...], options: Options, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    image = make_image({BUNDLE: file(FIRST, 0o640, 1, 2)}, *changes)
    container = ours(image, **options)
    assert node_at(container, BUNDLE) == file(FIRST + ca, 0o640, 1, 2)
    assert read(container, env_of(container)["SSL_CERT_FILE"]) == FIRST + ca


@pytest.fixture
def neighbour(make_image: MakeImage, plain: Make) -> DockerContainer:
    """A container with an anonymous volume of its own."""
    return plain(make_image({BUNDLE: SECOND}), volumes=["/etc/ssl"])


@pytest.mark.parametrize("way", ["volumes_from", "by-its-name", "mounts"])
def test_the_volume_of_another_container_is_never_written(
    way: str, neighbour: DockerContainer, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    name = neighbour.attrs["Mounts"][0]["Name"]
    ways: dict[str, Options] = {
        "volumes_from": {"volumes_from": [neighbour.id]},
        "by-its-name": {"volumes": [f"{name}:/etc/ssl"]},
        "mounts": {"mounts": [Mount("/etc/ssl", name)]},
    }
    before = b"".join(neighbour.get_archive("/etc/ssl")[0])
    container = ours(make_image({BUNDLE: FIRST}), **ways[way])
    assert read(container, env_of(container)["SSL_CERT_FILE"]) == SECOND + ca
    assert b"".join(neighbour.get_archive("/etc/ssl")[0]) == before


@pytest.mark.docker
def test_a_volume_whose_driver_leads_to_the_host_is_never_written(
    tmp_path: Path, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    (tmp_path / "ca-certificates.crt").write_bytes(SECOND)
    before = snapshot_of(tmp_path)
    leads = DriverConfig("local", {"type": "none", "o": "bind", "device": str(tmp_path)})
    mount = Mount("/etc/ssl/certs", None, driver_config=leads)
    container = ours(make_image({BUNDLE: FIRST}), mounts=[mount])
    assert read(container, "/etc/pytest-egress/bundle.pem") == SECOND + ca
    assert snapshot_of(tmp_path) == before


def test_our_files_are_not_among_those_of_another_container(
    make_image: MakeImage, plain: Make, ours: Make, ca: bytes
) -> None:
    image = make_image({BUNDLE: FIRST})
    neighbour = plain(image, volumes=["/etc"])
    before = b"".join(neighbour.get_archive("/etc")[0])
    container = ours(image, volumes_from=[neighbour.id])
    assert read(container, env_of(container)["SSL_CERT_FILE"]) == FIRST + ca
    assert b"".join(neighbour.get_archive("/etc")[0]) == before


def test_a_volume_of_a_driver_that_may_keep_it_elsewhere_is_foreign() -> None:
    mount = {"Type": "volume", "Name": "0" * 64, "Destination": "/etc/ssl"}
    container = DockerContainer({"Mounts": [{**mount, "Driver": "local"}]})
    assert mounts.foreign_mounts(container) == []
    container = DockerContainer({"Mounts": [{**mount, "Driver": "nfs"}]})
    assert mounts.foreign_mounts(container) == ["/etc/ssl"]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_named_volume_that_is_empty_gets_what_the_image_has(
    read_only: bool, engine_client: docker.DockerClient, make_image: MakeImage, ours: Make
) -> None:
    image = make_image({BUNDLE: FIRST})
    volume = engine_client.volumes.create(f"layout-{uuid.uuid4().hex}", labels={LABEL: "1"})
    try:
        container = ours(image, volumes=[f"{volume.name}:/etc/ssl"], read_only=read_only)
        assert read(container, BUNDLE) == FIRST
        assert [p for p in unpack(container.get_archive("/etc/ssl/certs")[0]) if "0" in p] == []
    finally:
        for holder in engine_client.containers.list(all=True, filters={"volume": volume.name}):
            holder.remove(force=True)
        volume.remove()


# A root that is read-only.


@pytest.fixture
def session(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    """A session of which no container and no image is left for its end to sweep up."""
    session = Session()
    with monkeypatch.context() as patch:
        patch.setattr(session.engine, "close", lambda: None)
        yield session
    label: Options = {"label": f"{SESSION_LABEL}={session.engine.labels[SESSION_LABEL]}"}
    images = engine_client.images.list(all=True, filters=label)
    gone = eventually(  # a sidecar goes in its own time
        lambda: not engine_client.containers.list(all=True, filters=label, ignore_removed=True)
    )
    session.close()
    assert (images, gone) == ([], True)


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[DockerContainer]:
    """Every container that is created meanwhile."""
    made: list[DockerContainer] = []
    create = Engine.create

    def record(*args: Any, **options: Any) -> DockerContainer:
        made.append(create(*args, **options))
        return made[-1]

    monkeypatch.setattr(Engine, "create", record)
    return made


def test_a_root_that_is_read_only_has_the_ca_and_the_files(
    session: Session, bare_image: str
) -> None:
    script = (
        'cat "$SSL_CERT_FILE" /etc/ssl/certs/ca-certificates.crt /srv/mine; echo "$GREETING $PIP_CERT"; '
        "touch /srv/other || id -u"
    )
    with Egress(session=session) as egress:
        result = egress.run(
            bare_image,
            ["sh", "-c", script],
            files={"/srv/mine": "mine\n"},
            env={"GREETING": "hello", "PIP_CERT": "/mine.pem"},
            read_only=True,
            user="1234",
        )
        ca = session.authority.ca_pem.decode()
    assert result.stdout == f"{ca}{ca}mine\nhello /mine.pem\n1234\n"
    assert "Read-only file system" in result.stderr


@pytest.mark.parametrize("changes", [(), ("VOLUME /data",)], ids=["plain", "with-volume"])
def test_nothing_is_left_of_a_root_that_is_read_only(
    changes: tuple[str, ...],
    session: Session,
    created: list[DockerContainer],
    make_image: MakeImage,
    engine_client: docker.DockerClient,
) -> None:
    image = make_image({BUNDLE: FIRST}, *changes)
    with Egress(session=session) as egress:
        egress.run(image, read_only=True, check=True)
        egress.start(image, read_only=True)
    volumes = [mount["Name"] for each in created for mount in each.attrs["Mounts"]]
    assert (len(created), len(volumes)) == (4, 4 * len(changes))
    for name in volumes:
        with pytest.raises(docker.errors.NotFound):
            engine_client.volumes.get(name)


@pytest.mark.parametrize(("entrypoint", "command"), [(None, RUN_PROGRAM), (RUN_PROGRAM, None)])
def test_an_image_without_a_command_may_have_a_root_that_is_read_only(
    egress: Egress,
    make_image: MakeImage,
    entrypoint: list[str] | None,
    command: list[str] | None,
) -> None:
    image = make_image({}, "CMD []")
    egress.run(image, command, entrypoint=entrypoint, read_only=True, check=True)
    with pytest.raises(EngineError, match="has no command of its own"):
        egress.run(image, read_only=True)


def test_an_image_without_a_command_has_docker_options(
    egress: Egress, make_image: MakeImage
) -> None:
    assert egress.docker_options(make_image({}, "CMD []"))["network_mode"]


def test_an_image_without_a_name_outlives_a_root_that_is_read_only(
    egress: Egress, make_image: MakeImage
) -> None:
    image = make_image({BUNDLE: FIRST}, named=False)
    for _ in range(2):
        egress.run(image, read_only=True, check=True)


def test_nothing_is_left_of_a_root_that_is_read_only_when_its_command_fails(
    session: Session, bare_image: str
) -> None:
    with Egress(session=session) as egress:
        with pytest.raises(CommandError):
            egress.run(bare_image, ["false"], read_only=True, check=True)
        with pytest.raises(EngineError, match="did not start"):
            egress.run(bare_image, ["/nosuch"], read_only=True)


@pytest.mark.parametrize("half", ["files", "commit", "create"])
def test_nothing_is_left_of_a_root_that_is_read_only_when_its_start_fails_half_way(
    half: str, session: Session, bare_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise EngineError("refused here")

    options: Options = {"read_only": True}
    if half == "files":
        put = trust.put
        monkeypatch.setattr(
            trust,
            "put",
            lambda container, archive, what: (put if what == "the CA" else refuse)(
                container, archive, what
            ),
        )
    elif half == "commit":
        monkeypatch.setattr(Engine, "commit", refuse)
    else:
        options["mem_limit"] = "1k"
    with Egress(session=session) as egress, pytest.raises(EngineError) as caught:
        egress.run(bare_image, ["true"], files={"/srv/mine": "mine"}, **options)
    assert ("refused here" in str(caught.value)) is (half != "create")


@pytest.mark.parametrize("point", ["/etc", "/etc/ssl/certs"])
def test_a_folder_of_the_host_under_a_root_that_is_read_only_is_read_and_never_written(
    point: str, host_folder: Callable[[str], Place], bare_image: str, egress: Egress, ca: bytes
) -> None:
    place = host_folder(point)
    before = place.snapshot()
    volumes = [f"{place.source}:{point}"]
    result = egress.run(bare_image, SHOW, check=True, volumes=volumes, read_only=True)
    assert result.stdout_bytes == SECOND + ca
    assert place.snapshot() == before


@pytest.mark.docker
@pytest.mark.parametrize("point", ["/etc/ssl", "/etc"])
def test_a_volume_of_the_image_under_a_root_that_is_read_only_has_the_ca(
    point: str, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    container = ours(make_image({BUNDLE: FIRST}, f"VOLUME {point}"), read_only=True)
    assert read(container, env_of(container)["SSL_CERT_FILE"]) == FIRST + ca


# Found once.


def test_the_roots_of_an_image_are_found_once_whoever_asks_at_the_same_time(
    session: Session, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, count = make_image({BUNDLE: FIRST}), 8
    asked, find, barrier = [], roots.find_roots, threading.Barrier(count)

    def record(*args: Any) -> Roots:
        asked.append(threading.get_ident())
        return find(*args)

    monkeypatch.setattr("pytest_egress.targets.container.find_roots", record)

    def run(_number: int) -> int:
        barrier.wait()
        return egress.run(image).exit_code

    with Egress(session=session) as egress, ThreadPoolExecutor(count) as pool:
        assert list(pool.map(run, range(count))) == [0] * count
    assert len(asked) == 1


@pytest.mark.parametrize(
    "options",
    [{"env": {"SSL_CERT_FILE": "/opt/mine.pem"}}, {"tmpfs": {"/etc/ssl": ""}}],
    ids=["variable", "mount"],
)
def test_what_one_container_has_besides_is_not_taken_for_the_images(
    options: Options, session: Session, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image({BUNDLE: FIRST, "/opt/mine.pem": SECOND})
    found, find = [], roots.find_roots

    def record(*args: Any) -> Roots:
        found.append(find(*args))
        return found[-1]

    monkeypatch.setattr("pytest_egress.targets.container.find_roots", record)
    with Egress(session=session) as egress:
        for given in ({}, options, {}):
            egress.run(image, check=True, **given)
    assert len(found) == 2
    assert found[0] != found[1]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the engine is asked for meanwhile: the paths of a container's files, in any way."""
    calls: list[str] = []

    def record(method: Any) -> Any:
        def recorded(api: docker.APIClient, url: str, **options: Any) -> Any:
            if url.endswith("/archive"):
                calls.append(options["params"]["path"])
            return method(api, url, **options)

        return recorded

    for name in ("head", "get", "put"):
        monkeypatch.setattr(docker.APIClient, name, record(getattr(docker.APIClient, name)))
    return calls


FOLDERS_AND_PUT = ["/etc/ssl", "/etc/pki", "/"]
PROGRAMS = [  # that bring roots, or read neither variables nor bundles
    *(f"{folder}/python3" for folder in ("/usr/local/bin", "/usr/bin")),
    "/usr/bin/ruby",
    *("/usr/bin/chromium", "/usr/bin/chromium-browser", "/opt/google/chrome"),
    *("/usr/bin/firefox-esr", "/usr/bin/firefox"),
]


@pytest.mark.parametrize(
    ("tree", "changes", "besides"),
    [
        ({}, (), []),
        ({BUNDLE: FIRST, "/etc/ssl/cert.pem": link("certs/ca-certificates.crt")}, (), []),
        (RHEL, (), []),
        (
            {
                "/var/lib/ca-certificates/ca-bundle.pem": FIRST,
                "/etc/ssl/ca-bundle.pem": link("/var/lib/ca-certificates/ca-bundle.pem"),
            },
            (),
            ["/var/lib/ca-certificates"],
        ),
        ({BUNDLE: FIRST, f"/opt/java/{CACERTS}": JKS}, (HOME,), ["/opt/java/lib/security"]),
        (
            {"/opt/roots.pem": FIRST, BUNDLE: link("/opt/roots.pem")},
            (),
            [BUNDLE, "/opt/roots.pem", "/opt/roots.pem"],
        ),
    ],
    ids=["empty", "bundle", "RHEL", "openSUSE", "JDK", "link-that-leads-out"],
)
def test_the_engine_is_asked_once_for_each_folder_and_for_what_links_lead_out_to(
    tree: Tree,
    changes: tuple[str, ...],
    besides: list[str],
    session: Session,
    make_image: MakeImage,
    asked: list[str],
    is_podman: bool,
) -> None:
    image = make_image(tree, *changes)
    with Egress(session=session) as egress:
        for expected in ([*FOLDERS_AND_PUT, *PROGRAMS, *besides], ["/"]):
            asked.clear()
            egress.run(image, check=True)
            asked.remove("/")  # the sidecar's agent
            if is_podman:
                asked.remove("/")  # a resolver's address
            assert sorted(asked) == sorted(expected)


@pytest.mark.parametrize("failing", ["/etc/ssl", "/opt/roots.pem"])
def test_what_the_engine_cannot_read_is_not_taken_for_missing(
    failing: str, egress: Egress, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image({"/opt/roots.pem": FIRST, BUNDLE: link("/opt/roots.pem")})

    def broken(method: Any) -> Any:
        def answered(api: docker.APIClient, url: str, **options: Any) -> Any:
            answer = method(api, url, **options)
            if url.endswith("/archive") and options["params"]["path"] == failing:
                answer.close()
                answer.status_code = 500
                answer.headers.pop("X-Docker-Container-Path-Stat")
                answer.raw = io.BytesIO(b'{"message": "lstat: input/output error"}')
            return answer

        return answered

    for name in ("head", "get"):
        monkeypatch.setattr(docker.APIClient, name, broken(getattr(docker.APIClient, name)))
    with pytest.raises(EngineError, match=r"the engine did not .*: lstat: input/output error"):
        egress.run(image)


def test_a_path_that_nothing_can_be_at_is_missing(ours: Make, make_image: MakeImage) -> None:
    image = make_image(
        {
            "/etc/ssl/certs": file(b"no folder"),
            "/etc/pki/tls": link("/opt/tls"),
            "/opt/tls": link("/etc/pki/tls"),
        },
        f"ENV SSL_CERT_FILE=/{'long' * 200}.pem",
    )
    assert "/etc/pytest-egress/ca.pem" in unpack(ours(image).get_archive("/etc")[0])


def test_each_name_of_a_bundle_with_several_is_extended(
    make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    names = ("/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem")
    again = Node(tarfile.LNKTYPE, None, 0o644, target="etc/aaa.pem")
    container = ours(make_image({"/etc/aaa.pem": FIRST, **dict.fromkeys(names, again)}))
    for name in names:
        assert read(container, name) == FIRST + ca
    assert read(container, "/etc/aaa.pem") == FIRST
    assert read(container, "/etc/pytest-egress/bundle.pem") == FIRST + ca


# Podman does not read a file that is mounted by itself.
@pytest.mark.docker
@pytest.mark.parametrize("point", [BUNDLE, "/etc/ssl/cert.pem"])
def test_a_file_that_is_mounted_in_a_folder_that_is_read_whole_is_never_written(
    point: str, tmp_path: Path, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    (tmp_path / "mine.pem").write_bytes(SECOND)
    before = snapshot_of(tmp_path)
    image = make_image({BUNDLE: FIRST, "/etc/ssl/cert.pem": THIRD})
    container = ours(image, volumes=[f"{tmp_path}/mine.pem:{point}"])
    for path, content in ((BUNDLE, FIRST), ("/etc/ssl/cert.pem", THIRD)):
        assert read(container, path) == (SECOND if path == point else content + ca)
    assert snapshot_of(tmp_path) == before


# Variables.


def test_variables_of_the_image_and_the_test_are_kept_and_options_are_added_to() -> None:
    ours = {each.name: each.value("/our") for each in runtimes.VARIABLES}
    java = ours.pop("JAVA_TOOL_OPTIONS")
    image = {"PATH": "/bin", "PIP_CERT": "/image.pem", "JAVA_TOOL_OPTIONS": "-Xmx64m"}
    user = {"CURL_CA_BUNDLE": "", "RETRIES": "3"}
    expected = {**ours, **user, "JAVA_TOOL_OPTIONS": f"-Xmx64m {java}"}
    del expected["PIP_CERT"]
    assert runtimes.environment(image, user, "/our") == expected
    mine = {"JAVA_TOOL_OPTIONS": "-Djavax.net.ssl.trustStore=/mine.jks"}
    assert runtimes.environment(image, mine, "/our").items() >= mine.items()


@pytest.mark.parametrize(
    ("image_env", "user_env", "sentences"),
    [
        ({}, {}, []),
        ({"PATH": "/bin"}, {"RETRIES": "3"}, []),
        (
            {},
            {"SSL_CERT_FILE": "/x.pem"},
            ["SSL_CERT_FILE='/x.pem' is set by the test, and was kept"],
        ),
        (
            {"SSL_CERT_FILE": "/x.pem"},
            {},
            ["SSL_CERT_FILE='/x.pem' is set by the image, and was kept"],
        ),
        (
            {"SSL_CERT_FILE": "/image.pem"},
            {"SSL_CERT_FILE": ""},
            ["SSL_CERT_FILE='' is set by the test, and was kept"],
        ),
        ({"SSL_CERT_FILE": "/image.pem"}, {"SSL_CERT_FILE": "/etc/ssl/cert.pem"}, []),
        ({}, {"CURL_CA_BUNDLE": "/etc/pytest-egress/bundle.pem"}, []),
        ({}, {"NODE_EXTRA_CA_CERTS": "/pytest-egress/ca.pem"}, []),
        ({"JAVA_TOOL_OPTIONS": "-Xmx64m"}, {}, []),
        (
            {"PIP_CERT": "/pip.pem"},
            {"JAVA_TOOL_OPTIONS": "-Djavax.net.ssl.trustStore=/mine.jks"},
            [
                "PIP_CERT='/pip.pem' is set by the image, and was kept",
                "JAVA_TOOL_OPTIONS='-Djavax.net.ssl.trustStore=/mine.jks' is set by the test, and was kept",
            ],
        ),
        (
            {},
            {"JAVA_TOOL_OPTIONS": "-Djavax.net.ssl.trustStore=/etc/pytest-egress/truststore.jks"},
            [],
        ),
    ],
)
def test_a_variable_that_leads_past_the_ca_is_told(
    image_env: dict[str, str], user_env: dict[str, str], sentences: list[str]
) -> None:
    assert runtimes.defeated(image_env, user_env, ["/etc/ssl/cert.pem"]) == sentences


def test_a_variable_of_the_image_that_leads_over_a_link_to_what_is_extended_is_no_hint(
    egress: Egress, make_image: MakeImage
) -> None:
    tree = {BUNDLE: FIRST, "/etc/ssl/cert.pem": link("certs/ca-certificates.crt")}
    image = make_image(tree, "ENV SSL_CERT_FILE=/etc/ssl/cert.pem")
    egress.start(image)
    assert egress.containers[-1].hints == []


@pytest.mark.parametrize("kind", ["volumes", "tmpfs"])
def test_a_variable_that_leads_to_a_bundle_in_a_mount_is_a_hint(
    kind: str, egress: Egress, make_image: MakeImage, tmp_path: Path
) -> None:
    (tmp_path / "ca-certificates.crt").write_bytes(SECOND)
    ways: dict[str, Options] = {
        "volumes": {"volumes": [f"{tmp_path}:/etc/ssl/certs"]},
        "tmpfs": {"tmpfs": {"/etc/ssl": ""}},
    }
    image = make_image({BUNDLE: FIRST}, f"ENV PIP_CERT={BUNDLE}")
    egress.start(image, **ways[kind])
    assert egress.containers[-1].hints == [f"PIP_CERT={BUNDLE!r} is set by the image, and was kept"]


def test_a_client_that_is_led_past_the_ca_says_so(egress: Egress, clients_image: str) -> None:
    egress.block("api.example.test")
    code = "import urllib.request as u; u.urlopen('https://api.example.test/')"
    result = egress.run(
        clients_image,
        ["python3", "-c", code],
        env={"SSL_CERT_FILE": "/x.pem", "SSL_CERT_DIR": "/none"},
        files={"/x.pem": FIRST},
    )
    assert "CERTIFICATE_VERIFY_FAILED" in result.stderr
    (failure,) = (entry for entry in egress.ledger if isinstance(entry, TlsFailure))
    assert failure.note.endswith("; SSL_CERT_FILE='/x.pem' is set by the test, and was kept")
