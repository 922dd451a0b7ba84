"""Kills runs at random moments, and counts what is left ten seconds later: `make soak`, or `make soak ARGS=20`.

Killed are the run alone, with its process group, or with its watchdog; and the sidecar under a run that goes on.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter

import docker

from pytest_egress import Egress
from tests.test_death import GUEST, TARGET, Run, containers, is_gone

IMAGE = "pytest-egress-test/bare:latest"
KILLS = 100
LONGEST = 1.2  # seconds after the first contact: a start takes a quarter of one
ACTIONS = {
    "target": TARGET,
    "read-only": "egress.start({image!r}, ['sleep', '600'], read_only=True)",
    "guest": GUEST,
    "three": TARGET + "; " + TARGET + "; " + TARGET,
}


def kill_run(run: Run, client: docker.DockerClient) -> None:
    run.kill()


def kill_group(run: Run, client: docker.DockerClient) -> None:
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()


def kill_with_watchdog(run: Run, client: docker.DockerClient) -> None:
    """The next run then removes what is left."""
    os.kill(run.watchdog, signal.SIGKILL)
    run.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(
        "sidecar" in n for n in containers(client, run.session)
    ):
        time.sleep(0.05)
    with Egress() as egress:
        egress.session.engine.client.ping()


def kill_sidecar(run: Run, client: docker.DockerClient) -> None:
    """The run goes on, and is told; then it is killed too."""
    for name in containers(client, run.session):
        if "sidecar" in name:
            try:
                client.api.kill(name.strip("/"))
            except docker.errors.APIError:
                continue
    time.sleep(0.2)
    run.kill()


WAYS = (kill_run, kill_group, kill_with_watchdog, kill_sidecar)


def main(kills: int) -> int:
    """Return the number of kills that left something."""
    client, chance = docker.from_env(), random.Random(kills)
    done: Counter[str] = Counter()
    left = 0
    for number in range(kills):
        action, way = chance.choice(list(ACTIONS)), chance.choice(WAYS)
        run = Run(ACTIONS[action].format(image=IMAGE))
        time.sleep(chance.uniform(0, LONGEST))
        way(run, client)
        gone = is_gone(client, run)
        run.close()
        done[f"{way.__name__} of {action}"] += 1
        if not gone:
            left += 1
            print(f"{number}: {way.__name__} of {action} left {containers(client, run.session)}")
    client.close()
    for what, count in sorted(done.items()):
        print(f"{count:4}  {what}")
    print(f"{kills} kills, {left} left something")
    return left


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS) else 0)
