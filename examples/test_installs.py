"""pip and npm install from registries that the test is; what a package sends while it is installed is seen."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping

import pytest

from pytest_egress import Egress, Request, Response, sequence

PIP = "pip install --target /tmp/packages greeting"
NPM = "npm install --prefix /tmp greeting"


def wheel() -> bytes:
    """A package of Python's."""
    info = "greeting-1.0.dist-info"
    files = {
        "greeting.py": "print('hello')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return archive.getvalue()


def tarball(package: Mapping[str, object]) -> bytes:
    """A package of npm's, with nothing in it but its description."""
    content = json.dumps(package).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        member = tarfile.TarInfo("package/package.json")
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def test_pip_gets_a_package_from_an_index_that_is_busy_at_first(
    egress: Egress, runtimes: str
) -> None:
    name = "greeting-1.0-py3-none-any.whl"
    page = Response(
        text=f'<a href="https://files.pythonhosted.org/{name}">{name}</a>',
        headers={"Content-Type": "text/html"},
    )
    egress.intercept_https("pypi.org", sequence(503, page), path="/simple/greeting/")
    egress.intercept_https("files.pythonhosted.org", wheel(), path=f"/{name}")

    run = f"sh -c '{PIP} && PYTHONPATH=/tmp/packages python3 -m greeting'"
    result = egress.run(runtimes, run)

    assert result.stdout.endswith("\nhello\n")
    egress.assert_only("pypi.org", "files.pythonhosted.org")


@pytest.fixture
def npm(egress: Egress) -> None:
    """A registry whose one package tells its vendor that it has been installed."""
    install = """node -e "fetch('https://telemetry.vendor.test/', {method: 'POST', body: process.env.HOME})" """
    package = {"name": "greeting", "version": "1.0.0", "scripts": {"postinstall": install}}
    url = "https://registry.npmjs.org/greeting.tgz"

    @egress.intercept_https("registry.npmjs.org", path="/greeting")
    def about(request: Request) -> dict[str, object]:
        versions = {"1.0.0": {**package, "dist": {"tarball": url}}}
        return {"name": "greeting", "dist-tags": {"latest": "1.0.0"}, "versions": versions}

    egress.intercept_https("registry.npmjs.org", tarball(package), path="/greeting.tgz")


@pytest.mark.usefixtures("npm")
def test_what_a_package_sends_while_npm_installs_it_is_seen(egress: Egress, runtimes: str) -> None:
    telemetry = egress.intercept_https("telemetry.vendor.test")

    egress.run(runtimes, NPM)

    assert telemetry.assert_called_once().request.text == "/root"


@pytest.mark.usefixtures("npm")
def test_without_scripts_npm_asks_its_registry_alone(egress: Egress, runtimes: str) -> None:
    egress.run(runtimes, f"{NPM} --ignore-scripts")

    egress.assert_only("registry.npmjs.org")
