"""Puts the CA of the run into a created target, before its first instruction, and takes nothing away.

The image's own bundle is extended where it really is, our directory gets the CA alone and the merged bundle, and
variables point there. `VARIABLES` and `BUNDLES` are the whole knowledge; more runtimes are more rows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import docker.errors

from pytest_egress.archive import File, build_tar, read_tar
from pytest_egress.engine import explanation
from pytest_egress.errors import EngineError

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer

    from pytest_egress.engine import Engine

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

DIRECTORY: Final = "/etc/pytest-egress"
FILES: Final = {"ca": f"{DIRECTORY}/ca.pem", "bundle": f"{DIRECTORY}/bundle.pem"}


@dataclass(frozen=True, kw_only=True)
class Variable:
    """How a runtime is told: a variable that adds to its roots gets the CA, one that replaces them the bundle."""

    name: str
    file: Literal["ca", "bundle"]
    runtime: str


VARIABLES: Final = (
    Variable(name="SSL_CERT_FILE", file="bundle", runtime="OpenSSL, Python ssl, httpx, aiohttp"),
    Variable(name="CURL_CA_BUNDLE", file="bundle", runtime="curl"),
    Variable(name="REQUESTS_CA_BUNDLE", file="bundle", runtime="Python requests"),
    Variable(name="NODE_EXTRA_CA_CERTS", file="ca", runtime="Node.js"),
    Variable(name="GIT_SSL_CAINFO", file="bundle", runtime="git"),
)
BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, distroless
    "/etc/ssl/cert.pem",  # Alpine, as a link
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/pki/tls/cacert.pem",  # OpenELEC
)
DEFAULT_BUNDLE: Final = BUNDLES[0]


def environment(image_env: Sequence[str], user_env: Mapping[str, str]) -> dict[str, str]:
    """The variables to create a target with: ours where neither the image nor the user has set them.

    Args:
        image_env: `NAME=value`, as the image has it.
        user_env: What the test passes.
    """
    taken = {entry.partition("=")[0] for entry in image_env}
    ours = {
        variable.name: FILES[variable.file] for variable in VARIABLES if variable.name not in taken
    }
    return ours | dict(user_env)


def candidates(image_env: Sequence[str]) -> list[str]:
    """Where a bundle may be: the known paths, and what the image's own variables name."""
    values = dict(entry.partition("=")[::2] for entry in image_env)
    named = [
        values[v.name]
        for v in VARIABLES
        if v.file == "bundle" and values.get(v.name, "").startswith("/")
    ]
    return list(dict.fromkeys([*BUNDLES, *named]))


def find_bundles(
    engine: Engine, container: DockerContainer, paths: Sequence[str]
) -> dict[str, File]:
    """The bundles that a created container has, each once, at its real path."""
    found: dict[str, File] = {}
    for path in paths:
        if (stat := engine.stat(container, path)) is None:
            continue
        real = posixpath.normpath(
            stat.get("linkTarget") or path
        )  # the engine has followed every link
        if real not in found and engine.stat(container, real) is not None:
            stream, _ = container.get_archive(real)
            found.update((real, file) for file in read_tar(b"".join(stream)).values())
    return found


def trust_tar(ca_pem: bytes, bundles: Mapping[str, File]) -> bytes:
    """The archive to extract at `/`: our directory, and every bundle with the CA at its end."""
    roots = next(iter(bundles.values())).content if bundles else b""
    files = {
        FILES["ca"]: File(content=ca_pem),
        FILES["bundle"]: File(content=append(roots, ca_pem)),
    }
    for path, file in bundles.items():
        files[path] = File(
            content=append(file.content, ca_pem), mode=file.mode, uid=file.uid, gid=file.gid
        )
    if not bundles:
        files[DEFAULT_BUNDLE] = File(content=ca_pem)
    return build_tar(files)


def append(bundle: bytes, ca_pem: bytes) -> bytes:
    """The bundle with the CA at its end, on a line of its own."""
    return bundle + (b"\n" if bundle and not bundle.endswith(b"\n") else b"") + ca_pem


def put(container: DockerContainer, archive: bytes, what: str) -> None:
    """Extract an archive at `/` of a created container (`PUT /containers/{id}/archive`).

    Raises:
        EngineError: The engine refuses, as it does for a read-only root.
    """
    try:
        container.put_archive("/", archive)
    except docker.errors.APIError as error:
        hint = ""
        if "read-only" in explanation(error):
            hint = "\nread_only=True keeps files out before the first instruction; run it without, for now."
        raise EngineError(f"the engine did not take {what}: {explanation(error)}{hint}") from None
