"""What a contributor, and GitHub, find beside the code: each file says what the others say."""

from __future__ import annotations

import re
import shlex
import subprocess
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(
    set((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    - {ROOT / ".github/ISSUE_TEMPLATE/config.yml"}
)
PLACES = ["*.md", "*.yml", "docs/**/*.md", "scripts/*", ".github/**/*.yml", "pytest_egress/**/*.py"]
ADDRESS = re.compile(r"https://(?:github\.com/[\w-]+|[\w-]+\.github\.io)/pytest-egress\b")
PYTHON = "Programming Language :: Python :: 3."


def load(path: Path) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text())
    return content


def steps(workflow: Path, key: str) -> list[str]:
    """What the jobs of a workflow run, or use."""
    jobs = load(workflow)["jobs"].values()
    return [step[key] for job in jobs for step in job["steps"] if key in step]


def test_every_address_of_the_project_is_that_of_its_metadata() -> None:
    urls = dict(url.split(", ") for url in metadata("pytest-egress").get_all("Project-URL", []))
    known = {urls["Homepage"], urls["Documentation"].rstrip("/")}
    assert all(
        ADDRESS.match(url) for url in known
    )  # where the project moves elsewhere, so does this pattern
    found = {
        (str(path.relative_to(ROOT)), address)
        for place in PLACES
        for path in ROOT.glob(place)
        if path.is_file()
        for address in ADDRESS.findall(path.read_text())
    }
    assert {path for path, _ in found} > {"README.md", "SECURITY.md", "docs/fixtures.md"}
    other = sorted(path for path, address in found if address not in known)
    assert other == [], (
        f"pyproject.toml says {sorted(known)}: sed -i 's|OLD|NEW|' {' '.join(other)}"
    )


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_runs_is_a_target_of_ours(workflow: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):.* ## ", makefile, re.MULTILINE)
    commands = steps(workflow, "run")
    assert commands
    for command in commands:
        if command.startswith("apt-get update && apt-get install "):
            continue  # in an empty container, before there is a `make`
        make, target, *variables = shlex.split(command)
        assert (make, target in targets) == ("make", True), command
        for variable in variables:
            assert f"$({variable.partition('=')[0]})" in makefile, command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_write_nothing_but_where_it_publishes(workflow: Path) -> None:
    content = load(workflow)
    assert content["permissions"] == {"contents": "read"}
    writing = [job for job in content["jobs"].values() if "permissions" in job]
    assert all(
        "environment" in job and not any("run" in step for step in job["steps"]) for job in writing
    )
    assert [
        use for use in steps(workflow, "uses") if not re.search(r"@(release/)?v\d+$", use)
    ] == []


def test_the_tests_run_on_every_python_that_the_metadata_names() -> None:
    classifiers = metadata("pytest-egress").get_all("Classifier", [])
    named = [each.rpartition(" ")[2] for each in classifiers if each.startswith(PYTHON)]
    jobs = load(ROOT / ".github/workflows/tests.yml")["jobs"]
    assert jobs["docker"]["strategy"]["matrix"]["python"] == named
    assert metadata("pytest-egress")["Requires-Python"] == f">={named[0]}"


def test_a_release_is_tried_on_every_python_that_the_metadata_names() -> None:
    classifiers = metadata("pytest-egress").get_all("Classifier", [])
    named = [each.rpartition(" ")[2] for each in classifiers if each.startswith(PYTHON)]
    (build,) = steps(ROOT / ".github/workflows/release.yml", "run")
    assert shlex.split(build)[-1] == "PYTHONS=" + " ".join(f"python{each}" for each in named)


def test_a_release_is_published_by_trust_and_without_a_password() -> None:
    publish = load(ROOT / ".github/workflows/release.yml")["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"]["name"] == "pypi"
    assert "pypa/gh-action-pypi-publish@release/v1" in [step["uses"] for step in publish["steps"]]
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


def test_the_published_site_is_where_it_is_built() -> None:
    (upload,) = (
        step
        for step in load(ROOT / ".github/workflows/docs.yml")["jobs"]["build"]["steps"]
        if "upload-pages-artifact" in step.get("uses", "")
    )
    assert f"site_dir: {upload['with']['path']}\n" in (ROOT / "mkdocs.yml").read_text()


def test_the_hooks_before_a_commit_are_the_commands_of_make_lint() -> None:
    # `make -n` says what it would do; in another environment than .venv the rest is the same.
    lint = subprocess.run(
        ["make", "-n", "lint", "VENV=.venv"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    checks = [
        line.removesuffix(" .") for line in lint.stdout.splitlines() if " -m pip " not in line
    ]
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = [hook["entry"] for hook in repository["hooks"]]
    assert len(hooks) == 3
    assert [hook for hook in hooks if hook not in checks] == []


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_one_that_github_takes(form: Path) -> None:
    content = load(form)
    assert content["name"]
    assert content["description"]
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)
    identifiers = [field["id"] for field in fields]
    assert len(identifiers) == len(set(identifiers)) > 1


def test_what_gets_out_is_told_in_private() -> None:
    (link, _) = load(ROOT / ".github/ISSUE_TEMPLATE/config.yml")["contact_links"]
    assert link["url"] in (ROOT / "SECURITY.md").read_text()
