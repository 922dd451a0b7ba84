"""The recipes of docs/ci.md: their commands run in a job that has its engine as the recipe says.

Only the port of an engine is another one, and what `pip install` would bring is mounted. Jenkins' own user is
not tried.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import pytest
import yaml

from pytest_egress.engine.leftovers import SESSION_LABEL
from tests.support.engines import OwnEngine, PrivateEngine
from tests.support.leftovers import until
from tests.support.project import ROOT

INSTALL = "pip install -r requirements.txt"
SIDECAR_IMAGE = "python:3.13-slim"
SOCKET = "/var/run/docker.sock"
BIN = f"{sys.prefix}/bin"
Shell = Callable[[str], subprocess.CompletedProcess[str]]
SUITE = """
def test_a_charge(egress):
    egress.intercept_https("api.stripe.com", lambda request: request.path)
    assert egress.run("pytest-egress-test/go", ["api.stripe.com"]).stdout == "/greeting\\n"

def test_what_nobody_declared(egress):
    egress.run("pytest-egress-test/go", ["telemetry.vendor.test"], check=False)
"""


def recipe(language: str, title: str) -> str:
    """The block of the page with this title."""
    page = (ROOT / "docs/ci.md").read_text()
    head = re.escape(f'```{language} title="{title}"')
    (block,) = re.findall(rf"^{head}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return str(block)


def console(heading: str) -> list[str]:
    """The commands of the section with this heading."""
    _, _, section = (ROOT / "docs/ci.md").read_text().partition(f"\n## {heading}\n")
    return re.findall(r"^\$ (.+)$", section.partition("\n## ")[0], re.MULTILINE)


@pytest.fixture(autouse=True)
def no_settings_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTEST_EGRESS_LINK", "PYTEST_EGRESS_SIDECAR_IMAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def engine(
    engine_client: docker.DockerClient, own_engine: OwnEngine, python_image: str, go_image: str
) -> Iterator[PrivateEngine]:
    """An engine that does not see the job's files, with the images that a job would pull."""
    with own_engine(Path("/var/tmp"), tls=True, hidden=[tempfile.gettempdir()]) as engine:
        for image, name in ((python_image, SIDECAR_IMAGE), (go_image, "shop:latest")):
            engine.load(engine_client, image)
            engine.client().images.get(image).tag(*name.split(":"))
        yield engine


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Path:
    """A folder with the tests of the job."""
    pytester.makepyfile(test_suite=SUITE)
    return pytester.path


def check_report(suite: Path) -> None:
    """The report tells of one test that passed, and of one that names what nobody declared."""
    report = ElementTree.parse(suite / "report.xml").getroot()[0]
    assert (report.get("tests"), report.get("failures"), report.get("errors")) == ("2", "1", "0")
    assert "https://telemetry.vendor.test/greeting" in ElementTree.tostring(report, "unicode")


def check_job(
    client: docker.DockerClient,
    suite: Path,
    commands: Sequence[str],
    volumes: Mapping[str, str],
    **options: Any,
) -> None:
    """Run a job's commands in a container, as a CI system does, and look at its log and its report.

    Args:
        volumes: A path in the container, and what of this machine's is there.
        options: More of docker-py's.
    """
    folders = {sys.prefix, os.path.realpath(sys.base_prefix), str(ROOT)} - {"/usr"}
    environment = {**options.pop("environment", {}), "PATH": f"{BIN}:/usr/bin:/bin"}
    container = client.containers.create(
        "pytest-egress-test/clients",
        ["sh", "-e", "-c", "\n".join(commands)],
        working_dir="/srv/suite",
        environment=environment,
        volumes=[
            *(f"{folder}:{folder}:ro" for folder in folders),
            *(f"{source}:{path}" for path, source in volumes.items()),
            f"{suite}:/srv/suite",
        ],
        **options,
    )
    try:
        container.start()
        code = container.wait(timeout=240)["StatusCode"]
        log = container.logs().decode()
    finally:
        container.remove(force=True, v=True)
    assert code == 1, log
    assert f"stream link, sidecar with {SIDECAR_IMAGE}" in log
    check_report(suite)


def without_install(commands: Sequence[str]) -> list[str]:
    """A recipe's commands without the first, which installs what here is mounted."""
    install, *others = commands
    assert install == INSTALL
    return others


def at(engine: PrivateEngine, address: str) -> dict[str, Any]:
    """The options of a job that dials an engine by the name of a recipe: only the port is this engine's own."""
    named, own = urlsplit(address), urlsplit(engine.tls_address)
    assert (named.scheme, named.port) == ("tcp", 2376)
    assert named.hostname is not None
    return {
        "network_mode": "host",
        "extra_hosts": {named.hostname: own.hostname},
        "environment": {"DOCKER_HOST": f"tcp://{named.hostname}:{own.port}"},
    }


def none_left(engine: PrivateEngine) -> bool:
    return until(lambda: not engine.client().containers.list(all=True, ignore_removed=True))


@pytest.mark.plugins("xdist")
def test_actions(engine_client: docker.DockerClient, go_image: str, suite: Path) -> None:
    steps = yaml.safe_load(recipe("yaml", ".github/workflows/tests.yml"))["jobs"]["tests"]["steps"]
    commands = without_install([step["run"] for step in steps if "run" in step])

    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(commands)],
        cwd=suite,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    check_report(suite)
    assert steps[-1]["with"]["path"] == "report.xml"


def test_gitlab_with_a_service(
    engine_client: docker.DockerClient, engine: PrivateEngine, clients_image: str, suite: Path
) -> None:
    job = yaml.safe_load(recipe("yaml", ".gitlab-ci.yml"))["tests"]
    variables = job["variables"]
    options = at(engine, variables["DOCKER_HOST"])
    options["environment"] = {**variables, **options["environment"]}

    check_job(
        engine_client,
        suite,
        without_install(job["script"]),
        {variables["DOCKER_CERT_PATH"]: str(engine.cert_path)},
        **options,
    )

    assert none_left(engine)


def test_gitlab_with_the_socket(
    engine_client: docker.DockerClient, engine: PrivateEngine, clients_image: str, suite: Path
) -> None:
    script = yaml.safe_load(recipe("yaml", ".gitlab-ci.yml"))["tests"]["script"]
    (mounted, _) = re.findall(r'"(/[^"]+)"', recipe("toml", "config.toml"))
    source, path = mounted.split(":")
    assert source == SOCKET

    check_job(
        engine_client,
        suite,
        without_install(script),
        {path: f"{engine.folder}/docker.sock"},
        network_mode="none",
    )

    assert none_left(engine)


def test_jenkins(
    engine_client: docker.DockerClient, engine: PrivateEngine, clients_image: str, suite: Path
) -> None:
    pipeline = recipe("groovy", "Jenkinsfile")
    commands = re.findall(r"^ *sh '(.+)'$", pipeline, re.MULTILINE)
    (args,) = re.findall(r"^ *args '(.+)'$", pipeline, re.MULTILINE)
    words = shlex.split(args)
    given = dict(zip(words[::2], words[1::2], strict=True))
    source, path = given["--volume"].split(":")
    assert source == SOCKET

    check_job(
        engine_client,
        suite,
        without_install(commands),
        {path: f"{engine.folder}/docker.sock"},
        network_mode="none",
        group_add=[given["--group-add"]],
        environment=dict([given["--env"].split("=")]),
    )

    assert none_left(engine)


def pod() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(recipe("yaml", "tests.yaml"))["spec"]["template"]["spec"]
    return found


def test_kubernetes_with_an_engine_in_the_pod(
    engine_client: docker.DockerClient, engine: PrivateEngine, clients_image: str, suite: Path
) -> None:
    (sidecar,), (tests,) = pod()["initContainers"], pod()["containers"]
    environment = {each["name"]: each["value"] for each in tests["env"]}
    address = environment["DOCKER_HOST"]
    shared = {each["name"]: each["mountPath"] for each in tests["volumeMounts"]}
    # The engine listens where the tests look for it, in a folder that both have.
    assert f"--host={address}" in sidecar["args"]
    assert f"--host={address}" in sidecar["startupProbe"]["exec"]["command"]
    assert {"name": "socket", "mountPath": shared["socket"]} in sidecar["volumeMounts"]
    assert Path(urlsplit(address).path).parent == Path(shared["socket"])

    check_job(
        engine_client,
        suite,
        [shlex.join(tests["command"])],
        {urlsplit(address).path: f"{engine.folder}/docker.sock", shared["reports"]: str(suite)},
        network_mode="none",
        environment=environment,
    )

    assert none_left(engine)


def test_kubernetes_with_an_engine_elsewhere(
    engine_client: docker.DockerClient, engine: PrivateEngine, clients_image: str, suite: Path
) -> None:
    entries = yaml.safe_load(recipe("yaml", "tests.yaml, an engine elsewhere"))["env"]
    environment = {each["name"]: each["value"] for each in entries}
    options = at(engine, environment["DOCKER_HOST"])
    options["environment"] = {**environment, **options["environment"]}

    check_job(
        engine_client,
        suite,
        [shlex.join(pod()["containers"][0]["command"])],
        {environment["DOCKER_CERT_PATH"]: str(engine.cert_path), "/reports": str(suite)},
        **options,
    )

    assert none_left(engine)


@pytest.fixture
def here(engine: PrivateEngine, suite: Path) -> Shell:
    """Runs a command on this machine, with the engine as the one of its environment."""

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-e", "-c", command],
            cwd=suite,
            env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "DOCKER_HOST": engine.address},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def test_images_are_kept_in_a_file(engine: PrivateEngine, here: Shell) -> None:
    save, load = console("Caches")

    saved = here(save)
    assert saved.returncode == 0, saved.stderr
    engine.client().images.remove("shop:latest")
    loaded = here(load)

    assert loaded.returncode == 0, loaded.stderr
    engine.client().images.get("shop:latest")


def test_what_is_left_to_look_at(engine: PrivateEngine, suite: Path, here: Shell) -> None:
    tests, listing, clean = console("After a failed job")
    try:
        assert here(tests).returncode == 1
        check_report(suite)
        assert (suite / "egress.log").is_file()
        (kept,) = engine.client().containers.list(all=True, filters={"label": SESSION_LABEL})
        assert str(kept.name) in here(listing).stdout
    finally:
        cleaned = here(clean)
    assert cleaned.returncode == 0, cleaned.stderr
    assert none_left(engine)
