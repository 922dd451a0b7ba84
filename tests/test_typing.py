"""What type checkers say of the tests that users write: the documentation's own pass, and mistakes are found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TYPED = Path(__file__).resolve().parent / "typed"
CHECKERS = ("mypy", "pyright")


def errors_of(checker: str, name: str, folder: Path) -> dict[int, str]:
    """What a checker with no settings but strictness says of a file of `typed`, by line."""
    source = folder / name
    source.write_text((TYPED / name).read_text())
    return {"mypy": mypy_errors, "pyright": pyright_errors}[checker](source)


def mypy_errors(source: Path) -> dict[int, str]:
    command = ["mypy", "--strict", "--config-file=", "--no-error-summary", "--hide-error-context"]
    done = run(source, *command, "--cache-dir", str(source.parent / "cache"), source.name)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    lines = (re.fullmatch(r"[^:]+:(\d+): error: (.*)", line) for line in done.stdout.splitlines())
    return {int(found[1]): found[2] for found in lines if found}


def pyright_errors(source: Path) -> dict[int, str]:
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.10"}
    (source.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    interpreter = ["--pythonpath", sys.executable]
    done = run(source, "pyright", "--outputjson", *interpreter, source.name)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {
        found["range"]["start"]["line"] + 1: found["message"]
        for found in json.loads(done.stdout)["generalDiagnostics"]
        if found["severity"] == "error"
    }


def run(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=source.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_the_documentation_shows_is_accepted(checker: str, tmp_path: Path) -> None:
    assert errors_of(checker, "patterns.py", tmp_path) == {}


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_mistake_is_found_and_nothing_else(checker: str, tmp_path: Path) -> None:
    lines = (TYPED / "mistakes.py").read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    assert len(expected) > 30
    found = errors_of(checker, "mistakes.py", tmp_path)
    assert {n: lines[n - 1].strip() for n in expected - found.keys()} == {}
    assert {n: text for n, text in found.items() if n not in expected} == {}
