"""Kills runs of pytest at random moments, and counts what is left ten seconds later: `make soak ARGS=20`.

Killed are pytest itself (under pytest-xdist the controller or a worker), its process group, pytest with its watchdogs,
so that only the next run can clean up, and a sidecar under a run that goes on. A seed repeats the choices:
`make soak ARGS="20 7"`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import docker
from docker.errors import APIError

from pytest_egress import Egress
from pytest_egress.engine.folder import PREFIX
from pytest_egress.targets.sidecars.provision import LINK_VARIABLE
from tests.support.leftovers import Witness, containers, is_alive, until, watchdogs

IMAGE = "pytest-egress-test/clients:latest"
KILLS = 100
SECONDS = 10.0  # after which what is left is counted
LONGEST = 120.0  # seconds of a run, on however slow a machine
WORKERS = ("0", "2")
VICTIMS = ("pytest", "group", "pytest and watchdogs", "worker", "sidecar")

CONFTEST = """
import os, pathlib, pytest
HERE = pathlib.Path(__file__).parent

def write(name, text):
    with open(HERE / name, "a") as file:
        file.write(text + "\\n")

def pytest_collection():
    write("moments", "collection")

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    write("moments", "set-up")

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    write("moments", "requests")

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item):
    write("moments", "teardown")

def pytest_sessionfinish():
    write("moments", "end")

@pytest.fixture(autouse=True, scope="session")
def said(session_egress):
    write("sessions", f"{os.getpid()} {session_egress._inner.session.engine.labels['org.pytest-egress.session']}")
"""
INI = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
TESTS = """
import os, time, pytest
IMAGE = {image!r}
CURL = "curl -sS --max-time 5 https://api.test/"

@pytest.fixture(scope="module")
def shop(module_egress):
    return module_egress.start(IMAGE, ["sleep", "600"], volumes=["/data"])

def test_a_child_that_lives_on(egress, shop):
    if os.fork() == 0:
        time.sleep(12)
        os._exit(0)
    egress.intercept_https("api.test", {{"id": 1}})
    assert shop.exec(CURL).exit_code == 0

@pytest.mark.parametrize("number", range(4))
def test_a_shared_container(egress, shop, number):
    route = egress.intercept_https("api.test", {{"id": 1}})
    for _ in range(3):
        assert shop.exec(CURL).exit_code == 0
    assert route.call_count == 3

@pytest.mark.parametrize("number", range(4))
def test_a_container_of_its_own(egress, number):
    egress.intercept_https("api.test", {{"id": 1}})
    egress.run(IMAGE, CURL, volumes=["/data"])

def test_a_root_that_is_read_only(egress):
    egress.intercept_https("api.test", {{"id": 1}})
    egress.run(IMAGE, CURL, read_only=True)

def test_a_guest(egress):
    egress.docker_options(IMAGE)

"""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is run."""

    link: str
    workers: str

    def __str__(self) -> str:
        return f"{self.link}, {self.workers} workers" if self.workers != "0" else self.link


class SoakedRun:
    """One run of pytest, in a folder of its own."""

    def __init__(self, kind: Kind) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="soak-"))
        self.temporary = self.folder / "temporary"
        self.temporary.mkdir()
        (self.folder / "conftest.py").write_text(CONFTEST)
        (self.folder / "test_inside.py").write_text(textwrap.dedent(TESTS.format(image=IMAGE)))
        (self.folder / "pytest.ini").write_text(INI)
        options = ["-q", "-p", "no:cacheprovider", "-n", kind.workers]
        with open(self.folder / "output", "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, str(self.folder)],
                cwd=self.folder,
                env={**os.environ, LINK_VARIABLE: kind.link, "TMPDIR": str(self.temporary)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def sessions(self) -> dict[str, int]:
        """The label of each of its sessions, and whose it is."""
        pairs = (line.split() for line in self.lines("sessions"))
        return {session: int(pid) for pid, session in pairs}

    def moment(self) -> str:
        return (self.lines("moments") or ["start of pytest"])[-1]

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def left(self, witness: Witness) -> list[str]:
        found = [what for session in self.sessions() for what in witness.left(session)]
        return found + [f"folder {path.name}" for path in self.temporary.glob(f"{PREFIX}*")]

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder)


class Soak:
    """The kills, and what came of them."""

    def __init__(self, client: docker.DockerClient, chance: random.Random) -> None:
        self.client, self.chance = client, chance
        self.lengths: dict[Kind, float] = {}
        self.done: Counter[str] = Counter()
        self.moments: Counter[str] = Counter()
        self.left, self.broken = 0, 0
        self.slowest = 0.0

    def measure(self, kind: Kind) -> None:
        """How long a run takes that nobody disturbs; it must pass."""
        with running(kind) as run:
            began = time.monotonic()
            code = run.process.wait(LONGEST)
            self.lengths[kind] = time.monotonic() - began
            assert code == 0, run.output()
            print(f"{kind}: {self.lengths[kind]:.1f} s undisturbed", flush=True)

    def kill_one(self, witness: Witness) -> None:
        kind = self.chance.choice(list(self.lengths))
        victim = self.chance.choice([v for v in VICTIMS if v != "worker" or kind.workers != "0"])
        with running(kind) as run:
            time.sleep(self.chance.uniform(0, self.lengths[kind]))
            moment = run.moment()
            victim = self._kill(run, victim)
            left, problems = self._judge(run, victim, witness)
            self.done[f"{kind}: {victim}"] += 1
            self.moments[moment] += 1
            self.left += bool(left)
            self.broken += bool(problems)
            if left or problems:
                said = f"{sum(self.done.values())}: {kind}: {victim} at {moment}"
                print(said, *left, *problems, run.output()[-3000:], sep="\n", flush=True)

    def _kill(self, run: SoakedRun, victim: str) -> str:
        """Kill it; what has been killed, since there may be none of it at this moment."""
        if victim == "sidecar" and self._kill_sidecar(run):
            return victim
        workers = [pid for pid in run.sessions().values() if pid != run.process.pid]
        if victim == "worker" and (alive := [pid for pid in workers if is_alive(pid)]):
            os.kill(self.chance.choice(alive), signal.SIGKILL)
            return victim
        if victim == "pytest and watchdogs":
            run.process.send_signal(signal.SIGSTOP)  # it makes no more of them meanwhile
            for pid in [*workers, *(int(p) for s in run.sessions() for p in watchdogs(s))]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif victim == "group":
            os.killpg(run.process.pid, signal.SIGKILL)
        elif victim != "pytest":
            victim = "pytest"
        run.process.kill()
        return victim

    def _kill_sidecar(self, run: SoakedRun) -> bool:
        names = [name for session in run.sessions() for name in containers(self.client, session)]
        sidecars = [name.strip("/") for name in names if "sidecar" in name]
        try:
            self.client.api.kill(self.chance.choice(sidecars))
        except (APIError, IndexError):  # it ends just now, or there is none
            return False
        return True

    def _judge(self, run: SoakedRun, victim: str, witness: Witness) -> tuple[list[str], list[str]]:
        """What is left afterwards, and what else is wrong, as sentences."""
        problems: list[str] = []
        if victim in ("worker", "sidecar"):
            problems = judge_end(run)
        began = time.monotonic()
        if victim == "pytest and watchdogs":
            until(lambda: not any("sidecar" in what for what in run.left(witness)), 3)
            sweep(run.temporary)
        gone = until(lambda: not run.left(witness), SECONDS)
        self.slowest = max(self.slowest, time.monotonic() - began)
        return [] if gone else run.left(witness), problems

    def summary(self) -> str:
        rows = [f"{count:5}  {what}" for what, count in sorted(self.done.items())]
        moments = ", ".join(f"{what} {count}" for what, count in self.moments.most_common())
        kills = f"{sum(self.done.values())} kills: {self.left} left something"
        broken = f"{self.broken} broke a run that should have gone on"
        slowest = f"all was gone after at most {self.slowest:.1f} s"
        return "\n".join([*rows, f"at {moments}", f"{kills}, {broken}; {slowest}"])


@contextlib.contextmanager
def running(kind: Kind) -> Iterator[SoakedRun]:
    run = SoakedRun(kind)
    try:
        yield run
    finally:
        run.close()


def sweep(temporary: Path) -> None:
    """Make the first contact of another run, which has the same folder for temporary files."""
    before, tempfile.tempdir = tempfile.tempdir, str(temporary)
    try:
        with Egress() as egress:
            egress._inner.session.engine.client.ping()
    finally:
        tempfile.tempdir = before


def judge_end(run: SoakedRun) -> list[str]:
    """Whether a run that has lost something goes on to its end, as sentences where not."""
    try:
        code = run.process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        return ["the run did not go on to its end"]
    output = run.output()
    problems = [] if code in (0, 1) else [f"pytest exited with code {code}"]
    all_lost = "its sidecar was lost" in output  # that of the container which all share
    if " passed" not in output.splitlines()[-1] and not all_lost:
        problems.append("no test passed")
    if "INTERNALERROR" in output:
        problems.append("pytest broke")
    return problems


def main() -> int:
    """Return the number of kills that left something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", nargs="?", type=int, default=KILLS)
    parser.add_argument("seed", nargs="?", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"{options.kills} kills, seed {options.seed}", flush=True)
    client = docker.from_env()
    witness = Witness(docker.from_env())
    soak = Soak(client, random.Random(options.seed))
    for link in ("descriptor", "stream"):
        for workers in WORKERS:
            soak.measure(Kind(link, workers))
    for _ in range(options.kills):
        soak.kill_one(witness)
    print(soak.summary())
    witness.close()
    client.close()
    return soak.left + soak.broken


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
