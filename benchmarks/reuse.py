"""Sidecars that serve one container after the other, against a sidecar for each container.

This is what `CAP_SYS_ADMIN` in the first process of a sidecar buys (docs/guarantees.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Final

from benchmarks.figures import Row
from benchmarks.parts import Measure, Part
from benchmarks.start import BLOCK, FIRST_INSTRUCTION, UNIT, WHOLE, our_actions
from pytest_egress import Egress
from pytest_egress.session import Session

SHARED, OWN = "a reused sidecar", "a sidecar for each"
ROWS: Final = tuple(
    Row(subject=subject, unit=UNIT, ours=SHARED, against=OWN)
    for subject in (FIRST_INSTRUCTION, WHOLE)
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with ExitStack() as stack:
        actions = {
            name: our_actions(
                stack.enter_context(Egress(session=Session(sidecar_reuse=name == SHARED)))
            )
            for name in (SHARED, OWN)
        }

        def measure(subject: str, name: str) -> Mapping[str, float]:
            action = actions[name][subject]
            action()
            return {UNIT: median(action() for _ in range(BLOCK[subject]))}

        yield measure


PART: Final = Part(name="reuse", rows=ROWS, rounds=10, prepare=prepare, in_table=False)
