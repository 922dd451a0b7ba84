"""The environment variables by which runtimes are told to trust the CA.

All knowledge is in the tables here: one row for each variable, and one for each runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

FileForm = Literal["ca", "bundle", "truststore"]

DIRECTORY: Final = "/etc/pytest-egress"
ROOT_DIRECTORY: Final = "/pytest-egress"  # where something is mounted over /etc
FILE_NAMES: Final[Mapping[FileForm, str]] = {
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
    """A variable that names roots. One that replaces a runtime's roots gets the bundle; one that adds to them, the CA.

    Attributes:
        flag: The option before the path, for a variable that holds options, to which ours is added.
    """

    name: str
    form: FileForm
    runtimes: tuple[str, ...]
    flag: str = ""

    def value(self, directory: str) -> str:
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
"""Names of variables that say where roots are."""


def variables(entries: Iterable[str]) -> dict[str, str]:
    """An image has its variables as `NAME=value`."""
    return dict(entry.partition("=")[::2] for entry in entries)


def environment(
    image_env: Mapping[str, str], user_env: Mapping[str, str], directory: str = DIRECTORY
) -> dict[str, str]:
    """The variables to create a target with: ours where neither the image nor the user has set them.

    In a variable that holds options, ours is added to theirs.
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
    """A sentence for each variable that makes a runtime ignore the CA, which the bundles at `extended` hold."""
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
    """Whether a variable's value leads to one of these files, or will when ours is added."""
    if variable.flag:  # ours is added unless the options have one already
        return variable.flag not in value or any(f"{variable.flag}{p}" in value for p in safe)
    return value in safe
