"""Measures what is named, or everything: `make bench ARGS="..."`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks import compare, engine_calls, growth, page
from benchmarks.all_parts import PARTS

USAGE: Final = """what can be named:
  (nothing)              the whole table
  PART...                parts of it alone: start, first, scaling, throughput, http2, grpc, relay, links, memory,
                         plugin, routes; and trust, reuse and evidence, which are not in it
  calls                  the calls to the engine of one run, and how long each takes
  growth                 how costs grow with the number of routes, calls, names, containers
  page                   the whole table, calls and growth, written into benchmarks/RESULTS.md, and
                         the rows of docs/performance.md
  compare REF [NAME...]  this tree against another commit: all rows, or those of a part, or with a name in them
"""
WHOLE: Final = [part for part in PARTS.values() if part.in_table]

SECTIONS: Final[Mapping[str, Callable[[], str]]] = {
    "table": lambda: page.measured(WHOLE),
    "calls": engine_calls.measured,
    "growth": growth.measured,
}


def main(arguments: list[str]) -> None:
    match arguments:
        case []:
            print(page.measured(WHOLE))
        case ["page"]:
            page.write(SECTIONS)
        case ["calls" | "growth" as name]:
            print(SECTIONS[name]())
        case ["compare", ref, *names]:
            compare.main(ref, names)
        case names if unknown := [name for name in names if name not in PARTS]:
            sys.exit(f"nothing is named {unknown[0]!r}; {USAGE}")
        case names:
            print(page.measured([PARTS[name] for name in names]))


if __name__ == "__main__":  # a process that `scaling` starts imports this module too
    main(sys.argv[1:])
