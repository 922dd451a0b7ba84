"""Measures what it is asked for, one at a time, with the package of the folder that it is started in.

A line of its input is a subject and whose, in JSON; a line of its output is what one measurement gave. It ends with its
input.

usage: python -m benchmarks.worker PART
"""

from __future__ import annotations

import json
import sys

from benchmarks.all_parts import PARTS


def main(name: str) -> None:
    part = PARTS[name]
    with part.prepare({row.ours for row in part.rows}) as measure:
        for line in sys.stdin:
            subject, of = json.loads(line)
            print(json.dumps(dict(measure(subject, of))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
