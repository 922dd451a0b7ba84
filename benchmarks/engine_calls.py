"""The calls to the engine of one run: when each begins, and how long it takes: where the time of a start goes.

There are two tables: of the next container, whose sidecar has served another one, and of the first of a session. Calls
of several threads overlap. What is called in the background between two runs is not listed.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from statistics import median
from typing import Any, Final, NamedTuple
from unittest import mock
from urllib.parse import urlsplit

import requests

from benchmarks.figures import number
from benchmarks.start import IMAGE
from pytest_egress import Egress

RUNS: Final = 9
PAUSE_SECONDS: Final = 0.5  # in which what is made ready in the background becomes so
CREATED: Final = re.compile(r"\bname=pytest-egress-(\w+)-")
BY_ID: Final = re.compile(r"/containers/([0-9a-f]{12,})/?(\w*)$")
LISTS: Final = re.compile(r"/(containers|images)/json$")

Roles = dict[str, str]
"""What each container is, by its ID."""

Times = tuple[float, float]
"""When a run begins and ends, in seconds."""


class Call(NamedTuple):
    """A call to the engine; times are in seconds by one clock."""

    label: str
    began: float
    ended: float


class Step(NamedTuple):
    """A call as it is in each run: when it begins, after the run's own beginning, and how long it takes, in seconds."""

    label: str
    after: float
    took: float


def measured() -> str:
    """Run containers and return the tables of the calls of one."""
    calls: list[Call] = []
    of_first: list[Times] = []
    of_next: list[Times] = []
    with traced(calls):
        with Egress() as egress:
            timed_run(egress)  # reads image and modules from disk
            for _ in range(RUNS):
                time.sleep(PAUSE_SECONDS)
                of_next.append(timed_run(egress))
        for _ in range(RUNS):
            time.sleep(PAUSE_SECONDS)
            with Egress() as egress:
                of_first.append(timed_run(egress))
    return "\n".join(
        f"{title}:\n\n{table(steps(calls, runs), median(end - begin for begin, end in runs))}"
        for title, runs in (("The next container", of_next), ("The first of a session", of_first))
    )


def timed_run(egress: Egress) -> Times:
    """Run a container that ends at once; return when that began and ended."""
    began = time.perf_counter()
    egress.run(IMAGE, ["true"])
    return began, time.perf_counter()


@contextmanager
def traced(calls: list[Call]) -> Iterator[None]:
    """Note each call that docker-py makes meanwhile, from any thread."""
    send, roles = requests.Session.send, Roles()

    def noted(session: requests.Session, request: Any, **options: Any) -> Any:
        began = time.perf_counter()
        response = send(session, request, **options)
        if created := CREATED.search(request.url):
            roles[response.json()["Id"]] = created[1]
        label = label_of(request.method, request.url, roles)
        calls.append(Call(label, began, time.perf_counter()))
        return response

    with mock.patch.object(requests.Session, "send", noted):
        yield


def label_of(method: str, url: str, roles: Mapping[str, str]) -> str:
    """What a call is, in words: whom it is about, the method, and the last part of its path."""
    path = urlsplit(url).path
    if created := CREATED.search(url):
        return f"{created[1]}: create"
    if found := BY_ID.search(path):
        role = roles.get(found[1], "container")
        name = found[2] if found[2] not in ("json", "") else "inspect"
        if name == "archive":
            name = "read files" if method in ("GET", "HEAD") else "put files"
        return f"{role}: {'delete' if method == 'DELETE' else name}"
    if listed := LISTS.search(path):
        return f"engine: list {listed[1]}"
    name = path.rpartition("/")[2]
    if "/images/" in path:
        return f"image: {'inspect' if name == 'json' else name}"
    return f"engine: {method} {name}"


def steps(calls: Sequence[Call], runs: Sequence[Times]) -> list[Step]:
    """The calls of a run, as the medians of all runs in which they were, in the order of their beginnings.

    A call that most runs do not have is left out.
    """
    found: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for begin, end in runs:
        seen: Counter[str] = Counter()
        for call in sorted(calls, key=lambda call: call.began):
            if begin <= call.began <= end:
                found[call.label, seen[call.label]].append(
                    (call.began - begin, call.ended - call.began)
                )
                seen[call.label] += 1
    medians = [
        Step(label, median(after for after, _ in times), median(took for _, took in times))
        for (label, _), times in found.items()
        if len(times) > len(runs) / 2
    ]
    return sorted(medians, key=lambda step: step.after)


def table(found: Sequence[Step], whole: float) -> str:
    """The steps in Markdown, in milliseconds; those that are alike and follow each other are one line."""
    lines = ["| call | begins after, ms | takes, ms |", "|---|---:|---:|"]
    for label, group in groupby(found, key=lambda step: step.label):
        alike = [*group]
        said = label if len(alike) == 1 else f"{label}, {len(alike)} times"
        took = sum(step.took for step in alike)
        lines.append(f"| {said} | {number(alike[0].after * 1e3)} | {number(took * 1e3)} |")
    return "\n".join([*lines, f"| the whole run | | {number(whole * 1e3)} |"]) + "\n"
