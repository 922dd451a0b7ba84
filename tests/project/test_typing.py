"""What type checkers say of the tests that users write: the documentation's own pass, and mistakes are found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.project import ROOT

TYPED = ROOT / "tests/project/typed"
Errors = dict[str, dict[int, str]]
"""By file and line."""


def mypy(folder: Path) -> Errors:
    options = ["--strict", "--config-file=", "--no-error-summary", "--cache-dir=cache"]
    lines = run(folder, "mypy", *options, ".").splitlines()
    found = (re.fullmatch(r"(.+\.py):(\d+): error: (.*)", line) for line in lines)
    return by_file((each[1], int(each[2]), each[3]) for each in found if each)


def pyright(folder: Path) -> Errors:
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.10"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    said = json.loads(run(folder, "pyright", "--outputjson", "--pythonpath", sys.executable))
    return by_file(
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in said["generalDiagnostics"]
        if each["severity"] == "error"
    )


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def by_file(found: Iterable[tuple[str, int, str]]) -> Errors:
    errors: Errors = {"patterns.py": {}, "mistakes.py": {}}
    for name, line, text in found:
        errors[name][line] = text
    return errors


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def errors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """What a checker with no settings but strictness says of the files of `typed`."""
    folder = tmp_path_factory.mktemp("typed")
    for name in ("patterns.py", "mistakes.py"):
        shutil.copy(TYPED / name, folder)
    found: Errors = request.param(folder)
    return found


def test_what_the_documentation_shows_is_accepted(errors: Errors) -> None:
    assert errors["patterns.py"] == {}


def test_each_mistake_is_found_and_nothing_else(errors: Errors) -> None:
    lines = (TYPED / "mistakes.py").read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    assert len(expected) > 30
    found = errors["mistakes.py"]
    assert {n: lines[n - 1].strip() for n in expected - found.keys()} == {}
    assert {n: text for n, text in found.items() if n not in expected} == {}
