"""The first container of a run, from the call to its first instruction: in a test of a real pytest, and in a script.

Each run is a process of its own, with no other plugin. It may make ready what it can between the end of the collection
and the call: one suite has a test before it that takes 1.5 seconds and uses no container; the other begins with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.figures import OURS, rows_of
from benchmarks.parts import Measure, Part
from benchmarks.servers import last_line
from benchmarks.start import DOCKER_PY, IMAGE, PRINT_CLOCK

UNIT: Final = "ms"
PREPARED: Final = "first container of a session, 1.5 s after the collection"
AT_ONCE: Final = "first container of a session, right after the collection"
COLD: Final = "first container of a script, cold"
SECONDS_BEFORE: Final = {PREPARED: 1.5, AT_ONCE: 0.0}

TEST: Final = """
import time
{imports}
def test_another():
    time.sleep({seconds})
def test_first({fixture}):
    {client}
    called = time.time_ns()
    printed = {run}
    with open({result!r}, "w") as file:
        file.write(f"{{(int(printed) - called) / 1e6}}")
"""
SCRIPT: Final = """
import time
{imports}
called = time.time_ns()
{client}
printed = {run}
{end}
with open({result!r}, "w") as file:
    file.write(f"{{(int(printed) - called) / 1e6}}")
"""
IN_PYTEST: Final = {
    OURS: {
        "imports": "",
        "fixture": "egress",
        "client": "",
        "run": f"egress.run({IMAGE!r}, {PRINT_CLOCK}).stdout",
    },
    DOCKER_PY: {
        "imports": "import docker",
        "fixture": "",
        "client": "client = docker.from_env()",
        "run": f"client.containers.run({IMAGE!r}, {PRINT_CLOCK}, remove=True)",
    },
}
IN_SCRIPT: Final = {
    OURS: IN_PYTEST[OURS]
    | {
        "imports": "from pytest_egress import Egress",
        "client": "egress = Egress().__enter__()",
        "end": "egress.__exit__(None, None, None)",
    },
    DOCKER_PY: IN_PYTEST[DOCKER_PY] | {"end": ""},
}
# Others' plugins would be imported too, and take longer than what is measured.
PYTEST: Final = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]

ROWS: Final = tuple(
    row for subject in (PREPARED, AT_ONCE, COLD) for row in rows_of(subject, UNIT, DOCKER_PY)
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with tempfile.TemporaryDirectory(prefix="pytest-egress-bench-") as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")

        def measure(subject: str, name: str) -> Mapping[str, float]:
            result = folder / "result"
            result.unlink(missing_ok=True)
            run_python(folder, arguments(folder, subject, name, str(result)))
            return {UNIT: float(result.read_text())}

        yield measure


def arguments(folder: Path, subject: str, name: str, result: str) -> list[str]:
    """Write the test, or the script, and return what runs it."""
    if subject == COLD:
        (folder / "script.py").write_text(SCRIPT.format(**IN_SCRIPT[name], result=result))
        return ["script.py"]
    source = TEST.format(**IN_PYTEST[name], seconds=SECONDS_BEFORE[subject], result=result)
    (folder / "test_first.py").write_text(source)
    plugin = ["-p", "pytest_egress.plugin"] if name == OURS else []
    return [*PYTEST, *plugin, "test_first.py"]


def run_python(folder: Path, arguments: list[str]) -> str:
    """Run this interpreter there, with no plugins but those that are named; return its output.

    Raises:
        RuntimeError: It failed.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(last_line(done.stderr or done.stdout))
    return done.stdout


def environment() -> dict[str, str]:
    """The environment without other people's plugins, with compiled modules, and with sets in one order each time."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONHASHSEED": "0"}


PART: Final = Part(name="first", rows=ROWS, rounds=4, prepare=prepare)
