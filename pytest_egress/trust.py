"""Puts the CA of the run into a created target, before its first instruction, and takes nothing away.

The image's own bundle is extended where it really is; our directory gets the CA alone, the merged bundle, and the same
as a Java keystore; variables point there. The tables here are the whole knowledge: more runtimes are more rows.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Literal

from pytest_egress.archive import File, build_tar, read_tar
from pytest_egress.certificates import (
    append,
    extend_java_keystore,
    from_java_keystore,
    from_pem,
    hashed_name,
    java_keystore,
    merge,
)
from pytest_egress.engine import engine_errors

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer

    from pytest_egress.engine import Engine

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

Form = Literal["ca", "bundle", "truststore"]

DIRECTORY: Final = "/etc/pytest-egress"
ROOT_DIRECTORY: Final = "/pytest-egress"  # where something is mounted over /etc
FILE_NAMES: Final[Mapping[Form, str]] = {
    "ca": "ca.pem",
    "bundle": "bundle.pem",
    "truststore": "truststore.jks",
}
OUR_FILES: Final = frozenset(
    f"{directory}/{name}"
    for directory in (DIRECTORY, ROOT_DIRECTORY)
    for name in FILE_NAMES.values()
)


@dataclass(frozen=True, kw_only=True)
class Variable:
    """How runtimes are told: what replaces their roots gets the bundle, what adds to them the CA alone.

    Attributes:
        flag: What goes before the path, in a variable that holds options of which ours is one more.
        runtimes: Those that read it.
    """

    name: str
    form: Form
    runtimes: tuple[str, ...]
    flag: str = ""

    def value(self, directory: str) -> str:
        """What it is set to."""
        return f"{self.flag}{directory}/{FILE_NAMES[self.form]}"


VARIABLES: Final = (
    Variable(
        name="SSL_CERT_FILE",
        form="bundle",
        runtimes=("OpenSSL", "Python ssl", "aiohttp", "httpx", "Ruby", "Go", "uv", "Rust", ".NET"),
    ),
    Variable(name="CURL_CA_BUNDLE", form="bundle", runtimes=("curl",)),
    Variable(name="REQUESTS_CA_BUNDLE", form="bundle", runtimes=("requests",)),
    Variable(name="PIP_CERT", form="bundle", runtimes=("pip",)),
    Variable(name="AWS_CA_BUNDLE", form="bundle", runtimes=("boto3", "AWS CLI")),
    Variable(name="GIT_SSL_CAINFO", form="bundle", runtimes=("git",)),
    Variable(name="NODE_EXTRA_CA_CERTS", form="ca", runtimes=("Node.js", "npm", "axios", "Bun")),
    Variable(name="DENO_CERT", form="ca", runtimes=("Deno",)),
    Variable(name="PERL_LWP_SSL_CA_FILE", form="bundle", runtimes=("Perl LWP",)),
    Variable(name="CARGO_HTTP_CAINFO", form="bundle", runtimes=("cargo",)),
    Variable(name="NIX_SSL_CERT_FILE", form="bundle", runtimes=("Nix",)),
    Variable(
        name="GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", form="bundle", runtimes=("gRPC C-core languages",)
    ),
    Variable(
        name="JAVA_TOOL_OPTIONS",
        form="truststore",
        runtimes=("Java",),
        flag="-Djavax.net.ssl.trustStore=",
    ),
)
LEADING: Final = frozenset({"JAVA_HOME", *(variable.name for variable in VARIABLES)})
"""Variables that say where roots are."""

BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, distroless
    "/etc/ssl/cert.pem",  # Alpine, as a link
    "/etc/ssl/certs/ca-bundle.crt",  # Nix
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/pki/tls/cert.pem",  # Fedora, RHEL, for OpenSSL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL, where the links lead
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/var/lib/ca-certificates/ca-bundle.pem",  # openSUSE, where the link leads
    "/etc/pki/tls/cacert.pem",  # OpenELEC
)
DEFAULT_BUNDLE: Final = BUNDLES[0]
HASHED_DIRECTORY: Final = "/etc/ssl/certs"  # where OpenSSL looks for a CA by its name
KEYSTORES: Final = ("/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts")
OF_JAVA_HOME: Final = tuple(  # the JVM's own order; the second folder is Java 8's
    f"{folder}/security/{name}"
    for folder in ("lib", "jre/lib")
    for name in ("jssecacerts", "cacerts")
)
NEVER_LINKS: Final = ("/etc", "/var", "/var/lib")  # not looked at where nothing is mounted
IMAGE_BUNDLE: Final = "the image's bundle"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A client that trusts the CA untold.

    Attributes:
        by: The variable that leads it to the CA, or `IMAGE_BUNDLE`.
        effect: What becomes of the roots it has: what it is told "replaces" them, and holds them too, or "adds" to
            them, or it reads the image's own, which we "extend".
        tested: Whether a test asks with it, in a container.
    """

    name: str
    by: str
    effect: Literal["adds", "replaces", "extends"]
    tested: bool = True


RUNTIMES: Final = (
    Runtime(name="OpenSSL", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="curl", by="CURL_CA_BUNDLE", effect="replaces"),
    Runtime(name="libcurl with GnuTLS", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="wget", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="git", by="GIT_SSL_CAINFO", effect="replaces"),
    Runtime(name="apt", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="Python ssl", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="requests", by="REQUESTS_CA_BUNDLE", effect="replaces"),
    Runtime(name="httpx", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="aiohttp", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="urllib3", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="boto3", by="AWS_CA_BUNDLE", effect="replaces"),
    Runtime(name="AWS CLI", by="AWS_CA_BUNDLE", effect="replaces"),
    Runtime(name="pip", by="REQUESTS_CA_BUNDLE", effect="replaces"),
    Runtime(name="uv", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="Node.js", by="NODE_EXTRA_CA_CERTS", effect="adds"),
    Runtime(name="Node.js fetch", by="NODE_EXTRA_CA_CERTS", effect="adds"),
    Runtime(name="axios", by="NODE_EXTRA_CA_CERTS", effect="adds"),
    Runtime(name="npm", by="NODE_EXTRA_CA_CERTS", effect="adds"),
    Runtime(name="Deno", by="DENO_CERT", effect="adds"),
    Runtime(name="Java 21 HttpClient", by="JAVA_TOOL_OPTIONS", effect="replaces"),
    Runtime(name="Java 21 HttpsURLConnection", by="JAVA_TOOL_OPTIONS", effect="replaces"),
    Runtime(name="Java 25 HttpClient", by="JAVA_TOOL_OPTIONS", effect="replaces"),
    Runtime(name="Java 25 HttpsURLConnection", by="JAVA_TOOL_OPTIONS", effect="replaces"),
    Runtime(name="Go", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="Ruby", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="RubyGems", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="PHP", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="PHP curl", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="Perl LWP", by="PERL_LWP_SSL_CA_FILE", effect="replaces"),
    Runtime(name="Erlang", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="gRPC C-core", by="GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", effect="replaces"),
    Runtime(name="cargo", by="CARGO_HTTP_CAINFO", effect="replaces"),
    Runtime(name="Nix", by="NIX_SSL_CERT_FILE", effect="replaces"),
    Runtime(name=".NET", by="SSL_CERT_FILE", effect="replaces", tested=False),
    Runtime(
        name="Rust with rustls-native-certs", by="SSL_CERT_FILE", effect="replaces", tested=False
    ),
    Runtime(name="Bun", by="NODE_EXTRA_CA_CERTS", effect="adds", tested=False),
)
MOUNT_OPTIONS: Final = ("volumes", "mounts", "tmpfs", "volumes_from", "volume_driver")
GO_DIRECTORY: Final = 1 << 31  # of an os.FileMode
GO_TYPES: Final = 0x8F280000  # of an os.FileMode: whatever makes a file no regular one
ANONYMOUS: Final = re.compile(r"[0-9a-f]{64}")  # the name of a volume that goes with its container


@dataclass(frozen=True, kw_only=True)
class Roots:
    """What an image trusts.

    Attributes:
        bundles: Its PEM bundles, each once, at its real path.
        names: The paths that lead to them, each with the real one.
        default_bundle: Where `DEFAULT_BUNDLE` really would be; None where something else is in its place.
        keystore: The certificates of its Java keystore in DER; none where it has none that can be read.
        keystores: That keystore, at its real path.
        hashed_directory: The real path of `HASHED_DIRECTORY`, or None where it has none.
        mounts: The real paths of the mounts that are not the container's own.
    """

    bundles: Mapping[str, File] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    default_bundle: str | None = DEFAULT_BUNDLE
    keystore: Sequence[bytes] = ()
    keystores: Mapping[str, File] = field(default_factory=dict)
    hashed_directory: str | None = None
    mounts: Sequence[str] = ()

    def extended(self) -> list[str]:
        """The paths, links among them, of the bundles that get the CA."""
        return [name for name, real in self.names.items() if not is_foreign(real, self.mounts)]


def variables(entries: Iterable[str]) -> dict[str, str]:
    """`NAME=value`, as an image has it, as a mapping."""
    return dict(entry.partition("=")[::2] for entry in entries)


def environment(
    image_env: Mapping[str, str], user_env: Mapping[str, str], directory: str = DIRECTORY
) -> dict[str, str]:
    """The variables to create a target with: ours where neither the image nor the user has set them.

    Of a variable that holds options ours is added to theirs.
    """
    theirs = {**image_env, **user_env}
    ours = {}
    for variable in VARIABLES:
        value = variable.value(directory)
        if variable.name not in theirs:
            ours[variable.name] = value
        elif variable.flag and variable.flag not in theirs[variable.name]:
            ours[variable.name] = f"{theirs[variable.name]} {value}".strip()
    return {**user_env, **ours}


def defeated(
    image_env: Mapping[str, str], user_env: Mapping[str, str], extended: Iterable[str]
) -> list[str]:
    """A sentence for each variable of theirs that leads a runtime past the CA.

    Args:
        extended: The paths of the bundles that hold the CA.
    """
    sentences, safe = [], {*extended, *OUR_FILES}
    for variable in VARIABLES:
        for source, values in (("the test", user_env), ("the image", image_env)):
            if variable.name not in values:
                continue
            value = values[variable.name]
            if not leads_to(safe, variable, value):
                sentences.append(f"{variable.name}={value!r} is set by {source}, and was kept")
            break
    return sentences


def leads_to(safe: Iterable[str], variable: Variable, value: str) -> bool:
    """Whether what a variable is set to leads to one of these files, or is going to."""
    if variable.flag:  # ours is added to options of which none is it
        return variable.flag not in value or any(f"{variable.flag}{p}" in value for p in safe)
    return value in safe


def candidates(image_env: Mapping[str, str], user_env: Mapping[str, str]) -> list[str]:
    """Where a bundle may be: the known paths, and what variables of the image or the test name."""
    named = [
        path
        for values in (image_env, user_env)
        for variable in VARIABLES
        if variable.form == "bundle" and (path := values.get(variable.name, "")).startswith("/")
    ]
    return list(dict.fromkeys([*BUNDLES, *map(normal, named)]))


class Kind(Enum):
    """What is at a path."""

    MISSING = auto()
    DIRECTORY = auto()
    REGULAR = auto()
    OTHER = auto()


class Files:
    """What a created container has, asked of the engine path by path, and each path once: a call costs milliseconds.

    Args:
        directories: Those that are taken for directories, and for their own real paths, without a look.
    """

    def __init__(
        self, engine: Engine, container: DockerContainer, directories: Iterable[str] = ()
    ) -> None:
        self._engine, self._container = engine, container
        self._seen = {path: (path, Kind.DIRECTORY) for path in ("/", *directories)}

    def resolve(self, path: str) -> tuple[str, Kind]:
        """Where a path really leads, through links among its folders too, and what is there."""
        if path not in self._seen:
            folder, kind = self.resolve(posixpath.dirname(path))
            real = posixpath.join(folder, posixpath.basename(path))
            if kind is Kind.DIRECTORY:
                self._seen[path] = self.look(real)
            else:
                self._seen[path] = real, kind if kind is Kind.MISSING else Kind.OTHER
        return self._seen[path]

    def look(self, path: str) -> tuple[str, Kind]:
        """The same without the links among its folders."""
        if path not in self._seen:
            real, stat = path, self._engine.stat(self._container, path)
            if stat and stat.get("linkTarget"):
                real = stat["linkTarget"]  # the end of all links; whether it is there is not said
                stat = None if real in self._seen else self._engine.stat(self._container, real)
            found = self._seen.setdefault(real, (real, kind_of(stat)))
            self._seen[path] = found
        return self._seen[path]

    def read(self, path: str) -> File:
        """The regular file at a path that is real."""
        with engine_errors(f"read {path!r}"):
            stream, _ = self._container.get_archive(path)
            (file,) = read_tar(stream).values()
        return file


def kind_of(stat: Mapping[str, Any] | None) -> Kind:
    """What the engine describes (the `os.FileMode` of Go)."""
    if stat is None:
        return Kind.MISSING
    if stat["mode"] & GO_DIRECTORY:
        return Kind.DIRECTORY
    return Kind.OTHER if stat["mode"] & GO_TYPES else Kind.REGULAR


def find_roots(
    engine: Engine,
    container: DockerContainer,
    image_env: Mapping[str, str],
    user_env: Mapping[str, str],
) -> Roots:
    """What a created container trusts."""
    foreign = foreign_mounts(container)
    files = Files(engine, container, () if foreign else NEVER_LINKS)
    names = {
        path: real
        for path in candidates(image_env, user_env)
        for real, kind in [files.resolve(path)]
        if kind is Kind.REGULAR
    }
    keystores = find_keystore(files, {**image_env, **user_env})
    default, default_kind = files.resolve(DEFAULT_BUNDLE)
    hashed, hashed_kind = files.resolve(HASHED_DIRECTORY)
    return Roots(
        bundles={real: files.read(real) for real in dict.fromkeys(names.values())},
        names=names,
        default_bundle=default if default_kind is Kind.MISSING else None,
        keystore=[der for f in keystores.values() for der in from_java_keystore(f.content)],
        keystores=keystores,
        hashed_directory=hashed if hashed_kind is Kind.DIRECTORY else None,
        mounts=[files.resolve(point)[0] for point in foreign],
    )


def find_keystore(files: Files, env: Mapping[str, str]) -> dict[str, File]:
    """The first Java keystore that can be read, at its real path; empty where there is none."""
    home = env.get("JAVA_HOME", "")
    of_home = [posixpath.join(home, path) for path in OF_JAVA_HOME] if home.startswith("/") else []
    for look, path in [
        *((files.look, p) for p in of_home),
        *((files.resolve, p) for p in KEYSTORES),
    ]:
        real, kind = look(path)
        if kind is Kind.REGULAR:
            with contextlib.suppress(ValueError):  # as the JVM would fall back
                file = files.read(real)
                from_java_keystore(file.content)
                return {real: file}
    return {}


def trust_tar(
    ca_pem: bytes,
    subject: bytes,
    roots: Roots,
    *,
    directory: str = DIRECTORY,
    foreign: Sequence[str] = (),
) -> bytes:
    """The archive to extract at `/`: our directory, and every bundle with the CA at its end.

    Args:
        ca_pem: The CA's certificate.
        subject: Its subject in DER.
        foreign: Mount points below which nothing is written, besides those that the roots were found among.
    """
    files = {
        path: replace(file, content=append(file.content, ca_pem))
        for path, file in roots.bundles.items()
    }
    (ca,) = from_pem(ca_pem)
    for path, file in roots.keystores.items():
        files[path] = replace(file, content=extend_java_keystore(file.content, ca))
    if not roots.bundles and roots.default_bundle is not None:
        files[roots.default_bundle] = File(content=ca_pem)
    if roots.hashed_directory is not None:
        files[f"{roots.hashed_directory}/{hashed_name(subject)}.0"] = File(content=ca_pem)
    for name, content in own_files(ca_pem, roots).items():
        files[f"{directory}/{name}"] = File(content=content)
    mounts = [*foreign, *roots.mounts]
    return build_tar({path: f for path, f in files.items() if not is_foreign(path, mounts)})


def own_files(ca_pem: bytes, roots: Roots) -> dict[str, bytes]:
    """What our directory holds, by name: the CA alone, the image's roots with it, and these as a Java keystore."""
    merged = append(merge(file.content for file in roots.bundles.values()), ca_pem)
    trusted = [*(roots.keystore or from_pem(merged)), *from_pem(ca_pem)]
    keystore = java_keystore(list(dict.fromkeys(trusted)))
    content: dict[Form, bytes] = {"ca": ca_pem, "bundle": merged, "truststore": keystore}
    return {FILE_NAMES[form]: data for form, data in content.items()}


# What is mounted over an image's files.


def directory_for(options: Mapping[str, Any], declared: Iterable[str] = ()) -> str:
    """Where our files go in a container with these options of docker-py's.

    Args:
        declared: The volumes of its image: under a root that is read-only they are made anew, without our files.
    """
    points = [*mount_points(options), *(declared if options.get("read_only") else ())]
    mounted = options.get("volumes_from") or any(
        is_under(DIRECTORY, point) or is_under(point, DIRECTORY) for point in points
    )
    return ROOT_DIRECTORY if mounted else DIRECTORY


def mount_points(options: Mapping[str, Any]) -> list[str]:
    """Where a container's own mounts are, in the forms that docker-py takes."""
    volumes, tmpfs = options.get("volumes") or {}, options.get("tmpfs") or {}
    if isinstance(volumes, Mapping):
        points = [each["bind"] if isinstance(each, Mapping) else each for each in volumes.values()]
    else:
        points = [part[1] if len(part := text.split(":")) > 1 else text for text in volumes]
    points += [mount["Target"] for mount in options.get("mounts") or []]
    return [normal(point) for point in (*points, *(text.partition(":")[0] for text in tmpfs))]


def foreign_mounts(container: DockerContainer) -> list[str]:
    """The mount points of a created container whose content is not its own: nothing is written there."""
    host = container.attrs.get("HostConfig", {})
    mounts = container.attrs.get("Mounts") or []
    foreign = [mount["Destination"] for mount in mounts if not is_own(mount, host)]
    return [normal(point) for point in (*foreign, *(host.get("Tmpfs") or {}))]


def is_own(mount: Mapping[str, Any], host: Mapping[str, Any]) -> bool:
    """Whether a mount is a volume that was made for this container, and goes with it."""
    declared = host.get("Mounts") or []
    named = {text.partition(":")[0] for text in host.get("Binds") or []}
    named |= {each.get("Source") for each in declared}
    by_driver = {  # whose options may lead to any folder of the host
        each["Target"] for each in declared if (each.get("VolumeOptions") or {}).get("DriverConfig")
    }
    return bool(
        mount["Type"] == "volume"
        and mount.get("Driver") == "local"
        and ANONYMOUS.fullmatch(mount.get("Name") or "")
        and mount["Name"] not in named
        and mount["Destination"] not in by_driver
        and not host.get("VolumesFrom")
    )


def normal(path: str) -> str:
    """An absolute path without what changes nothing in it."""
    return posixpath.normpath(f"/{path.lstrip('/')}")


def is_foreign(path: str, points: Iterable[str]) -> bool:
    """Whether a path is in one of these mounts."""
    return any(is_under(path, point) for point in points)


def is_under(path: str, point: str) -> bool:
    """Whether a path is at a mount point or below it."""
    return f"{path}/".startswith(f"{point.rstrip('/')}/")


def put(container: DockerContainer, archive: bytes, what: str) -> None:
    """Extract an archive at `/` of a created container (`PUT /containers/{id}/archive`).

    Raises:
        EngineError: The engine refuses.
    """
    with engine_errors(f"take {what}"):
        container.put_archive("/", archive)
