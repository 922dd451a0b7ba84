"""The calls to the engine of one run: when each begins, and how long it takes: where the time of a start goes.

Calls of several threads overlap. What is called in the background between two runs is not listed.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

Roles = dict[str, str]
"""What each container is, by its ID."""


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
    """Run containers and return the table of the calls of one."""
    calls: list[Call] = []
    runs: list[tuple[float, float]] = []
    with Egress() as egress, traced(calls):
        egress.run(IMAGE, ["true"])  # reads image and modules from disk
        for _ in range(RUNS):
            time.sleep(PAUSE_SECONDS)
            began = time.perf_counter()
            egress.run(IMAGE, ["true"])
            runs.append((began, time.perf_counter()))
    whole = median(ended - began for began, ended in runs)
    return table(steps(calls, runs), whole)


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
    return "image: inspect" if "/images/" in path else f"engine: {method} {path.rpartition('/')[2]}"


def steps(calls: Sequence[Call], runs: Sequence[tuple[float, float]]) -> list[Step]:
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
    """The steps in Markdown, in milliseconds."""
    lines = ["| call | begins after, ms | takes, ms |", "|---|---:|---:|"]
    lines += [
        f"| {step.label} | {number(step.after * 1e3)} | {number(step.took * 1e3)} |"
        for step in found
    ]
    return "\n".join([*lines, f"| the whole run | | {number(whole * 1e3)} |"]) + "\n"
