"""What the tests themselves keep to: no test is about time, and nothing is left of a suite that is ended."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import hypothesis
import pytest

from tests.support.engines import OwnEngine
from tests.support.leftovers import until
from tests.support.project import ROOT
from tests.support.reaper import EngineRemains, containers_with

LIST = ROOT / "tests/FLAKY.md"
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "images" not in path.parts)
SECONDS = 60.0  # for an engine to start or to end, on however slow a machine
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"}


TEST = """
import os, tempfile, time
from pathlib import Path
pytest_plugins = ["tests.conftest"]
def test_it(engine_client, bare_image, own_engine):
    def sleep(client):
        client.containers.run(bare_image, ["sleep", "600"], network_mode="none", detach=True)
    sleep(engine_client)
    with own_engine(Path(tempfile.gettempdir()), size="300m") as engine:
        engine.load(engine_client, bare_image)
        sleep(engine.client())
        Path("new").write_text(f"{engine.folder} {engine_client.label}")
        Path("new").rename("said")
        time.sleep(600)
"""


def calls() -> Iterator[ast.Call]:
    """Every call in the code of the tests."""
    for path in TESTS:
        nodes = ast.walk(ast.parse(path.read_text()))
        yield from (node for node in nodes if isinstance(node, ast.Call))


def is_clock(node: ast.AST) -> bool:
    """Whether a node is the name of a clock that tells how long something took."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
    return name in CLOCKS


def test_no_example_of_hypothesis_has_a_deadline() -> None:
    assert hypothesis.settings().deadline is None
    given = [call for call in calls() if ast.unparse(call.func).endswith("settings")]
    assert given
    assert not [call.lineno for call in given if "deadline" in {word.arg for word in call.keywords}]


def test_no_test_asserts_how_long_something_took() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert) and any(map(is_clock, ast.walk(node)))
    ]
    assert found == []


def test_no_test_exports_a_container_but_of_podman() -> None:
    # What Docker leaves of each: `files_of` in tests/support/image_trees.py, which is the one that does.
    assert len([call for call in calls() if ast.unparse(call.func).endswith(".export")]) == 1


@pytest.mark.parametrize(
    ("how", "options"),
    [(signal.SIGTERM, []), (signal.SIGKILL, []), (signal.SIGTERM, ["-n", "1"])],
    ids=["terminated", "killed", "terminated with a worker"],
)
def test_nothing_is_left_of_a_suite_that_is_ended(
    engine_client: docker.DockerClient,
    own_engine: OwnEngine,
    tmp_path: Path,
    how: signal.Signals,
    options: list[str],
) -> None:
    del own_engine  # says whether there can be one
    (tmp_path / "test_it.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    )
    with open(tmp_path / "output", "wb") as output:
        suite = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        said = tmp_path / "said"
        assert until(lambda: said.exists() or suite.poll() is not None, SECONDS)
        assert said.exists(), (tmp_path / "output").read_text()
        folder, label = said.read_text().split()
        remains = EngineRemains(Path(folder))
        assert len(remains.processes()) == 3  # dockerd, containerd, and the shim of a container
        assert len(containers_with(engine_client, label)) == 1
        suite.send_signal(how)
    finally:
        if not said.exists():
            suite.kill()
        suite.wait()
    assert until(lambda: not containers_with(engine_client, label), SECONDS)
    assert until(lambda: not remains.left(), SECONDS), remains.left()


TARGETS = ("test", "stream", "mac", "podman")
MAKEFILE = """
test stream mac podman:
\t@{python} -m pytest -q -p no:xdist $(ARGS) test_$@.py
"""


def run_ci(folder: Path, **tests: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/run on these tests, which stand for those of each of its commands."""
    for part in (".ci", "scripts"):
        shutil.copytree(ROOT / part, folder / part)
    (folder / "Makefile").write_text(MAKEFILE.format(python=sys.executable))
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    for name in TARGETS:
        (folder / f"test_{name}.py").write_text(tests.get(name, "def test_it(): pass"))
    return subprocess.run(
        [folder / ".ci/run"], capture_output=True, text=True, timeout=5 * SECONDS, check=False
    )


AT_THE_SECOND_TRY = """
from pathlib import Path
import pytest
@pytest.mark.parametrize("number", [1, 2])
def test_it(number):
    tries = Path("tries")
    tries.write_text("x" + (tries.read_text() if tries.exists() else ""))
    assert number == 1 or len(tries.read_text()) == 3
"""


def test_ci_names_the_tests_that_needed_a_second_try(tmp_path: Path) -> None:
    done = run_ci(tmp_path, stream=AT_THE_SECOND_TRY)
    assert done.returncode == 0
    (row,) = re.findall(r"^\| .*", done.stdout, re.MULTILINE)
    assert re.fullmatch(
        r"\| \d{4}-\d\d-\d\d \| `make stream` \| `test_stream.py::test_it\[2\]` \| \|", row
    )
    assert done.stdout.index("NEEDED A SECOND TRY") < done.stdout.index(row)
    assert row in done.stdout.splitlines()[-2:]


def test_ci_says_where_no_test_needed_a_second_try(tmp_path: Path) -> None:
    done = run_ci(tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "no test needed a second try"


def test_ci_runs_once_more_what_failed_of_each_of_the_targets_that_run_at_once(
    tmp_path: Path,
) -> None:
    second = AT_THE_SECOND_TRY.replace('Path("tries")', 'Path(__file__ + ".tries")')
    done = run_ci(tmp_path, stream=second, mac=second, podman=second)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\| .* \| `make (\w+)` \| `(\S+)` \| \|$", done.stdout, re.MULTILINE) == [
        (name, f"test_{name}.py::test_it[2]") for name in ("stream", "mac", "podman")
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_ci_fails_where_a_test_fails_twice(tmp_path: Path, target: str) -> None:
    done = run_ci(tmp_path, **{target: "def test_it(): assert False"})
    assert done.returncode != 0
    assert f"| `make {target}` | `test_{target}.py::test_it` | |" in done.stdout.splitlines()[-2]


def test_every_row_of_the_list_names_a_test_there_is() -> None:
    rows = re.findall(r"^\| .* \| `.*` \| `(.*)::(\w+).*` \|", LIST.read_text(), re.MULTILINE)
    assert len(rows) == LIST.read_text().count("\n| 2")
    for file, name in rows:
        assert f"def {name}(" in (ROOT / file).read_text()
