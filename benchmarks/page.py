"""The whole table, with the machine and the versions that it is of, and how it gets into the two pages that have it."""

from __future__ import annotations

import datetime
import os
import platform
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import docker

from benchmarks.figures import HEAD, table
from benchmarks.parts import Part, Result, noted, progress, run
from benchmarks.peers import MITMPROXY, MOCKTTP, ROOT, WIREMOCK, npm_version, path_of, why_missing

RESULTS: Final = ROOT / "benchmarks" / "RESULTS.md"
PAGE: Final = ROOT / "docs" / "performance.md"
SHOWN: Final = (
    ("next container, from the call to its first instruction", "ms", "docker-py"),
    ("a container that ends at once, from the call until it is removed", "ms", "testcontainers"),
    ("first container of a session, right after the collection", "ms", "docker-py"),
    ("first container of a script, cold", "ms", "docker-py"),
    ("containers, 2 workers", "containers a minute", "docker-py"),
    ("HTTPS, keep-alive", "requests/s", "bare minimum"),
    ("HTTPS, keep-alive", "requests/s", "mitmproxy"),
    ("HTTPS, keep-alive", "requests/s", "WireMock"),
    ("HTTPS, new connections, 4 clients at once", "requests/s", "mitmproxy"),
    ("HTTP/2, one connection with 10 streams", "requests/s", "bare minimum"),
    ("gRPC, unary calls", "calls/s", "grpcio's server"),
    ("a link, HTTPS with keep-alive", "requests/s", "descriptor link"),
    ("1 GB up, as a stream", "MB at the peak, beyond what it held before", None),
    ("import of the plugin, after pytest's", "ms", "pytest"),
)
"""The rows that docs/performance.md has of the whole table: subject, unit, and whom ours is compared with."""
MARK: Final = "<!-- {name}: {edge} -->"
BUSY: Final = 0.25  # of a core: what else may run for a figure to count
WATCHED_SECONDS: Final = 3.0
SETTLED_SECONDS: Final = 2.0  # for the engine to remove what the last round has left


def measured(parts: Sequence[Part]) -> str:
    """Measure these parts, and return the one table of them, with what it is of.

    Raises:
        SystemExit: A part failed. The table of the others has been printed.
    """
    before, began = busy_cores(), time.perf_counter()
    results: dict[str, Result] = {}
    failed: list[str] = []
    for part in parts:
        with noted(part, failed):
            results[part.name] = run(part, progress)
    minutes = (time.perf_counter() - began) / 60
    time.sleep(SETTLED_SECONDS)
    after = busy_cores()
    found = results.values()
    samples = {figure: values for each in found for figure, values in each.samples.items()}
    missing = {name: why for each in found for name, why in each.missing.items()}
    rows = [row for part in parts if part.name in results for row in part.rows]
    text = f"{origin(before, after, minutes)}\n\n{table(rows, samples, missing)}\n"
    if failed:
        print(text)
        sys.exit(f"failed, and not in the table: {', '.join(failed)}")
    return text


def busy_cores() -> float:
    """How many cores are busy while this process sleeps: the load average is also of what it has done itself."""
    before = busy_seconds()
    time.sleep(WATCHED_SECONDS)
    return (busy_seconds() - before) / WATCHED_SECONDS


def busy_seconds() -> float:
    """How long all cores together have been busy since the machine began (proc_stat(5))."""
    line = Path("/proc/stat").read_text().partition("\n")[0]  # of all cores together
    user, nice, system, _idle, _iowait, *others = map(int, line.split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def origin(before: float, after: float, minutes: float) -> str:
    """What the figures are of: the day, the machine and the versions.

    Args:
        before: How many cores were busy before the first round.
        after: The same after the last one.
    """
    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    seen = f"{before:.2f} cores were busy before the first round, {after:.2f} after the last"
    busy = (
        f" **Other programs ran ({seen}): figures and ratios are rough.**"
        if max(before, after) > BUSY
        else f" Nothing else ran ({seen})."
    )
    return (
        f"{today}: {os.cpu_count()} cores ({processor()}), {memory:.0f} GiB, Linux {platform.release()}.{busy}\n\n"
        f"{', '.join(versions())}. The run took {minutes:.1f} minutes."
    )


def processor() -> str:
    """The model of the processor (proc_cpuinfo(5))."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def versions() -> list[str]:
    """The versions of everything that is compared."""
    client = docker.from_env()
    engine = client.version()["Version"]
    client.close()
    found = [
        f"Python {platform.python_version()}",
        " ".join(ssl.OPENSSL_VERSION.split()[:2]),
        f"Docker {engine}",
        f"docker-py {version('docker')}",
        *(f"{name} {version(name)}" for name in ("h11", "h2", "grpcio", "testcontainers")),
    ]
    if why_missing(MITMPROXY) is None:
        found.append(mitmproxy_version())
    found += [
        f"{name} {npm_version(name)}" for name in (MOCKTTP, WIREMOCK) if why_missing(name) is None
    ]
    return found


def mitmproxy_version() -> str:
    """The version of mitmproxy, and of its Python."""
    program = path_of(MITMPROXY, "venv", "bin", "mitmdump")
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    mitmproxy, python = (line.split()[-1] for line in shown.stdout.splitlines()[:2])
    return f"mitmproxy {mitmproxy} on Python {python}"


def shown(measured: str) -> str:
    """What docs/performance.md has of the whole table: the day and the machine, and the rows of `SHOWN`."""
    origin, *_ = measured.strip().split("\n\n")
    rows = [line for line in measured.splitlines() if line.startswith("|") and key(line) in SHOWN]
    return "\n".join([origin, "", HEAD, *rows]) + "\n"


def key(line: str) -> tuple[str, str, str | None]:
    """The subject, the unit and the peer of a row in Markdown."""
    _, subject, unit, _, against, *_ = (cell.strip() for cell in line.split("|"))
    return subject, unit, against or None


def between(page: str, name: str) -> tuple[str, str, str]:
    """A page in three: up to the comment that begins a section, the section, and the rest from its end on.

    Raises:
        SystemExit: The page does not have both comments, in this order.
    """
    begin, end = (MARK.format(name=name, edge=edge) for edge in ("begin", "end"))
    before, found_begin, rest = page.partition(begin)
    section, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        sys.exit(f"the page has no {begin} with an {end} after it")
    return before + begin, section, end + after


def replaced(page: str, name: str, text: str) -> str:
    """The page with another text in a section."""
    before, _, after = between(page, name)
    return f"{before}\n{text}{after}"


def write(sections: Mapping[str, Callable[[], str]]) -> None:
    """Measure each section of RESULTS.md and write it there at once, and the rows of docs/performance.md."""
    for name, measure in sections.items():
        between(RESULTS.read_text(), name)  # before minutes are spent
        text = measure()
        RESULTS.write_text(replaced(RESULTS.read_text(), name, text))
        if name == "table":
            PAGE.write_text(replaced(PAGE.read_text(), name, shown(text)))
