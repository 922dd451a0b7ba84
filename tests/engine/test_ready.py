"""Sidecars that are started ahead of their targets."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from pytest_egress import Egress, LinkError
from pytest_egress.session import Session
from pytest_egress.targets.sidecars.sidecar import Sidecar
from tests.support.killed_runs import LINKS, KilledRun, assert_nothing_is_left
from tests.support.leftovers import Witness, until
from tests.support.target_shell import wait_until_gone

SLEEP = ["sleep", "600"]


@pytest.fixture
def session() -> Iterator[Session]:
    """A session of which each container is followed by another, and has a sidecar of its own."""
    session = Session(sidecar_reuse=False)
    session.sidecars.expects_more = lambda: True
    yield session
    session.close()


def sidecar_of(client: docker.DockerClient, target: Any) -> str:
    mode: str = client.api.inspect_container(target.id)["HostConfig"]["NetworkMode"]
    return mode.partition(":")[2]


def waiting(session: Session) -> Sidecar:
    """The sidecar that waits, once it is ready."""
    ready = session.sidecars._waiting
    assert ready is not None
    sidecar = ready.join()
    assert sidecar is not None
    return sidecar


def test_a_container_gets_the_sidecar_that_is_ready_unless_it_has_a_name_of_its_own(
    session: Session, engine_client: docker.DockerClient, clients_image: str
) -> None:
    with Egress(session=session) as egress:
        egress.intercept_https("api.test", {"id": 1})
        egress.start(clients_image, SLEEP)
        ready = waiting(session)
        named = egress.start(clients_image, SLEEP, hostname="shop")
        assert sidecar_of(engine_client, named) != ready.id
        assert waiting(session) is ready
        target = egress.start(clients_image, SLEEP)
        assert sidecar_of(engine_client, target) == ready.id
        assert target.exec("hostname").stdout.strip() == ready.hostname
        asked = f"getent hosts {ready.hostname}"
        assert target.exec(asked).stdout.startswith("10.213.0.2")
        for each in (named, target):
            assert '"id"' in each.exec("curl -sS https://api.test/").stdout
        last = waiting(session)
    wait_until_gone(engine_client, last.id)


def test_one_that_has_ended_before_it_is_needed_is_replaced(
    session: Session, engine_client: docker.DockerClient, bare_image: str
) -> None:
    with Egress(session=session) as egress:
        egress.run(bare_image, ["true"])
        ready = waiting(session)
        engine_client.api.kill(ready.id)
        assert until(lambda: not engine_client.api.containers(filters={"id": ready.id}))  # running
        target = egress.start(bare_image, SLEEP)
        assert sidecar_of(engine_client, target) != ready.id
        assert target.exec(["true"]).exit_code == 0
        target.stop(timeout=0)  # it is not taken for one that is ending
        assert target.wait().exit_code != 0


@pytest.mark.parametrize("phase", ["_create", "start"])
def test_what_fails_ahead_is_silent_and_raised_where_it_fails_again(
    session: Session, bare_image: str, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    failures = 1

    def fail(*args: Any, **options: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise LinkError("the sidecar broke")
        return real(*args, **options)

    with Egress(session=session) as egress:
        egress.run(bare_image, ["true"])
        session.sidecars.close()
        real = getattr(Sidecar, phase)
        monkeypatch.setattr(Sidecar, phase, fail)
        session.sidecars.prepare()
        egress.run(bare_image, ["true"])
        assert failures < 0
        session.sidecars.close()
        failures = 2
        session.sidecars.prepare()
        with pytest.raises(LinkError, match="the sidecar broke"):
            egress.run(bare_image, ["true"])


def test_an_end_that_fails_leaves_no_sidecar(
    session: Session, engine_client: docker.DockerClient, bare_image: str
) -> None:
    egress = Egress(session=session)
    egress.start(bare_image, SLEEP)
    ready = waiting(session)

    def fail(keep: bool = False) -> None:
        raise ZeroDivisionError

    egress._inner.close = fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        session.close()
    wait_until_gone(engine_client, ready.id)
    assert ready.link is not None
    assert ready.link.channel.fileno() == -1
    del egress._inner.close
    egress.close()
    gc.collect()


def test_a_forked_child_keeps_none_alive(
    session: Session, engine_client: docker.DockerClient, bare_image: str
) -> None:
    with Egress(session=session) as egress:
        egress.run(bare_image, ["true"])
        ready = waiting(session)
        over, tell = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside threads
            child = os.fork()
        if child == 0:
            os.close(tell)
            os.read(over, 1)
            os._exit(0)
    wait_until_gone(engine_client, ready.id)
    for end in (tell, over):
        os.close(end)
    os.waitpid(child, 0)


@pytest.mark.parametrize("link", LINKS)
def test_a_run_that_is_killed_leaves_none(witness: Witness, link: str) -> None:
    ready = """
    egress._inner.session.sidecars.prepare()
    egress._inner.session.sidecars._waiting.link()
"""
    with contextlib.closing(KilledRun(ready, link)) as run:
        assert run.line() == "up"
        run.kill()
        assert_nothing_is_left(witness, run)


COUNTING = """
import json, pytest
from pytest_egress.targets.sidecars.sidecar import Sidecar

made = []
create = Sidecar._create

def count(self, *args):
    create(self, *args)
    made.append(self.id)

Sidecar._create = count

def pytest_sessionfinish(session):
    worker = getattr(session.config, "workerinput", {}).get("workerid", "")
    with open(f"made{worker}.json", "w") as file:
        json.dump(made, file)
"""


@pytest.mark.plugins("xdist")
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
@pytest.mark.parametrize("reuse", ["on", "off"])
def test_a_run_of_pytest_starts_no_more_than_it_has_containers(
    pytester: pytest.Pytester, bare_image: str, is_podman: bool, workers: str, reuse: str
) -> None:
    pytester.makeconftest(COUNTING)
    pytester.makepyfile(f"""
    import pytest
    @pytest.mark.parametrize("n", range(4))
    def test_a(egress, n):
        egress.run({bare_image!r}, ["true"])
    def test_b(): pass
    """)
    option = f"--egress-sidecar-reuse={reuse}"
    result = pytester.runpytest_subprocess("-pno:cacheprovider", "-Wignore", workers, option)
    result.assert_outcomes(passed=5)
    made = [json.loads(path.read_text()) for path in pytester.path.glob("made*.json")]
    if reuse == "off" or is_podman or os.environ.get("PYTEST_EGRESS_LINK") == "stream":
        assert sum(map(len, made)) == 4
    else:  # a worker's sidecar serves one container after the other
        assert {*map(len, made)} <= {0, 1}


def test_a_test_that_does_not_use_egress_sees_nothing_of_what_is_prepared(
    pytester: pytest.Pytester, bare_image: str
) -> None:
    pytester.makepyfile(f"""
    import logging, threading, time
    import pytest

    def assert_alone(caplog):
        caplog.set_level(logging.DEBUG)
        assert "egress sidecar" not in [thread.name for thread in threading.enumerate()]
        time.sleep(0.5)
        assert caplog.messages == []

    def test_before(caplog): assert_alone(caplog)
    def test_a(egress): egress.run({bare_image!r}, ["true"])
    def test_between(caplog): assert_alone(caplog)
    def test_b(egress): egress.run({bare_image!r}, ["true"])
    """)
    result = pytester.runpytest_subprocess("-pno:cacheprovider", "-Wignore")
    result.assert_outcomes(passed=4)
