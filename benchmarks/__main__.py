"""Runs the benchmarks that are named, or all: `python -m benchmarks [NAME]...`.

They are: start, throughput, http2, grpc, scaling, trust.
"""

from __future__ import annotations

import sys

from benchmarks import grpc_calls, http2, scaling, start, throughput, trust

BENCHMARKS = {
    "start": start.main,
    "throughput": throughput.main,
    "http2": http2.main,
    "grpc": grpc_calls.main,
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
