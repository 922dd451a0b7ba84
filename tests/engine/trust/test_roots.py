"""The CA in images of every layout, under mounts of every kind: what is extended, and that nothing else differs."""

from __future__ import annotations

import contextlib
import io
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
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
    NoEncryption,
    pkcs12,
)
from docker.types import Mount

from pytest_egress import Egress, EngineError
from pytest_egress.engine.archive import build_tar
from pytest_egress.engine.leftovers import SESSION_LABEL
from pytest_egress.gateway.tls.authority import Authority
from pytest_egress.session import Session
from pytest_egress.targets.trust import roots
from pytest_egress.targets.trust.certificates import from_java_keystore, hashed_name, java_keystore
from pytest_egress.targets.trust.roots import FOLDER_BYTES, Roots
from tests.support.image_trees import (
    BUNDLE,
    FIRST,
    FOR_THE_ENGINE,
    LABEL,
    PKI,
    RHEL,
    SECOND,
    SHOW,
    THIRD,
    Make,
    MakeImage,
    Node,
    Options,
    Place,
    Tree,
    below,
    der,
    env_of,
    file,
    files_of,
    link,
    read,
    snapshot_of,
    unpack,
)
from tests.support.stage import eventually

DIRECTORY = Node(tarfile.DIRTYPE, None, 0o755)


@pytest.fixture
def hashed(egress_ca: trustme.CA) -> str:
    """The name under which OpenSSL finds the CA in a directory."""
    return f"{hashed_name(Authority(egress_ca).ca_subject)}.0"


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
    before = files_of(plain(image), is_podman)
    container = ours(image, env=layout.env)
    after = files_of(container, is_podman)
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
    else:  # what Docker mounts over files of each container; below it nothing is changed
        mounted = {f"/etc/{name}" for name in FOR_THE_ENGINE}
        assert not mounted & {each["Path"] for each in container.diff() or ()}
        before, after = (
            {p: n for p, n in each.items() if p not in mounted} for each in (before, after)
        )
    assert {path: node for path, node in after.items() if before.get(path) != node} == expected
    assert before.keys() <= after.keys()


def pems(bundle: bytes) -> list[bytes]:
    """Its certificates, each in PEM."""
    end = b"-----END CERTIFICATE-----\n"
    return [part + end for part in bundle.split(end) if part]


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
    result = egress.run(bare_image, SHOW, **options(place.source, point))
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
    result = egress.run(bare_image, SHOW, **options(place.source, point))
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
    result = egress.run(clients_image, ["sh", "-c", f"{SHOW[2]}; ls -A {point}"], **given)
    text, _, listed = result.stdout_bytes.rpartition(b"-----END CERTIFICATE-----\n")
    assert (text + b"-----END CERTIFICATE-----\n").endswith(ca)
    assert text.count(b"BEGIN CERTIFICATE") > 100
    assert b"pytest-egress" not in listed
    assert is_podman or b"certificates" not in listed  # Podman copies what the image has there


# A root that is read-only.


@pytest.fixture
def session(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    """A session of which no container and no image is left for its end to sweep up. Its sidecars are new ones."""
    session = Session(sidecar_reuse=False)
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


# Found once.


def test_the_roots_of_an_image_are_found_once_whoever_asks_at_the_same_time(
    session: Session, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, count = make_image({BUNDLE: FIRST}), 8
    asked, find, barrier = [], roots.find_roots, threading.Barrier(count)

    def record(*args: Any) -> Roots:
        asked.append(threading.get_ident())
        return find(*args)

    monkeypatch.setattr("pytest_egress.targets.contents.find_roots", record)

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

    monkeypatch.setattr("pytest_egress.targets.contents.find_roots", record)
    with Egress(session=session) as egress:
        for given in ({}, options, {}):
            egress.run(image, **given)
    assert len(found) == 2
    assert found[0] != found[1]


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
            egress.run(image)
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
