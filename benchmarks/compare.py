"""Two commits, one against the other: each measurement is made with the package of one and then with that of the other.

The commit that is named is checked out into a temporary worktree, and measured by the benchmarks and the environment of
this tree. So a change can be judged on a machine that does other things too: these slow both alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.all_parts import PARTS
from benchmarks.figures import OURS, Figure, Row, Samples, table
from benchmarks.parts import Part, Subject, noted, progress, subjects
from benchmarks.peers import ROOT

END_SECONDS: Final = 60.0  # for a worker to remove its containers


class Worker:
    """A process that measures a part with the package of one tree."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def measure(self, subject: Subject) -> Mapping[str, float]:
        """Have a subject measured once: its values by their units."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the answer says that it has ended
            self._process.stdin.write(json.dumps(subject) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the process that measures has ended; its error is above")
        values: dict[str, float] = json.loads(answer)
        return values


def main(ref: str, names: Sequence[str]) -> None:
    """Compare the package of this tree with that of another commit, in the rows that are named, or all."""
    parts = chosen(names)
    ends_as_one_types()
    with worktree(ROOT, ref) as tree:
        shutil.rmtree(tree / "benchmarks", ignore_errors=True)
        shutil.copytree(ROOT / "benchmarks", tree / "benchmarks")
        failed: list[str] = []
        for part in parts:
            progress(f"{part.name}: {rounds_of(part)} rounds, this tree and {ref}")
            with noted(part, failed):
                print(compared(part, tree, ref), end="\n\n", flush=True)
    if failed:
        sys.exit(f"failed, and in no table: {', '.join(failed)}")


def ends_as_one_types() -> None:
    """Have SIGTERM end this process as Ctrl-C does, so that the worktree is removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def chosen(names: Sequence[str]) -> list[Part]:
    """The parts with these names, and of the others the rows whose subject has one of them in it; all without names.

    Raises:
        SystemExit: A name is that of nothing.
    """
    every = [part for part in PARTS.values() if part.in_table]
    if not names:
        return every
    for name in names:
        if not any(has(part, row, name) for part in PARTS.values() for row in part.rows):
            sys.exit(
                f"no row has {name!r} in it, and no part is named so; there are {listed(every)}"
            )
    found = (
        dataclasses.replace(
            part, rows=tuple(r for r in part.rows if any(has(part, r, n) for n in names))
        )
        for part in PARTS.values()
    )
    return [part for part in found if part.rows]


def has(part: Part, row: Row, name: str) -> bool:
    """Whether a name means this row."""
    return name == part.name or name.lower() in row.subject.lower()


def listed(parts: Sequence[Part]) -> str:
    """The names of parts with their subjects."""
    return "; ".join(
        f"{part.name} ({', '.join(dict.fromkeys(row.subject for row in part.rows))})"
        for part in parts
    )


def compared(part: Part, tree: Path, ref: str) -> str:
    """The table of a part: this tree's figures, the other's, and the ratio."""
    samples: dict[Figure, list[float]] = defaultdict(list)
    with worker(tree, part) as other, worker(ROOT, part) as own:
        for number in range(rounds_of(part)):
            both = [(OURS, own), (ref, other)]
            for subject in own_subjects(part):
                # In turns, so that neither is always the one that finds the other's wake.
                for of, process in both if number % 2 else reversed(both):
                    add(samples, subject, of, process.measure(subject))
    return table(rows_against(samples, part, ref), samples, {})


def rounds_of(part: Part) -> int:
    """As there is no third to measure, twice as many rounds as the table has."""
    return 2 * part.rounds


def own_subjects(part: Part) -> list[Subject]:
    """What is ours of the rows of a part."""
    return subjects([dataclasses.replace(row, against=None) for row in part.rows])


def add(
    samples: dict[Figure, list[float]], subject: Subject, of: str, values: Mapping[str, float]
) -> None:
    """Add what was measured of one tree to the samples."""
    for unit, value in values.items():
        samples[Figure(title(subject), unit, of)].append(value)


def title(subject: Subject) -> str:
    """A subject with the name of what is measured, where it is not only ours."""
    return subject.subject if subject.of == OURS else f"{subject.subject}, {subject.of}"


def rows_against(samples: Samples, part: Part, ref: str) -> list[Row]:
    """A row for each unit that rows of the part have."""
    wanted = {(title(Subject(row.subject, row.ours)), row.unit): None for row in part.rows}
    return [Row(subject=subject, unit=unit, against=ref) for subject, unit in wanted]


@contextmanager
def worker(tree: Path, part: Part) -> Iterator[Worker]:
    """A process that measures with the package of a tree; it ends by itself, and removes its containers.

    Raises:
        RuntimeError: It ends with an error: the verdict on what it has made is one.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker", part.name],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, at whose end it ends too
    )
    try:
        yield Worker(process)
    finally:
        finish(process)
    if process.returncode:
        raise RuntimeError("the process that measures has failed; its error is above")


def finish(process: subprocess.Popen[Any]) -> None:
    """End a worker by the end of its input; kill it where it does not."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except BaseException:  # a second Ctrl-C too
            process.kill()
            process.wait()
            raise


@contextmanager
def worktree(repository: Path, ref: str) -> Iterator[Path]:
    """A worktree of a commit, in a temporary folder; both are removed at the end, however that comes.

    Raises:
        SystemExit: Git cannot check that commit out.
    """
    with tempfile.TemporaryDirectory(prefix="pytest-egress-compare-") as folder:
        tree = Path(folder) / "tree"
        try:
            git(repository, "worktree", "add", "--quiet", "--detach", str(tree), ref)
            yield tree
        finally:
            git(repository, "worktree", "remove", "--force", str(tree), must=False)


def git(repository: Path, *arguments: str, must: bool = True) -> None:
    """Run git in a repository; end with its error where it must succeed and does not.

    In a session of its own: a Ctrl-C would end it half-way.
    """
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if must and done.returncode:
        sys.exit(f"{' '.join(done.args)}: {done.stderr.strip()}")
