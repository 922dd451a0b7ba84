"""What is left of a run that is killed: nothing, ten seconds later, whatever was killed with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from pytest_egress import Egress
from pytest_egress.engine import KEPT, SESSION_LABEL, remove_orphans

SECONDS = 10.0

RUN = """
import os, sys, threading, time
from pytest_egress import Egress
with Egress() as egress:
    egress.session.engine.client
    print(egress.session.engine.labels["org.pytest-egress.session"], flush=True)
    print(egress.session.engine.folder, flush=True)
    print(egress.session.engine._watchdog._process.pid, flush=True)
    {action}
    print("up", flush=True)
    time.sleep(600)
"""
TARGET = "egress.start({image!r}, ['sleep', '600'])"
GUEST = "egress.docker_options({image!r})"
FORKED = (
    TARGET
    + """
    if os.fork() == 0:
        time.sleep(600)
"""
)


class Run:
    """A run in a process of its own, as far as it has got."""

    def __init__(self, action: str) -> None:
        code = RUN.format(action=action)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        self.session, self.folder, watchdog = (self.line() for _ in range(3))
        self.watchdog = int(watchdog)

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "it ended"
        return line

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def run(bare_image: str) -> Iterator[Callable[[str], Run]]:
    runs: list[Run] = []

    def run(action: str) -> Run:
        runs.append(Run(action.format(image=bare_image)))
        return runs[-1]

    yield run
    for each in runs:
        each.close()


def containers(client: docker.DockerClient, session: str) -> list[str]:
    """The names of the containers of a run, whatever their state."""
    listed = client.api.containers(all=True, filters={"label": f"{SESSION_LABEL}={session}"})
    return [name for container in listed for name in container["Names"]]


def images(client: docker.DockerClient, session: str) -> list[str]:
    listed = client.api.images(filters={"label": f"{SESSION_LABEL}={session}"})
    return [image["Id"] for image in listed]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def is_gone(client: docker.DockerClient, run: Run) -> bool:
    """Whether nothing is left, within the time that the engine needs."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        left = containers(client, run.session) + images(client, run.session)
        if not left and not Path(run.folder).exists() and not is_alive(run.watchdog):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("action", [TARGET, GUEST, FORKED], ids=["target", "guest", "forked"])
def test_nothing_is_left_of_a_run_that_was_killed(
    run: Callable[[str], Run], engine_client: docker.DockerClient, action: str
) -> None:
    killed = run(action)
    assert killed.line() == "up"
    assert containers(engine_client, killed.session)
    killed.kill()
    assert is_gone(engine_client, killed)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
@pytest.mark.parametrize("options", ["", ", read_only=True"], ids=["plain", "read-only"])
def test_nothing_is_left_of_a_run_that_was_killed_within_a_start(
    run: Callable[[str], Run], engine_client: docker.DockerClient, after: float, options: str
) -> None:
    killed = run(f"egress.start({{image!r}}, ['sleep', '600']{options})")
    time.sleep(after)
    killed.kill()
    assert is_gone(engine_client, killed)


def test_nothing_is_left_when_the_whole_process_group_was_killed(
    run: Callable[[str], Run], engine_client: docker.DockerClient
) -> None:
    killed = run(TARGET)
    assert killed.line() == "up"
    os.killpg(killed.process.pid, signal.SIGKILL)
    killed.process.wait()
    assert is_gone(engine_client, killed)


@pytest.mark.parametrize("options", ["", ", read_only=True"], ids=["plain", "read-only"])
def test_the_next_run_removes_what_was_left_when_the_watchdog_was_killed_too(
    run: Callable[[str], Run], engine_client: docker.DockerClient, options: str
) -> None:
    killed = run(f"egress.start({{image!r}}, ['sleep', '600']{options})")
    assert killed.line() == "up"
    os.kill(killed.watchdog, signal.SIGKILL)
    killed.kill()
    deadline = time.monotonic() + SECONDS
    while len(containers(engine_client, killed.session)) > 1:  # the sidecar ends by itself
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with Egress() as egress:
        egress.session.engine.client.ping()
        assert is_gone(engine_client, killed)


def test_the_next_run_leaves_alone_what_lives_and_what_was_kept(
    run: Callable[[str], Run], engine_client: docker.DockerClient, bare_image: str
) -> None:
    living = run(TARGET)
    assert living.line() == "up"
    kept = engine_client.containers.create(
        bare_image,
        name=f"{KEPT}{os.getpid()}",
        network_mode="none",
        labels={SESSION_LABEL: "a run that is over"},
    )
    try:
        before = containers(engine_client, living.session)
        assert kept.id not in remove_orphans(engine_client)
        assert containers(engine_client, living.session) == before
        assert len(before) == 2
    finally:
        kept.remove(force=True)


def test_a_run_that_ends_well_dismisses_its_watchdog(bare_image: str) -> None:
    with Egress() as egress:
        egress.run(bare_image, ["true"])
        engine = egress.session.engine
        assert engine._watchdog is not None
        pid, folder = engine._watchdog._process.pid, engine.folder
        assert is_alive(pid)
    assert not is_alive(pid)
    assert not Path(folder).exists()


def test_a_forked_child_does_not_keep_the_watchdog_waiting(bare_image: str) -> None:
    code = textwrap.dedent("""
        import os, sys, time
        from pytest_egress import Egress
        with Egress() as egress:
            process = egress.session.engine.client and egress.session.engine._watchdog._process
            if os.fork() == 0:
                time.sleep(60)
            process.stdin.close()
            print(process.wait(10))
            os._exit(0)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as done:
        assert done.stdout is not None
        assert done.stdout.readline() == "0\n"
        os.killpg(done.pid, signal.SIGKILL)
