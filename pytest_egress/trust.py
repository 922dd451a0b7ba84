"""Puts the CA of the run into a created target, before its first instruction, and takes nothing away.

The image's own bundle is extended where it really is; our directory gets the CA alone, the merged bundle, and the same
as a Java keystore; variables point there. The tables here are the whole knowledge: more runtimes are more rows.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import docker.errors

from pytest_egress.archive import File, build_tar, read_tar
from pytest_egress.certificates import (
    append,
    from_java_keystore,
    from_pem,
    hashed_name,
    java_keystore,
)
from pytest_egress.engine import explanation
from pytest_egress.errors import EngineError

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
BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, distroless
    "/etc/ssl/cert.pem",  # Alpine, as a link
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/var/lib/ca-certificates/ca-bundle.pem",  # openSUSE, where the link leads
    "/etc/pki/tls/cacert.pem",  # OpenELEC
)
DEFAULT_BUNDLE: Final = BUNDLES[0]
HASHED_DIRECTORY: Final = "/etc/ssl/certs"  # where OpenSSL looks for a CA by its name
KEYSTORES: Final = ("/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts")
OF_JAVA_HOME: Final = ("lib/security/cacerts", "jre/lib/security/cacerts")
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
    Runtime(name="apt", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="Python ssl", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="requests", by="REQUESTS_CA_BUNDLE", effect="replaces"),
    Runtime(name="httpx", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="aiohttp", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="urllib3", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="boto3", by="AWS_CA_BUNDLE", effect="replaces"),
    Runtime(name="AWS CLI", by="AWS_CA_BUNDLE", effect="replaces"),
    Runtime(name="pip", by="PIP_CERT", effect="replaces"),
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
    Runtime(name="PHP", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="PHP curl", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="Perl LWP", by="PERL_LWP_SSL_CA_FILE", effect="replaces"),
    Runtime(name="Erlang", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="gRPC C-core", by="GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", effect="replaces"),
    Runtime(name="cargo", by="CARGO_HTTP_CAINFO", effect="replaces"),
    Runtime(name="Nix", by="NIX_SSL_CERT_FILE", effect="replaces"),
    Runtime(name=".NET", by="SSL_CERT_FILE", effect="replaces", tested=False),
    Runtime(name="Rust with rustls-native-certs", by="SSL_CERT_FILE", effect="replaces", tested=False),
    Runtime(name="Bun", by="NODE_EXTRA_CA_CERTS", effect="adds", tested=False),
)
ANONYMOUS: Final = re.compile(r"[0-9a-f]{64}")  # the name of a volume that goes with its container


@dataclass(frozen=True, kw_only=True)
class Roots:
    """What an image trusts.

    Attributes:
        bundles: Its PEM bundles, each once, at its real path.
        keystore: The certificates of its Java keystore in DER; none where it has none that can be read.
        hashed_directory: The real path of `HASHED_DIRECTORY`, or None where it has none.
    """

    bundles: Mapping[str, File] = field(default_factory=dict)
    keystore: Sequence[bytes] = ()
    hashed_directory: str | None = None


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
    sentences, safe = [], {*extended}
    for variable in VARIABLES:
        for source, values in (("the test", user_env), ("the image", image_env)):
            if variable.name not in values:
                continue
            value = values[variable.name]
            kept = variable.flag in value if variable.flag else value not in safe
            if kept:
                sentences.append(f"{variable.name}={value!r} is set by {source}, and was kept")
            break
    return sentences


def candidates(image_env: Mapping[str, str], user_env: Mapping[str, str]) -> list[str]:
    """Where a bundle may be: the known paths, and what variables of the image or the test name."""
    named = [
        path
        for values in (image_env, user_env)
        for variable in VARIABLES
        if variable.form == "bundle" and (path := values.get(variable.name, "")).startswith("/")
    ]
    return list(dict.fromkeys([*BUNDLES, *named]))


def find_roots(
    engine: Engine,
    container: DockerContainer,
    image_env: Mapping[str, str],
    user_env: Mapping[str, str],
) -> Roots:
    """What a created container trusts, links followed."""
    bundles = find_files(engine, container, candidates(image_env, user_env))
    return Roots(
        bundles=bundles,
        keystore=find_keystore(engine, container, image_env),
        hashed_directory=real_path(engine, container, HASHED_DIRECTORY),
    )


def real_path(engine: Engine, container: DockerContainer, path: str) -> str | None:
    """Where a path really is, or None for one that is missing; the engine follows every link."""
    if (stat := engine.stat(container, path)) is None:
        return None
    return posixpath.normpath(stat.get("linkTarget") or path)


def find_files(engine: Engine, container: DockerContainer, paths: Iterable[str]) -> dict[str, File]:
    """The regular files among some paths, each once, at its real path."""
    found: dict[str, File] = {}
    for path in paths:
        real = real_path(engine, container, path)
        if real is None or real in found or engine.stat(container, real) is None:
            continue
        stream, _ = container.get_archive(real)
        found.update((real, file) for file in read_tar(b"".join(stream)).values())
    return found


def find_keystore(
    engine: Engine, container: DockerContainer, image_env: Mapping[str, str]
) -> list[bytes]:
    """The certificates of the first Java keystore that can be read."""
    home = image_env.get("JAVA_HOME", "")
    of_home = [posixpath.join(home, path) for path in OF_JAVA_HOME] if home.startswith("/") else []
    for file in find_files(engine, container, [*of_home, *KEYSTORES]).values():
        try:
            return from_java_keystore(file.content)
        except ValueError:  # as the JVM would fall back
            continue
    return []


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
        foreign: Mount points below which nothing is written.
    """
    files = {
        path: File(content=append(f.content, ca_pem), mode=f.mode, uid=f.uid, gid=f.gid)
        for path, f in roots.bundles.items()
    }
    if not roots.bundles:
        files[DEFAULT_BUNDLE] = File(content=ca_pem)
    if roots.hashed_directory is not None:
        files[f"{roots.hashed_directory}/{hashed_name(subject)}.0"] = File(content=ca_pem)
    for name, content in own_files(ca_pem, roots).items():
        files[f"{directory}/{name}"] = File(content=content)
    return build_tar({path: f for path, f in files.items() if not is_foreign(path, foreign)})


def own_files(ca_pem: bytes, roots: Roots) -> dict[str, bytes]:
    """What our directory holds, by name: the CA alone, the image's roots with it, and these as a Java keystore."""
    merged = append(next((file.content for file in roots.bundles.values()), b""), ca_pem)
    trusted = [*(roots.keystore or from_pem(merged)), *from_pem(ca_pem)]
    keystore = java_keystore(list(dict.fromkeys(trusted)))
    content: dict[Form, bytes] = {"ca": ca_pem, "bundle": merged, "truststore": keystore}
    return {FILE_NAMES[form]: data for form, data in content.items()}


# What is mounted over an image's files.


def directory_for(options: Mapping[str, Any]) -> str:
    """Where our files go in a container with these options of docker-py's."""
    over_etc = any(is_under(DIRECTORY, point) for point in mount_points(options))
    return ROOT_DIRECTORY if over_etc else DIRECTORY


def mount_points(options: Mapping[str, Any]) -> list[str]:
    """Where a container's own mounts are, in the forms that docker-py takes."""
    volumes, tmpfs = options.get("volumes") or {}, options.get("tmpfs") or {}
    if isinstance(volumes, Mapping):
        points = [each["bind"] if isinstance(each, Mapping) else each for each in volumes.values()]
    else:
        points = [part[1] if len(part := text.split(":")) > 1 else text for text in volumes]
    points += [mount["Target"] for mount in options.get("mounts") or []]
    return [*points, *(point.partition(":")[0] for point in tmpfs)]


def foreign_mounts(container: DockerContainer) -> list[str]:
    """The mount points of a created container whose content is not its own: nothing is written there."""
    mounts = [
        mount["Destination"]
        for mount in container.attrs.get("Mounts") or []
        if not (mount["Type"] == "volume" and ANONYMOUS.fullmatch(mount.get("Name") or ""))
    ]
    tmpfs = container.attrs.get("HostConfig", {}).get("Tmpfs") or {}
    return [*mounts, *tmpfs]


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
    try:
        container.put_archive("/", archive)
    except docker.errors.APIError as error:
        raise EngineError(f"the engine did not take {what}: {explanation(error)}") from None
