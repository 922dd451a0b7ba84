"""What a suite pays for the plugin without using it: calls that Python makes for an empty test, and the import.

Calls are counted and not timed, so they are exact: by the hook for profilers, as the difference between a suite of few
tests and one of many. An import takes as long as its CPU time: all that it reads was read before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.figures import Row
from benchmarks.first import run_python
from benchmarks.parts import Measure, Part

WITH, WITHOUT = "with the plugin", "without it"
CALLS, IMPORT = "an empty test", "import of the plugin, after pytest's"
CALLS_UNIT, IMPORT_UNIT = "calls", "ms"
PLUGIN, PYTEST = "the plugin", "pytest"
FEW, MANY = 100, 400
COUNT: Final = """
import sys
import pytest

calls = 0

def count(frame, event, argument):
    global calls
    calls += event in ("call", "c_call")

sys.setprofile(count)
code = pytest.main(sys.argv[1:])
sys.setprofile(None)
assert code == 0
print("", calls)
"""
TIME_IMPORT: Final = """
import time
began = time.thread_time()
import pytest
of_pytest = time.thread_time()
import pytest_egress.plugin
print((of_pytest - began) * 1e3, (time.thread_time() - of_pytest) * 1e3)
"""

ROWS: Final = (
    Row(subject=CALLS, unit=CALLS_UNIT, ours=WITH, against=WITHOUT),
    Row(subject=IMPORT, unit=IMPORT_UNIT, ours=PLUGIN, against=PYTEST),
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with tempfile.TemporaryDirectory(prefix="pytest-egress-bench-") as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "count.py").write_text(COUNT)
        for tests in (FEW, MANY):
            source = "\n".join(f"def test_{number}(): pass" for number in range(tests))
            (folder / f"test_{tests}.py").write_text(source)
        calls(folder, WITHOUT)  # pytest rewrites and compiles these files once
        yield lambda subject, of: {
            CALLS: lambda: {CALLS_UNIT: calls(folder, of)},
            IMPORT: lambda: {IMPORT_UNIT: import_time(folder, of)},
        }[subject]()


def calls(folder: Path, of: str) -> float:
    """How many calls one more empty test is."""
    plugin = ["-p", "pytest_egress.plugin"] if of == WITH else []
    few, many = (
        run_python(
            folder, ["count.py", "-q", "-p", "no:cacheprovider", *plugin, f"test_{tests}.py"]
        )
        for tests in (FEW, MANY)
    )
    return (int(many.split()[-1]) - int(few.split()[-1])) / (MANY - FEW)


def import_time(folder: Path, of: str) -> float:
    of_pytest, of_plugin = map(float, run_python(folder, ["-c", TIME_IMPORT]).split())
    return of_plugin if of == PLUGIN else of_pytest


PART: Final = Part(name="plugin", rows=ROWS, rounds=3, prepare=prepare)
