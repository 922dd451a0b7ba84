"""Finds the engine as the Docker CLI does (DOCKER_HOST, Docker context, ssh), and makes its client.

docker-py makes that choice only in part: contexts since 7.2, ssh with an SSH library.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import docker
import requests.exceptions
from docker.errors import DockerException
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from pytest_egress.engine.ssh import Bridge
from pytest_egress.errors import EngineError
from pytest_egress.link.attach import connect

DEFAULT: Final = "unix:///var/run/docker.sock"
PODMAN: Final = "Podman"
SERVER: Final = re.compile(r"Docker/(\S+) \(")  # "Docker/26.1.5 (linux)"
BY_DEFAULT: Final = "default"  # the name that stands for no context


class Api(docker.APIClient):
    """docker-py's client, which learns the API's version by `GET /_ping`: for `GET /version` Podman takes a second."""

    def _retrieve_server_version(self) -> str:  # overrides docker-py's, which uses GET /version
        try:
            told = said_by(self).get("Api-Version")
            return str(told or self.version(api_version=False)["ApiVersion"])
        except requests.exceptions.RequestException as error:
            raise DockerException(f"no version of its API is to be had: {error}") from error
        except (KeyError, TypeError):
            raise DockerException("what answers there does not say which API it has") from None


class DirectApi(Api):
    """The client of an engine that no variable of `requests` is about: one with a CA of its own, or at a Unix socket.

    That CA would be ignored if REQUESTS_CA_BUNDLE is set. And looking for proxies takes a third of each call's time.
    """

    trust_env = property(lambda _: False, lambda _, value: None)


class Client(docker.DockerClient):
    """docker-py's high-level client, over an `Api` that has been made already."""

    def __init__(self, api: docker.APIClient) -> None:
        self.api = api


class SshClient(Client):
    """A client of an engine by ssh, which `close` ends; DockerException, with the text of ssh, if nothing answers."""

    def __init__(self, address: str) -> None:
        self.address: Final = address
        self._bridge: Final = Bridge(address)
        failure = self._connect()
        if failure is not None:
            said = self._bridge.words()
            self._bridge.close()
            raise DockerException(said or str(failure))

    def _connect(self) -> DockerException | None:
        try:
            super().__init__(DirectApi(f"unix://{self._bridge.path}"))
        except DockerException as error:
            return error
        return None

    def close(self) -> None:
        super().close()
        self._bridge.close()


def make_client(address: str | None = None) -> docker.DockerClient:
    """Make a client for an address as in DOCKER_HOST, or for the environment's.

    Raises:
        EngineError: The chosen context is unknown, or the address is malformed.
        DockerException: Nothing answers.
    """
    parameters = engine_parameters(os.environ, address)
    return client_of(**parameters)


def client_of(base_url: str = DEFAULT, tls: TLSConfig | None = None) -> docker.DockerClient:
    if base_url.startswith("ssh://"):
        return SshClient(base_url)
    is_direct = tls is not None or base_url.startswith("unix://")
    return Client((DirectApi if is_direct else Api)(base_url, tls=tls or False))


def engine_parameters(environ: Mapping[str, str], address: str | None = None) -> dict[str, Any]:
    """The arguments of docker-py's client. DOCKER_HOST overrides the context; EngineError where that does not exist."""
    if address is not None:
        return dict(kwargs_from_env({**environ, "DOCKER_HOST": address}))
    name = environ.get("DOCKER_CONTEXT") or current_context(environ)
    if environ.get("DOCKER_HOST") or name == BY_DEFAULT:
        return dict(kwargs_from_env(dict(environ)))
    return context_parameters(docker_folder(environ), name)


def docker_folder(environ: Mapping[str, str]) -> Path:
    chosen = environ.get("DOCKER_CONFIG")
    return Path(chosen) if chosen else Path.home() / ".docker"


def current_context(environ: Mapping[str, str]) -> str:
    """The name of the context that `docker context use` has chosen."""
    return str(settings_of(environ).get("currentContext") or BY_DEFAULT)


def settings_of(environ: Mapping[str, str]) -> dict[str, Any]:
    """What `config.json` of the Docker CLI has; nothing where it cannot be read, as for the CLI, which warns."""
    try:
        settings = json.loads((docker_folder(environ) / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def missing_helpers(environ: Mapping[str, str]) -> list[str]:
    """The programs that keep the credentials of registries (`docker login`) and are not in the PATH."""
    settings = settings_of(environ)
    helpers = settings.get("credHelpers")
    named = {settings.get("credsStore"), *(helpers.values() if isinstance(helpers, dict) else ())}
    programs = sorted(
        f"docker-credential-{each}" for each in named if each and isinstance(each, str)
    )
    return [each for each in programs if shutil.which(each, path=environ.get("PATH")) is None]


def context_parameters(folder: Path, name: str) -> dict[str, Any]:
    """The arguments that a context gives (`docker context export`); EngineError where it, or its engine, is missing."""
    identifier = hashlib.sha256(name.encode()).hexdigest()
    file = folder / "contexts" / "meta" / identifier / "meta.json"
    try:
        endpoint = json.loads(file.read_bytes())["Endpoints"]["docker"]
        parameters: dict[str, Any] = {"base_url": str(endpoint["Host"])}
    except FileNotFoundError:
        raise EngineError(
            f"there is no Docker context {name!r}: `docker context ls` lists those there are, and "
            "DOCKER_CONTEXT or `docker context use` chooses one"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"the Docker context {name!r} cannot be read: {error!r}") from None
    material = folder / "contexts" / "tls" / identifier / "docker"
    verify = not endpoint.get("SkipTLSVerify", False)
    if material.is_dir():
        parameters["tls"] = tls_of(material, verify)
    return parameters


def tls_of(material: Path, verify: bool) -> TLSConfig:
    ca, *pair = (material / name for name in ("ca.pem", "cert.pem", "key.pem"))
    return TLSConfig(
        client_cert=(str(pair[0]), str(pair[1])) if pair[0].exists() else None,
        ca_cert=str(ca) if ca.exists() else None,
        verify=verify,
    )


def identify(client: docker.DockerClient) -> tuple[str, str, str]:
    """The engine ("Docker" or `PODMAN`), its version, its system; DockerException, RequestException if none answers."""
    said = said_by(client.api)
    if "Libpod-Api-Version" in said:
        return PODMAN, said["Libpod-Api-Version"], "linux"
    if (server := SERVER.match(said.get("Server", ""))) and "OSType" in said:
        return "Docker", server[1], said["OSType"]
    about = client.version()  # a proxy has removed the header
    parts = [part["Name"] for part in about.get("Components") or ()]
    kind = PODMAN if any(PODMAN in part for part in parts) else "Docker"
    return kind, str(about.get("Version")), str(about.get("Os"))


def said_by(api: docker.APIClient) -> Mapping[str, str]:
    """The headers of the response to `GET /_ping` describe the engine; RequestException where nothing answers."""
    answer = api.get(f"{api.base_url}/_ping", timeout=api.timeout)
    answer.raise_for_status()
    headers: Mapping[str, str] = answer.headers
    return headers


def engine_address(client: docker.DockerClient | None = None) -> str:
    """The address that a client connects to; without a client, the address that the environment names."""
    if client is None:
        try:
            return str(engine_parameters(os.environ).get("base_url") or DEFAULT)
        except EngineError:
            return DEFAULT
    if isinstance(client, SshClient):
        return client.address
    return socket_of(client.api)


def socket_of(api: docker.APIClient) -> str:
    """The address of the socket that a client itself connects to; that of the bridge, for an engine by ssh."""
    path = getattr(getattr(api, "_custom_adapter", None), "socket_path", None)
    return f"unix://{path}" if path else str(api.base_url)  # docker-py hides the path


def connection_of(api: docker.APIClient) -> socket.socket:
    return connect(socket_of(api), api.cert, api.verify)  # type: ignore[arg-type]  # of requests.Session


def describe(client: docker.DockerClient) -> str:
    """Describe a client as text, from which `another_client` makes an equal one in another process."""
    return json.dumps([engine_address(client), client.api.cert, client.api.verify])


def another_client(description: str) -> docker.DockerClient:
    address, certificate, verify = json.loads(description)
    if address.startswith("http+docker://"):  # the user's own client, by an SSH library
        return make_client()
    ca = verify if isinstance(verify, str) else None
    secure = TLSConfig(
        client_cert=tuple(certificate) if certificate else None, ca_cert=ca, verify=bool(verify)
    )
    return client_of(address, secure if address.startswith("https://") else None)
