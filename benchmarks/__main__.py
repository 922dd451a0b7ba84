"""Measures what is named, or everything: `make bench ARGS="..."`."""

from __future__ import annotations

import sys
from typing import Final

from benchmarks import compare, growth, page
from benchmarks.all_parts import PARTS
from benchmarks.peers import ROOT

USAGE: Final = """what can be named:
  (nothing)              the whole table
  PART...                parts of it alone: start, first, scaling, throughput, http2, grpc, relay, links, memory,
                         plugin, routes; and trust, which is not in it
  page                   the whole table, written into docs/performance.md
  growth                 how costs grow with the number of routes, calls, names, containers
  compare REF [NAME...]  this tree against another commit: all rows, or those of a part, or with a name in them
"""
WHOLE: Final = [part for part in PARTS.values() if part.in_table]


def main(arguments: list[str]) -> None:
    match arguments:
        case []:
            print(page.measured(WHOLE))
        case ["page"]:
            page.write(ROOT / "docs" / "performance.md", page.measured(WHOLE))
        case ["growth"]:
            growth.main()
        case ["compare", ref, *names]:
            compare.main(ref, names)
        case names if unknown := [name for name in names if name not in PARTS]:
            sys.exit(f"nothing is named {unknown[0]!r}; {USAGE}")
        case names:
            print(page.measured([PARTS[name] for name in names]))


if __name__ == "__main__":  # a process that `scaling` starts imports this module too
    main(sys.argv[1:])
