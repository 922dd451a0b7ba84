"""Puts the CA of the run into a created target, before its first instruction, and takes nothing away.

The image's own bundle is extended where it really is; our directory gets the CA alone, the merged bundle, and the same
as a Java keystore; variables point there. The tables here are the whole knowledge: more runtimes are more rows.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from pytest_egress.archive import File, build_tar
from pytest_egress.certificates import (
    append,
    check_seal,
    extend_java_keystore,
    from_pem,
    hashed_name,
    java_keystore,
)
from pytest_egress.errors import EngineError
from pytest_egress.failures import engine_errors
from pytest_egress.packages import FIREFOX_POLICIES, Packaged
from pytest_egress.roots import Files, Kind, Roots, find, is_under, is_within, normal

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
    Variable(name="HTTPLIB2_CA_CERTS", form="bundle", runtimes=("httplib2",)),
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

IMAGE_BUNDLE: Final = "the image's bundle"
POLICY_NAME: Final = "pytest-egress.json"  # of a Chromium; it reads every file of a folder
LOOK_FOR_ROOTS: Final = (
    "What may be one is listed by "
    "`docker run --rm --entrypoint find IMAGE / -name '*.pem' -o -name '*.crt'`."
)


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
ANONYMOUS: Final = re.compile(r"[0-9a-f]{64}")  # the name of a volume that goes with its container


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


def find_roots(
    engine: Engine,
    container: DockerContainer,
    image_env: Mapping[str, str],
    user_env: Mapping[str, str],
) -> Roots:
    """What a created container trusts, also where variables of the image or the test say so."""
    named = [
        path
        for values in (image_env, user_env)
        for variable in VARIABLES
        if variable.form == "bundle" and (path := values.get(variable.name, "")).startswith("/")
    ]
    return find(
        engine,
        container,
        named=named,
        java_home={**image_env, **user_env}.get("JAVA_HOME", ""),
        foreign=foreign_mounts(container),
    )


def trust_tar(
    ca_pem: bytes,
    subject: bytes,
    roots: Roots,
    besides: Mapping[str, File],
    *,
    directory: str = DIRECTORY,
    foreign: Sequence[str] = (),
) -> bytes:
    """The archive to extract at `/`: our directory, every bundle with the CA at its end, and what is put besides.

    Args:
        ca_pem: The CA's certificate.
        subject: Its subject in DER.
        besides: Files that lead to it already, by their real paths.
        foreign: Mount points below which nothing is written, besides those that the roots were found among.
    """
    files = {
        **besides,
        **{
            path: replace(file, content=append(file.content, ca_pem))
            for path, file in roots.bundles.items()
        },
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
    return build_tar({path: f for path, f in files.items() if not is_within(path, mounts)})


def own_files(ca_pem: bytes, roots: Roots) -> dict[str, bytes]:
    """What our directory holds, by name: the CA alone, the image's roots with it, and these as a Java keystore."""
    bundle = append(roots.merged, ca_pem)
    keystore = java_keystore(list(dict.fromkeys([*roots.of_java, *from_pem(ca_pem)])))
    content: dict[Form, bytes] = {"ca": ca_pem, "bundle": bundle, "truststore": keystore}
    return {FILE_NAMES[form]: data for form, data in content.items()}


# What an image has besides its own roots.


def extended(packaged: Packaged, ca_pem: bytes, directory: str) -> dict[str, File]:
    """The roots of SDKs with the CA at their end, and policies that lead browsers to it."""
    files = {
        path: replace(file, content=append(file.content, ca_pem))
        for path, file in packaged.bundles.items()
    }
    (der,) = from_pem(ca_pem)
    policy = {"CACertificates": [base64.b64encode(der).decode()]}
    for folder in packaged.chromium:
        files[f"{folder}/{POLICY_NAME}"] = File(content=json.dumps(policy).encode())
    if packaged.firefox is not None:
        merged = with_certificate(packaged.firefox, f"{directory}/{FILE_NAMES['ca']}")
        files[FIREFOX_POLICIES] = File(content=json.dumps(merged).encode())
    return files


def with_certificate(policies: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The policies of a Firefox, and one more certificate to install."""
    inner = mapping(policies.get("policies"))
    certificates = mapping(inner.get("Certificates"))
    installed = certificates.get("Install")
    certificates["Install"] = [*(installed if isinstance(installed, list) else ()), path]
    return {**policies, "policies": {**inner, "Certificates": certificates}}


def mapping(value: object) -> dict[str, Any]:
    """A copy of a mapping; empty where a file has something else in its place."""
    return dict(value) if isinstance(value, Mapping) else {}


def named_files(
    engine: Engine,
    container: DockerContainer,
    paths: Iterable[str],
    ca_pem: bytes,
    foreign: Sequence[str],
    *,
    wherever: Iterable[str] = (),
) -> dict[str, File]:
    """The files that a test names (`trust=`), with the CA in, at their real paths.

    Args:
        foreign: The mount points whose content is not the container's own.
        wherever: Paths that hold for every image (`egress_trust`): one that is missing in this one is passed over.

    Raises:
        EngineError: There is no such file, or it has no roots that can be extended.
    """
    files, found = Files(engine, container, folders=()), {}
    required = dict.fromkeys(paths)
    mounts = [files.resolve(point)[0] for point in foreign]
    for path in dict.fromkeys([*required, *wherever]):
        real, kind = files.resolve(normal(path))
        if kind is Kind.MISSING and path not in required:
            continue
        refusal = f"trust={path!r}: "
        if kind is Kind.MISSING:
            raise EngineError(f"{refusal}there is no such file in the container. {LOOK_FOR_ROOTS}")
        if kind is not Kind.REGULAR:
            raise EngineError(f"{refusal}this is no file. {LOOK_FOR_ROOTS}")
        if is_within(real, mounts):
            raise EngineError(
                f"{refusal}{real} is in a mount, which is never written to: add the CA to it where it is kept "
                "(egress_ca.cert_pem has it), or leave the mount out"
            )
        file = files.read(real)
        try:
            found[real] = replace(file, content=with_root(file.content, ca_pem))
        except ValueError as error:
            raise EngineError(
                f"{refusal}this is no PEM bundle, and no Java keystore that can be extended ({error}). {LOOK_FOR_ROOTS}"
            ) from None
    return found


def with_root(content: bytes, ca_pem: bytes) -> bytes:
    """A PEM bundle or a Java keystore that trusts one certificate more.

    Raises:
        ValueError: It is neither.
    """
    if from_pem(content):
        return append(content, ca_pem)
    check_seal(content)
    (ca,) = from_pem(ca_pem)
    return extend_java_keystore(content, ca)


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


def put(container: DockerContainer, archive: bytes, what: str) -> None:
    """Extract an archive at `/` of a created container (`PUT /containers/{id}/archive`).

    Raises:
        EngineError: The engine refuses.
    """
    with engine_errors(f"take {what}"):
        container.put_archive("/", archive)
