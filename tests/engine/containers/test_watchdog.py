"""The watchdog starts whatever the project's modules are called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import requests

import pytest_egress
from pytest_egress import Egress
from pytest_egress.engine.watchdog import PACKAGES
from tests.support.killed_runs import TARGET, KilledRun, assert_nothing_is_left
from tests.support.leftovers import Witness

UNWATCHED = "Had this run been killed, its containers would have stayed until the next one."
RAISES = "raise SystemExit('the project has this name too')\n"


@pytest.fixture
def run(bare_image: str) -> Iterator[Callable[..., KilledRun]]:
    runs: list[KilledRun] = []

    def run(**options: object) -> KilledRun:
        runs.append(KilledRun(TARGET.format(image=bare_image), **options))  # type: ignore[arg-type]  # of Popen
        return runs[-1]

    yield run
    for each in runs:
        each.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with modules that are called as what the watchdog imports."""
    for name in (*PACKAGES, "json", "shutil", "certifi", "idna"):
        (tmp_path / f"{name}.py").write_text(RAISES)
    return tmp_path


def test_modules_of_the_project_do_not_stop_it(
    run: Callable[..., KilledRun], witness: Witness, project: Path
) -> None:
    killed = run(cwd=project)
    assert killed.line() == "up"
    killed.kill()
    assert_nothing_is_left(witness, killed)


def test_it_finds_what_the_path_of_the_environment_has(
    run: Callable[..., KilledRun], witness: Witness, project: Path
) -> None:
    installed = [Path(package.__path__[0]).parent for package in (docker, requests, pytest_egress)]
    killed = run(
        python=os.path.realpath(sys.executable),  # of no virtual environment
        env={"PYTHONPATH": os.pathsep.join(map(str, installed))},
        cwd=project,
    )
    assert killed.line() == "up"
    killed.kill()
    assert_nothing_is_left(witness, killed)


def test_a_run_without_one_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bare_image: str
) -> None:
    with Egress() as egress:
        engine = egress._inner.session.engine
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            assert engine.client.ping()
        egress.run(bare_image, ["true"])
    (note,) = engine.notes
    assert note.startswith("there is no watchdog: [Errno 2] No such file or directory: ")
    assert note.endswith(UNWATCHED)
    assert note in caplog.messages


@pytest.mark.plugins("xdist")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_summary_says_once_that_nobody_watched(
    pytester: pytest.Pytester, bare_image: str, workers: str
) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(f"""
        def test_it(egress):
            egress.run({bare_image!r}, ["true"])
            egress._inner.session.engine._watchdog._process.kill()
            egress._inner.session.engine._watchdog._process.wait()
    """)
    result = pytester.runpytest_subprocess("-n", workers, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    said = f"egress: the watchdog ended before its run (exit code -9). {UNWATCHED}"
    assert result.stdout.lines.count(said) == 1
