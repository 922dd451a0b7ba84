"""What this process holds: the peak while a gigabyte passes as a stream, and the bytes of a recorded exchange.

Each is measured in a process of its own (`memory_process`), by what the kernel says is resident.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.figures import Row
from benchmarks.first import run_python
from benchmarks.memory_process import DOWN, KEPT, NEW, UP
from benchmarks.parts import Measure, Part
from benchmarks.servers import HERE

PEAK, BYTES = "MB at the peak, beyond what it held before", "bytes an exchange"
SUBJECTS: Final = {DOWN: PEAK, UP: PEAK, KEPT: BYTES, NEW: BYTES}
ROWS: Final = tuple(Row(subject=subject, unit=unit) for subject, unit in SUBJECTS.items())


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    def measure(subject: str, _: str) -> Mapping[str, float]:
        printed = run_python(HERE.parent, ["-m", "benchmarks.memory_process", subject])
        return {SUBJECTS[subject]: float(printed)}

    yield measure


PART: Final = Part(name="memory", rows=ROWS, rounds=2, prepare=prepare)
