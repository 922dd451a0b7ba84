"""The whole table, with the machine and the versions that it is of, and how it gets into docs/performance.md."""

from __future__ import annotations

import datetime
import os
import platform
import ssl
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import docker

from benchmarks.figures import table
from benchmarks.parts import Part, progress, run
from benchmarks.peers import MITMPROXY, MOCKTTP, WIREMOCK, npm_version, path_of, why_missing

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"
BUSY: Final = 0.5  # of a core: what else may run for a figure to count


def measured(parts: Sequence[Part]) -> str:
    """Measure these parts, and return the one table of them, with what it is of."""
    load = os.getloadavg()[0]
    results = [run(part, progress) for part in parts]
    samples = {figure: found for result in results for figure, found in result.samples.items()}
    missing = {name: why for result in results for name, why in result.missing.items()}
    rows = [row for part in parts for row in part.rows]
    return f"{origin(load)}\n\n{table(rows, samples, missing)}\n"


def origin(load: float) -> str:
    """What the figures are of: the day, the machine and the versions."""
    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    busy = (
        f" **Something else ran on the machine (load {load:.1f} before the first round): ratios hold, figures do not.**"
        if load > BUSY
        else f" Nothing else ran (load {load:.1f} before the first round)."
    )
    return (
        f"{today}: {os.cpu_count()} cores ({processor()}), {memory:.0f} GiB, Linux {platform.release()}.{busy}\n\n"
        f"{', '.join(versions())}."
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
        *(
            f"{name} {version(name)}"
            for name in ("docker", "h11", "h2", "grpcio", "testcontainers")
        ),
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


def write(page: Path, text: str) -> None:
    """Replace what stands between the two comments of a page."""
    page.write_text(replaced(page.read_text(), text))


def replaced(page: str, text: str) -> str:
    """The page with another text between the two comments.

    Raises:
        SystemExit: It does not have them, once each and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"the page has no {BEGIN} with an {END} after it")
    return f"{before}{BEGIN}\n{text}{END}{after}"
