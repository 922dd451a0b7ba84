"""What is left of a run that is killed: nothing, whatever was killed with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from pytest_egress import Egress
from pytest_egress.engine.folder import LOCK_NAME, RunFolder
from pytest_egress.engine.leftovers import (
    FILLED,
    SESSION_LABEL,
    is_removed,
    remove_containers,
    remove_orphans,
)
from tests.support.killed_runs import LINKS, READ_ONLY, TARGET, KilledRun, assert_nothing_is_left
from tests.support.leftovers import Witness, containers, identity, is_alive, running, until

pytestmark = (
    pytest.mark.one_link
)  # a killed run has a link that its test names, or the one of its own choice

GUEST = "egress.docker_options({image!r})"
FORKED = (
    TARGET
    + """
    child = os.fork()
    if child == 0:
        time.sleep(600)
    print(child, flush=True)
"""
)
ACTIONS = {"target": TARGET, "read-only": READ_ONLY, "guest": GUEST}


@pytest.fixture
def run(bare_image: str) -> Iterator[Callable[..., KilledRun]]:
    runs: list[KilledRun] = []

    def run(action: str, link: str = "auto") -> KilledRun:
        runs.append(KilledRun(action.format(image=bare_image), link))
        return runs[-1]

    yield run
    for each in runs:
        each.close()


def kinds(killed: KilledRun, witness: Witness) -> set[str]:
    return {what.split()[0] for what in killed.left(witness)}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_nothing_is_left_of_a_run_that_was_killed(
    run: Callable[..., KilledRun], witness: Witness, action: str, link: str
) -> None:
    killed = run(action, link)
    assert killed.line() == "up"
    own = {TARGET: {"volume"}, READ_ONLY: {"image"}}.get(action, set())
    made = {"container", "namespace", "watchdog", "folder"} | own
    assert until(lambda: kinds(killed, witness) >= made)  # the witness hears of it by events
    assert kinds(killed, witness) == made
    killed.kill()
    assert_nothing_is_left(witness, killed)


@pytest.mark.parametrize("link", LINKS)
def test_nothing_is_left_while_a_child_that_the_run_forked_lives_on(
    run: Callable[..., KilledRun], witness: Witness, link: str
) -> None:
    killed = run(FORKED, link)
    child = int(killed.line())
    assert killed.line() == "up"
    killed.kill()
    assert_nothing_is_left(witness, killed)
    assert is_alive(child)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
@pytest.mark.parametrize(
    ("action", "link"),
    [(TARGET, "descriptor"), (READ_ONLY, "descriptor"), (TARGET, "stream")],
    ids=["plain", "read-only", "stream"],
)
def test_nothing_is_left_of_a_run_that_was_killed_within_a_start(
    run: Callable[..., KilledRun], witness: Witness, after: float, action: str, link: str
) -> None:
    killed = run(action, link)
    time.sleep(after)
    killed.kill()
    assert_nothing_is_left(witness, killed)


def test_nothing_is_left_when_the_whole_process_group_was_killed(
    run: Callable[..., KilledRun], witness: Witness
) -> None:
    killed = run(TARGET)
    assert killed.line() == "up"
    os.killpg(killed.process.pid, signal.SIGKILL)
    killed.process.wait()
    assert_nothing_is_left(witness, killed)


@pytest.mark.parametrize(
    ("action", "link"),
    [(TARGET, "descriptor"), (READ_ONLY, "descriptor"), (TARGET, "stream")],
    ids=["plain", "read-only", "stream"],
)
def test_the_next_run_removes_what_was_left_when_the_watchdog_was_killed_too(
    run: Callable[..., KilledRun],
    engine_client: docker.DockerClient,
    witness: Witness,
    action: str,
    link: str,
) -> None:
    killed = run(action, link)
    assert killed.line() == "up"
    os.kill(killed.watchdog, signal.SIGKILL)
    killed.kill()
    # The sidecar ends; another worker's run may have removed the target since.
    assert until(lambda: len(running(engine_client, killed.session)) <= 1)
    with Egress() as egress:
        egress._inner.session.engine.client.ping()
        assert_nothing_is_left(witness, killed)


def test_the_next_run_leaves_alone_what_lives_and_what_was_kept(
    run: Callable[..., KilledRun], engine_client: docker.DockerClient, bare_image: str
) -> None:
    living = run(TARGET)
    assert living.line() == "up"
    kept = engine_client.containers.create(
        bare_image,
        network_mode="none",
        **identity("a run that is over", "/of/another/machine", kept=True),
    )
    try:
        before = containers(engine_client, living.session)
        assert kept.id not in remove_orphans(engine_client)
        assert containers(engine_client, living.session) == before
        assert len(before) == 2
    finally:
        kept.remove(force=True)


def test_the_next_run_leaves_alone_what_lives_on_another_machine(
    engine_client: docker.DockerClient, bare_image: str
) -> None:
    session = uuid.uuid4().hex

    def make(command: list[str], network: str) -> str:
        own = identity(session, "/of/another/machine")
        made = engine_client.containers.create(bare_image, command, network_mode=network, **own)
        made.start()
        return str(made.id)

    sidecar = make(["sleep", "600"], "none")
    targets = [make(command, f"container:{sidecar}") for command in (["sleep", "600"], ["true"])]
    try:
        engine_client.api.wait(targets[1])
        assert {sidecar, *targets}.isdisjoint(remove_orphans(engine_client))
        assert len(containers(engine_client, session)) == 3
        engine_client.api.kill(sidecar)
        engine_client.api.wait(sidecar)
        remove_orphans(engine_client)
        assert until(lambda: not containers(engine_client, session))
    finally:
        remove_containers(engine_client.api, [*targets, sidecar])


def test_the_next_run_leaves_a_living_run_its_target_when_the_sidecar_has_gone(
    run: Callable[..., KilledRun], engine_client: docker.DockerClient
) -> None:
    living = run(TARGET)
    assert living.line() == "up"
    target, sidecar = sorted(running(engine_client, living.session), key=lambda n: "sidecar" in n)
    engine_client.api.kill(sidecar.strip("/"))
    assert until(lambda: running(engine_client, living.session) == [target])
    remove_orphans(engine_client)
    assert running(engine_client, living.session) == [target]


def test_the_next_run_leaves_a_living_run_an_image_that_no_container_uses_yet(
    engine_client: docker.DockerClient, bare_image: str
) -> None:
    folder = RunFolder()
    session = uuid.uuid4().hex
    container = engine_client.containers.create(
        bare_image, network_mode="none", **identity(session, folder.path)
    )
    image = str(container.commit(repository=FILLED, tag=session).id)
    container.remove()
    found = {"label": f"{SESSION_LABEL}={session}"}
    try:
        remove_orphans(engine_client)
        assert [each["Id"] for each in engine_client.api.images(filters=found)] == [image]
    finally:
        folder.remove()
    remove_orphans(engine_client)
    assert engine_client.api.images(filters=found) == []


def test_the_next_run_removes_at_once_what_a_dead_run_had_only_created(
    engine_client: docker.DockerClient, bare_image: str, tmp_path: Path
) -> None:
    (tmp_path / LOCK_NAME).touch()  # and nobody holds it
    session = uuid.uuid4().hex
    engine_client.containers.create(
        bare_image, network_mode="none", **identity(session, str(tmp_path))
    )
    remove_orphans(engine_client)
    assert until(lambda: not containers(engine_client, session))


def test_what_is_created_while_its_sidecar_is_removed_goes_with_the_next_run(
    engine_client: docker.DockerClient, bare_image: str, tmp_path: Path
) -> None:
    (tmp_path / LOCK_NAME).touch()
    session, folder = uuid.uuid4().hex, str(tmp_path)
    for wait in (0.0, 0.05, 0.1, 0.2):  # while Podman stops it, cleans up after it, removes it
        sidecar = engine_client.containers.run(
            bare_image,
            ["sleep", "600"],
            network_mode="none",
            detach=True,
            **identity(session, folder),
        )
        with ThreadPoolExecutor() as pool:
            pool.submit(is_removed, engine_client.api, str(sidecar.id))
            time.sleep(wait)
            with contextlib.suppress(docker.errors.APIError):  # it has gone
                mode = f"container:{sidecar.id}"
                engine_client.containers.create(
                    bare_image, network_mode=mode, **identity(session, folder)
                )
    remove_orphans(engine_client)
    assert until(lambda: not containers(engine_client, session))


def test_a_run_that_ends_well_dismisses_its_watchdog(bare_image: str) -> None:
    with Egress() as egress:
        egress.run(bare_image, ["true"])
        engine = egress._inner.session.engine
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
            process = egress._inner.session.engine.client and egress._inner.session.engine._watchdog._process
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


@pytest.mark.plugins("xdist")
def test_a_worker_of_xdist_that_is_killed_fails_its_test_and_no_other(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, witness: Witness, bare_image: str
) -> None:
    temporary = pytester.mkdir("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makeconftest("""
        import pytest
        @pytest.fixture(autouse=True, scope="session")
        def said(session_egress):
            with open("sessions", "a") as file:
                file.write(session_egress._inner.session.engine.labels["org.pytest-egress.session"] + "\\n")
    """)
    pytester.makepyfile(f"""
        import os, pytest
        @pytest.mark.parametrize("number", range(6))
        def test_it(egress, number):
            egress.start({bare_image!r}, ["sleep", "600"], volumes=["/data"])
            if number == 1:
                os.kill(os.getpid(), 9)
    """)
    result = pytester.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.re_match_lines([r"worker 'gw\d' crashed while running '.*test_it\[1\]'"])
    sessions = (pytester.path / "sessions").read_text().split()
    assert len(sessions) >= 2
    assert all(witness.made[session] for session in sessions)
    assert until(lambda: not any(any(witness.found(session)) for session in sessions))
    assert list(temporary.glob("pytest-egress-*")) == []
