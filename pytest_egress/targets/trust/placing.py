"""Puts the CA of the run into a created target, before its first instruction, and removes no root.

The image's own bundles and keystores are extended at their real paths. Our own directory in the target gets three more
files, to which variables of the environment lead: the CA alone, all roots with the CA as a bundle, and the same as a
Java keystore.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pytest_egress.base.paths import is_within, normal
from pytest_egress.engine.archive import File, LargeFileError
from pytest_egress.engine.copier import again
from pytest_egress.engine.failures import engine_errors
from pytest_egress.errors import EngineError
from pytest_egress.targets.trust.certificates import (
    append,
    check_seal,
    extend_java_keystore,
    from_pem,
    hashed_name,
    java_keystore,
)
from pytest_egress.targets.trust.packages import FIREFOX_POLICIES, Packaged
from pytest_egress.targets.trust.roots import FileKind, Files, Roots
from pytest_egress.targets.trust.runtimes import FILE_NAMES, FileForm
from pytest_egress.traffic.shown import shown

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer

POLICY_NAME: Final = "pytest-egress.json"  # a Chromium reads every file of its policies' folder
LOOK_FOR_ROOTS: Final = (
    "What may be one is listed by "
    "`docker run --rm --entrypoint find IMAGE / -name '*.pem' -o -name '*.crt'`."
)


def trusting(ca_pem: bytes, subject: bytes, roots: Roots, directory: str) -> dict[str, File]:
    """The files of our directory, and the image's bundles and keystores with the CA; `subject` is the CA's, in DER."""
    files = {
        path: replace(file, content=append(file.content, ca_pem))
        for path, file in roots.bundles.items()
    }
    (ca,) = from_pem(ca_pem)
    for path, file in roots.keystores.items():
        files[path] = replace(file, content=extend_java_keystore(file.content, ca))
    # An image without any bundle gets one where most programs look, which would otherwise trust nothing.
    if not roots.bundles and roots.default_bundle is not None:
        files[roots.default_bundle] = File(content=ca_pem)
    # OpenSSL also looks for a CA by the hash of its subject in this directory.
    if roots.hashed_directory is not None:
        files[f"{roots.hashed_directory}/{hashed_name(subject)}.0"] = File(content=ca_pem)
    for name, content in own_files(ca_pem, roots).items():
        files[f"{directory}/{name}"] = File(content=content)
    return files


def check_directory(files: Files, directory: str) -> None:
    """Refuse, by EngineError, an image that leads our directory, to which variables lead, into a mount."""
    real, _ = files.resolve(directory)
    if is_within(real, files.mounts) and not is_within(directory, files.foreign):
        raise EngineError(
            f"{directory} of the image is a link to {real}, which is in a mount, and nothing is ever written to "
            "that: leave the mount out, or the link"
        )


def placed(files: Files, wanted: Mapping[str, File]) -> tuple[dict[str, File], list[str]]:
    """The files to write, at their paths without links, and the paths that are left as they are, being in a mount."""
    places = {path: files.place(path) for path in wanted}
    kept = {place: wanted[path] for path, place in places.items() if place is not None}
    return kept, [path for path, place in places.items() if place is None]


def check_places(files: Files, paths: Iterable[str]) -> None:
    """Raise EngineError for paths (`files=`) in a mount, where nothing is written."""
    for path in paths:
        if files.place(normal(path)) is None:
            raise EngineError(
                f"files={{{shown(path)}: ...}} is in a mount, which is never written to: put the file where the "
                "mount's content is kept, or leave the mount out"
            )


def own_files(ca_pem: bytes, roots: Roots) -> dict[str, bytes]:
    """The files of our directory, by name: the CA alone, all roots with the CA, and these as a Java keystore."""
    bundle = append(roots.merged, ca_pem)
    keystore = java_keystore(list(dict.fromkeys([*roots.of_java, *from_pem(ca_pem)])))
    content: dict[FileForm, bytes] = {"ca": ca_pem, "bundle": bundle, "truststore": keystore}
    return {FILE_NAMES[form]: data for form, data in content.items()}


# Roots of SDKs and browsers, and files that the test names.


def extended(packaged: Packaged, ca_pem: bytes, directory: str) -> dict[str, File]:
    """The roots of SDKs with the CA at their end, and the policies by which browsers trust the CA."""
    files = {
        path: replace(file, content=append(file.content, ca_pem))
        for path, file in packaged.bundles.items()
    }
    (der,) = from_pem(ca_pem)
    policy = {"CACertificates": [base64.b64encode(der).decode()]}
    for folder in packaged.chromium:
        files[f"{folder}/{POLICY_NAME}"] = File(content=json.dumps(policy).encode())
    if packaged.firefox is not None:
        path = f"{directory}/{FILE_NAMES['ca']}"
        files[FIREFOX_POLICIES] = File(content=policies_text(packaged.firefox, path).encode())
    return files


def policies_text(policies: Mapping[str, Any], path: str) -> str:
    """Policies that JSON cannot nest are left out."""
    try:
        return json.dumps(with_certificate(policies, path))
    except RecursionError:
        return json.dumps(with_certificate({}, path))


def with_certificate(policies: Mapping[str, Any], path: str) -> dict[str, Any]:
    inner = mapping(policies.get("policies"))
    certificates = mapping(inner.get("Certificates"))
    installed = certificates.get("Install")
    certificates["Install"] = [*(installed if isinstance(installed, list) else ()), path]
    return {**policies, "policies": {**inner, "Certificates": certificates}}


def mapping(value: object) -> dict[str, Any]:
    """A file may have any other value in a mapping's place."""
    return dict(value) if isinstance(value, Mapping) else {}


def named_files(
    files: Files, paths: Iterable[str], ca_pem: bytes, *, wherever: Iterable[str] = ()
) -> dict[str, File]:
    """The files that a test names (`trust=`), with the CA added, at their real paths.

    Args:
        wherever: Paths for every image (`egress_trust`). One that this image does not have is ignored.

    Raises:
        EngineError: There is no such file, or it has no roots that can be extended.
    """
    found, required = {}, dict.fromkeys(paths)
    for path in dict.fromkeys([*required, *wherever]):
        real, kind = files.resolve(normal(path))
        if kind is FileKind.MISSING and path not in required:
            continue
        refusal = f"trust={shown(path)}: "
        if kind is FileKind.MISSING:
            raise EngineError(f"{refusal}there is no such file in the container. {LOOK_FOR_ROOTS}")
        if kind is not FileKind.REGULAR:
            raise EngineError(f"{refusal}this is no file. {LOOK_FOR_ROOTS}")
        if is_within(real, files.mounts):
            raise EngineError(
                f"{refusal}{real} is in a mount, which is never written to: add the CA to it where it is kept "
                "(egress_ca.cert_pem has it), or leave the mount out"
            )
        try:
            file = files.read(real)
        except LargeFileError as error:
            raise EngineError(f"{refusal}{error}, which no roots have. {LOOK_FOR_ROOTS}") from None
        try:
            found[real] = replace(file, content=with_root(file.content, ca_pem))
        except ValueError as error:
            raise EngineError(
                f"{refusal}this is no PEM bundle, and no Java keystore that can be extended ({error}). {LOOK_FOR_ROOTS}"
            ) from None
    return found


def with_root(content: bytes, ca_pem: bytes) -> bytes:
    """The content is a PEM bundle or a Java keystore; ValueError where it is neither."""
    if from_pem(content):
        return append(content, ca_pem)
    check_seal(content)
    (ca,) = from_pem(ca_pem)
    return extend_java_keystore(content, ca)


def put(container: DockerContainer, archive: bytes, what: str) -> None:
    """The endpoint is `PUT /containers/{id}/archive`; EngineError where the engine refuses."""
    with engine_errors(f"take {what}"):
        again(lambda: container.put_archive("/", archive))
