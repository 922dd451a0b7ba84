"""Runs the benchmarks that are named, or all: `python -m benchmarks [start] [throughput] [scaling] [trust]`."""

from __future__ import annotations

import sys

from benchmarks import scaling, start, throughput, trust

BENCHMARKS = {
    "start": start.main,
    "throughput": throughput.main,
    "scaling": scaling.main,
    "trust": trust.main,
}


def main(names: list[str]) -> None:
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"no benchmark is named {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        BENCHMARKS[name]()
        print()


main(sys.argv[1:])
