"""What is published: a wheel and a source archive that hold what belongs there, and no more."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.project import ROOT


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("artifacts")
    build = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def package_files() -> set[str]:
    files = (path for path in (ROOT / "pytest_egress").rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if path.parent.name != "__pycache__"}


def test_the_wheel_holds_the_package_with_the_agent_and_nothing_else(artifacts: Path) -> None:
    (wheel,) = artifacts.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == package_files()
    assert {"pytest_egress/py.typed", "pytest_egress/agent/main.py"} <= set(names)


def test_the_wheel_registers_the_command_and_the_plugin(artifacts: Path) -> None:
    (wheel,) = artifacts.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert archive.read(entry_points).decode().split() == [
        *("[console_scripts]", "pytest-egress", "=", "pytest_egress.cli:main"),
        *("[pytest11]", "egress", "=", "pytest_egress.plugin"),
    ]


def test_the_page_on_pypi_has_the_addresses_and_no_link_that_needs_the_repository(
    artifacts: Path,
) -> None:
    (wheel,) = artifacts.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = (each for each in archive.namelist() if each.endswith("/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    labels = [url.partition(", ")[0] for url in metadata.get_all("Project-URL", [])]
    assert labels == ["Homepage", "Documentation", "Changelog", "Issues"]
    page = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)]+)\)", page) + re.findall(r"^\[.+\]: (.+)$", page, re.MULTILINE)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []


def test_the_source_archive_holds_the_licence_and_the_tests(artifacts: Path) -> None:
    (source,) = artifacts.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "tests/conftest.py", "tests/images/clients/Dockerfile"} <= names
