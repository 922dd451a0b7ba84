"""What dies under a run that goes on: its sidecar, its target, its engine, the room on its disk, its sleep.

In each case the right test fails and says why, the next one passes, and nothing is left of either.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from pytest_egress import Egress
from pytest_egress.engine.leftovers import ENDED
from pytest_egress.session import Session
from pytest_egress.targets.sidecars.provision import LINK_VARIABLE
from tests.support.engines import OwnEngine, PrivateEngine
from tests.support.inner_runs import only_plugins
from tests.support.leftovers import Witness, running, until, watchdogs

LINKS = ("descriptor", "stream")
LOST = {
    "descriptor": "it has ended",
    "stream": "it has ended, or the engine's stream to it was closed on the way",
}
RUN_SECONDS = 120.0  # of a run of pytest inside, on however slow a machine

# docker-py leaves its socket open where a connection is refused. Runs inside look at what they leave themselves.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

CONFTEST = """
import gc, os, pathlib, sys, threading, time
import pytest

IMAGE = {image!r}
HERE = pathlib.Path(__file__).parent
CURL = "curl -sS --max-time 10 https://api.test/"

class Engine:
    '''What befalls containers, from outside.'''

    def __init__(self, client):
        self.client, self.api = client, client.api

    def sidecar(self, container):
        return self.sidecar_of(container.id)

    def sidecar_of(self, target):
        mode = self.api.inspect_container(target)["HostConfig"]["NetworkMode"]
        return mode.partition(":")[2]

    def pid(self, container):
        return self.api.inspect_container(container)["State"]["Pid"]

    def ids(self, egress):
        '''Of targets alone.'''
        (label,) = ("=".join(each) for each in egress._inner.session.engine.labels.items())
        found = self.api.containers(all=True, filters={{"label": label}})
        return [c["Id"] for c in found if not any("sidecar" in n for n in c["Names"])]

    def wait_until_gone(self, container):
        # It runs no more: Podman keeps what has ended as long as its target is there.
        until(lambda: not self.api.containers(filters={{"id": container}}))

@pytest.fixture
def engine(egress_docker_client):
    return Engine(egress_docker_client)

def until(condition):
    deadline = time.monotonic() + {seconds}
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

def say(name, text=""):
    (HERE / "new").write_text(text)
    (HERE / "new").rename(HERE / name)

@pytest.fixture(autouse=True, scope="session")
def said(session_egress):
    say("session", session_egress._inner.session.engine.labels["org.pytest-egress.session"])

def descriptors():
    found = {{}}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{{number}}")
        except FileNotFoundError:
            pass
    return found

def pytest_sessionstart(session):
    session.config.before = descriptors(), {{t.name for t in threading.enumerate()}}

def pytest_unconfigure(config):
    for name in ("last_exc", "last_value", "last_traceback"):  # of the last failure, with its frames
        vars(sys).pop(name, None)
    gc.collect()
    opened, threads = config.before
    left = [v for k, v in descriptors().items() if opened.get(k) != v]
    left += [t.name for t in threading.enumerate() if t.name not in threads]
    say("left", "\\n".join(left))
"""
NEXT = """
def test_the_next(egress):
    egress.intercept_https("api.test", {"id": 1})
    assert '"id"' in egress.run(IMAGE, CURL).stdout
"""


class Inside:
    """A run of pytest in a process of its own, whose second test must pass.

    Args:
        folder: Where it is.
        image: What its containers run.
        code: Its first test, and what that needs.
        link: Of its sidecars.
        environment: More of it.
    """

    def __init__(
        self, folder: Path, image: str, code: str, link: str, environment: dict[str, str]
    ) -> None:
        self.folder, self.temporary = folder, folder / "temporary"
        self.temporary.mkdir()
        (folder / "conftest.py").write_text(CONFTEST.format(image=image, seconds=RUN_SECONDS))
        (folder / "pytest.ini").write_text("[pytest]")
        following = "" if "test_the_next" in code else NEXT
        test = f"from conftest import *\n{textwrap.dedent(code)}\n{following}"
        (folder / "test_inside.py").write_text(test)
        with open(folder / "output", "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder)],
                cwd=folder,
                env={
                    **os.environ,
                    **only_plugins(),
                    LINK_VARIABLE: link,
                    "TMPDIR": str(self.temporary),
                    "COLUMNS": "200",
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def wait_for(self, name: str) -> None:
        """Wait until it has said so."""
        assert until(lambda: self.has(name) or self.process.poll() is not None, RUN_SECONDS)
        assert self.has(name), self.output()

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    @property
    def session(self) -> str:
        return (self.folder / "session").read_text()

    def left(self, witness: Witness) -> list[str]:
        return list(self.found(witness))

    def found(self, witness: Witness) -> Iterator[str]:
        yield from map(str, self.temporary.iterdir())
        yield from witness.found(self.session)

    def end(self, witness: Witness, *texts: str, outcome: str = "") -> str:
        """Wait for its end: the first test failed and the next passed; or, without a text, both passed.

        Args:
            texts: What the failure says.
            outcome: As the last line has it, where it is another.

        Returns:
            Its output.
        """
        self.process.wait(RUN_SECONDS)
        output = self.output()
        outcome = outcome or ("1 failed, 1 passed" if texts else "2 passed")
        assert f"{outcome} in" in output, output
        assert all(text in output for text in texts), output
        assert "INTERNALERROR" not in output, output
        assert (self.folder / "left").read_text() == "", output
        assert until(lambda: not any(self.found(witness))), self.left(witness)
        return output

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


StartInside = Callable[..., Inside]


@pytest.fixture
def inside(tmp_path: Path, clients_image: str) -> Iterator[StartInside]:
    opened: list[Inside] = []

    def inside(code: str, link: str = "auto", **environment: str) -> Inside:
        opened.append(Inside(tmp_path, clients_image, code, link, environment))
        return opened[-1]

    yield inside
    for each in opened:
        each.close()


# What one run outlives: the death of a sidecar, of the agent in it, and of targets, a test each.

DEATHS = """
        def lose(egress, engine, kill):
            egress.intercept_https("api.test", {"id": 1})
            target = egress.start(IMAGE, ["sleep", "600"], volumes=["/data"])
            assert target.exec(CURL).exit_code == 0
            sidecar = engine.sidecar(target)
            kill(sidecar)
            engine.wait_until_gone(sidecar)
            assert target.exec(CURL, check=False).exit_code != 0

        def test_sidecar(egress, engine):
            lose(egress, engine, engine.api.kill)

        def test_agent(egress, engine):
            lose(egress, engine, lambda sidecar: os.kill(engine.pid(sidecar), 9))

        def test_sidecar_beside(egress, engine):
            @egress.intercept_https("api.test")
            def kill(request):
                (target,) = engine.ids(egress)
                sidecar = engine.sidecar_of(target)
                engine.api.kill(sidecar)
                engine.wait_until_gone(sidecar)
                return {"id": 1}
            egress.run(IMAGE, f"sh -c '{CURL} && {CURL}'")

        @pytest.fixture(scope="class")
        def shop(class_egress):
            return class_egress.start(IMAGE, ["sleep", "600"])

        @pytest.fixture
        def killed(shop, request):
            yield
            engine = Engine(request.getfixturevalue("egress_docker_client"))
            sidecar = engine.sidecar(shop)
            engine.api.kill(sidecar)
            engine.wait_until_gone(sidecar)

        class TestShared:
            def test_before(self, egress_docker_client, egress, shop, killed):
                egress.assert_no_egress()

            def test_after(self, egress, shop):
                egress.assert_no_egress()

            def test_later(self, egress, shop):
                egress.assert_no_egress()

        def test_target(egress, engine):
            @egress.intercept_https("api.test")
            def kill(request):
                (target,) = engine.ids(egress)
                engine.api.kill(target)
                return {"id": 1}
            egress.run(IMAGE, CURL, volumes=["/data"])

        def test_restarted(egress, engine):
            from pytest_egress import http_ok
            route = egress.intercept_https("api.test", {"id": 1})
            serve = f"sh -c '{CURL}; exec python3 -m http.server 8000'"
            target = egress.start(IMAGE, serve, wait=http_ok(8000), volumes=["/data"])
            before, url = engine.pid(target.id), target.url(8000)
            namespace = os.readlink(f"/proc/{before}/ns/net")
            for count in (2, 3):
                engine.api.restart(target.id, timeout=0)
                target.become_ready([http_ok(8000)], 30)
                after = engine.pid(target.id)
                assert after != before
                assert os.readlink(f"/proc/{after}/ns/net") == namespace
                assert route.call_count == count
            assert target.exec(CURL).exit_code == 0
            assert route.call_count == 4
            import urllib.request
            assert urllib.request.urlopen(url, timeout=10).status == 200
            egress.assert_only("api.test")

        def test_restarted_unrouted(egress, engine):
            target = egress.start(IMAGE, ["sleep", "600"])
            engine.api.restart(target.id, timeout=0)
            target.exec(CURL)

        def pause(egress, engine):
            @egress.intercept_https("api.test")
            def pause(request):
                (target,) = engine.ids(egress)
                engine.api.pause(target)
                return {"id": 1}

        def test_paused(egress, engine):
            pause(egress, engine)
            egress.run(IMAGE, CURL, timeout=3, volumes=["/data"])

        def test_paused_before_it_is_ready(egress, engine):
            from pytest_egress import log_line
            pause(egress, engine)
            egress.start(IMAGE, CURL, wait=log_line("never"), timeout=3)

        def test_paused_before_a_command(egress, engine):
            target = egress.start(IMAGE, ["sleep", "600"])
            engine.api.pause(target.id)
            target.exec(CURL)
"""
OUTCOME = (
    "10 failed, 3 passed"  # each of these but those before a death and of a restart; and the next
)


@dataclass(frozen=True, kw_only=True)
class Deaths:
    """What such a run said: all of it, and of each test that failed by its name."""

    link: str
    output: str
    told: dict[str, str]


@pytest.fixture(scope="module", params=LINKS)
def deaths(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clients_image: str
) -> Deaths:
    """The run that outlives them all, of which nothing is left."""
    folder = tmp_path_factory.mktemp("deaths")
    with contextlib.closing(Witness(docker.from_env())) as witness:
        run = Inside(folder, clients_image, DEATHS, request.param, {})
        with contextlib.closing(run):
            output = run.end(witness, outcome=OUTCOME)
    _, *parts = re.split(r"(?m)^_{3,} ([\w.]+) _{3,}$", output.partition("= short test summary")[0])
    return Deaths(
        link=request.param, output=output, told=dict(zip(parts[::2], parts[1::2], strict=True))
    )


@pytest.mark.parametrize("what", ["sidecar", "agent"])
def test_a_sidecar_that_is_killed_fails_the_test(deaths: Deaths, what: str) -> None:
    lost = f"its sidecar was lost while it ran ({LOST[deaths.link]}); nothing it sent after that"
    assert lost in deaths.told[f"test_{what}"]


def test_a_sidecar_that_is_killed_is_told_of_beside_the_tests_own_failure(deaths: Deaths) -> None:
    told = deaths.told["test_sidecar_beside"]
    assert "CommandError: clients:latest exited with code" in told
    assert "its sidecar was lost while" in told


def test_without_its_sidecar_a_shared_container_fails_each_test_that_follows(
    deaths: Deaths,
) -> None:
    assert re.search(r"::test_after - clients:latest: its sidecar was", deaths.output)
    assert re.search(r"::test_later - clients:latest: its sidecar was", deaths.output)


def test_a_target_that_is_killed_has_the_exit_code_of_it(deaths: Deaths) -> None:
    told = deaths.told["test_target"]
    assert "CommandError: clients:latest exited with code 137" in told


def test_a_target_that_is_restarted_is_captured_as_before(deaths: Deaths) -> None:
    assert "test_restarted" not in deaths.told


def test_what_a_restarted_target_sends_that_no_route_claims_fails_the_test(deaths: Deaths) -> None:
    told = deaths.told["test_restarted_unrouted"]
    assert "UnroutedError" in told
    assert "https://api.test/" in told


def test_a_target_that_is_paused_is_said_to_be_when_time_is_up(deaths: Deaths) -> None:
    paused = "clients:latest still ran after 3 s, and is paused (`docker unpause` would"
    assert paused in deaths.told["test_paused"]


def test_a_target_that_is_paused_before_it_is_ready_is_said_to_be(deaths: Deaths) -> None:
    paused = "was not ready after 3 s, and is paused (`docker unpause` would let it go on)"
    assert paused in deaths.told["test_paused_before_it_is_ready"]


def test_a_command_in_a_target_that_is_paused_is_the_engines_to_refuse(deaths: Deaths) -> None:
    told = deaths.told["test_paused_before_a_command"]
    assert "EngineError: the engine did not run" in told
    assert "is paused" in told


# A sidecar that stands still.


def test_a_sidecar_that_is_paused_holds_up_nothing_where_its_sockets_are_here(
    inside: StartInside, witness: Witness
) -> None:
    run = inside(
        """
        def test_it(egress, engine):
            route = egress.intercept_https("api.test", {"id": 1})
            target = egress.start(IMAGE, ["sleep", "600"])
            engine.api.pause(engine.sidecar(target))
            assert target.exec(CURL).exit_code == 0
            assert route.call_count == 1
        """,
        "descriptor",
    )
    run.end(witness)


def test_a_sidecar_that_is_silent_fails_the_test(inside: StartInside, witness: Witness) -> None:
    run = inside(
        """
        def test_it(egress, engine, monkeypatch):
            from pytest_egress.link import stream
            monkeypatch.setattr(stream, "PING_SECONDS", 0.2)
            monkeypatch.setattr(stream, "SILENT_SECONDS", 2.0)
            egress.intercept_https("api.test", {"id": 1}, optional=True)
            target = egress.start(IMAGE, ["sleep", "600"])
            engine.api.pause(engine.sidecar(target))
            assert target.exec(CURL, check=False).exit_code != 0
        """,
        "stream",
    )
    run.end(witness, "its sidecar was lost while it ran (it has not answered for 2 s)")


# Sleep: all of a process is stopped, and may go on.


ASLEEP = """
        from pytest_egress.link import stream
        stream.PING_SECONDS, stream.SILENT_SECONDS = 0.2, 1.0
        stream.GONE_SECONDS = {gone}  # before the first sidecar, which is made ahead of the test

        def test_it(egress, engine):
            route = egress.intercept_https("api.test", {{"id": 1}}, optional=True)
            target = egress.start(IMAGE, ["sleep", "600"], volumes=["/data"])
            egress._inner.session.sidecars.settle()  # one that has not been started yet would not end by itself
            say("sidecar", engine.sidecar(target))
            until((HERE / "awake").exists)
            {then}
"""
GOES_ON = "assert target.exec(CURL).exit_code == 0 and route.call_count == 1"


def sleep(run: Inside, condition: Callable[[], object]) -> None:
    """Stop all of a run until something has come true."""
    run.wait_for("sidecar")
    run.process.send_signal(signal.SIGSTOP)
    assert until(condition, RUN_SECONDS)
    (run.folder / "awake").touch()


@pytest.mark.parametrize("link", LINKS)
def test_a_run_that_slept_longer_than_a_heartbeat_goes_on(
    inside: StartInside, witness: Witness, link: str
) -> None:
    run = inside(ASLEEP.format(gone=600, then=GOES_ON), link)
    ticks = iter(range(80))
    sleep(run, lambda: next(ticks) == 79)  # of 50 ms
    run.process.send_signal(signal.SIGCONT)
    run.end(witness)


def test_a_run_that_its_sidecar_took_for_gone_fails_the_test(
    inside: StartInside, witness: Witness, engine_client: docker.DockerClient
) -> None:
    run = inside(ASLEEP.format(gone=2, then="target.exec(CURL, check=False)"), "stream")
    sleep(run, lambda: not runs(engine_client, run))
    run.process.send_signal(signal.SIGCONT)
    run.end(
        witness,
        "its sidecar was lost while it ran (it heard nothing of the test process for 2 s)",
    )


def test_of_a_machine_that_has_gone_the_next_run_removes_what_its_sidecar_left_by_itself(
    inside: StartInside, witness: Witness, engine_client: docker.DockerClient
) -> None:
    run = inside(ASLEEP.format(gone=2, then="pass"), "stream")
    sleep(run, lambda: not runs(engine_client, run))
    for watchdog in watchdogs(run.session):
        os.kill(int(watchdog), signal.SIGKILL)
    run.process.kill()
    shutil.rmtree(run.temporary)  # no other machine has it
    run.temporary.mkdir()
    assert until(lambda: len(running(engine_client, run.session)) == 1)  # the target
    with Egress() as egress:
        egress._inner.session.engine.client.ping()
        assert until(lambda: not any(run.found(witness))), run.left(witness)


def runs(client: docker.DockerClient, run: Inside) -> bool:
    """Whether the sidecar of a run does; on Podman it is there, ended, as long as its target."""
    sidecar = (run.folder / "sidecar").read_text()
    listed = client.api.containers(all=True, filters={"id": sidecar})
    return any(each["State"] not in ENDED for each in listed)


# The engine.


ASK = """
ASK = ["bash", "-c", "exec 3<>/dev/tcp/api.test/80; printf 'GET / HTTP/1.0\\\\r\\\\n"
       "Host: api.test\\\\r\\\\n\\\\r\\\\n' >&3; cat <&3"]
"""
HOLD = """
        def test_it(egress):
            egress.intercept_http("api.test", b"first")
            target = egress.start(IMAGE, ["sleep", "600"], volumes=["/data"])
            assert "first" in target.exec(ASK).stdout
            say("up")
            until((HERE / "go").exists)
            {then}
"""
WAITS_FOR_IT = """
        def test_it(egress, engine):
            target = egress.start(IMAGE, ["sleep", "600"], volumes=["/data"])
            sidecar = pathlib.Path("/proc", str(engine.pid(engine.sidecar(target))))
            say("up")
            try:
                target.wait(timeout=300)
            finally:
                until(lambda: not sidecar.exists())  # an engine that stops may answer no more before it has ended
"""
NEXT_HTTP = """
        def test_the_next(egress):
            until((HERE / "again").exists)
            egress.intercept_http("api.test", b"second")
            assert "second" in egress.run(IMAGE, ASK).stdout
"""


@pytest.fixture
def inside_engine(inside: StartInside, engine: PrivateEngine, bare_image: str) -> StartInside:
    def start(code: str, link: str = "auto", **environment: str) -> Inside:
        code = textwrap.dedent(ASK) + f"IMAGE = {bare_image!r}\n" + textwrap.dedent(code)
        return inside(code, link, DOCKER_HOST=engine.address, **environment)

    return start


@pytest.fixture
def engine_witness(engine: PrivateEngine) -> Iterator[Witness]:
    witness = Witness(docker.DockerClient(base_url=engine.address))
    yield witness
    witness.close()


@pytest.mark.parametrize(
    ("link", "then", "text"),
    [
        ("descriptor", "target.exec(ASK)", "EngineError: the engine did not run"),
        ("stream", "target.exec(ASK)", "EngineError: the engine did not run"),
        ("descriptor", "target.wait()", "::test_it - bare:latest: its sidecar was lost"),
        (
            "stream",
            "egress.run(IMAGE, ASK, check=False)",
            "::test_it - bare:latest: its sidecar was lost",
        ),
    ],
)
def test_an_engine_that_is_restarted_fails_the_test(
    inside_engine: StartInside,
    engine: PrivateEngine,
    engine_witness: Witness,
    link: str,
    then: str,
    text: str,
) -> None:
    run = inside_engine(HOLD.format(then=then) + NEXT_HTTP, link)
    run.wait_for("up")
    engine.restart()
    (run.folder / "go").touch()
    (run.folder / "again").touch()
    # Over a stream, what is noticed first may be the end of the relay.
    run.end(engine_witness, text, "bare:latest: its sidecar was lost while it ran (")


def test_an_engine_that_is_stopped_while_it_is_waited_for_fails_the_test_and_the_removal(
    inside_engine: StartInside, engine: PrivateEngine, engine_witness: Witness
) -> None:
    run = inside_engine(WAITS_FOR_IT + NEXT_HTTP)
    run.wait_for("up")
    engine.stop()
    assert until(lambda: "FE" in run.output(), RUN_SECONDS), run.output()
    engine.start()
    (run.folder / "again").touch()
    texts = ("EngineError: the engine at unix://", "its sidecar was lost while it ran")
    run.end(engine_witness, *texts, outcome="1 failed, 1 passed, 1 error")


@pytest.mark.parametrize("link", LINKS)
def test_an_engine_that_is_killed_fails_the_test_and_what_removes_its_containers(
    inside_engine: StartInside, engine: PrivateEngine, engine_witness: Witness, link: str
) -> None:
    run = inside_engine(HOLD.format(then="target.exec(ASK)") + NEXT_HTTP, link)
    run.wait_for("up")
    engine.kill()
    (run.folder / "go").touch()
    assert until(lambda: "FE" in run.output(), RUN_SECONDS), run.output()
    engine.start()
    (run.folder / "again").touch()
    texts = ("EngineError: the engine at unix://", "did not run", "did not remove the container")
    run.end(engine_witness, *texts, outcome="1 failed, 1 passed, 1 error")


def test_a_run_that_ends_without_its_engine_says_so_and_the_next_run_removes_what_is_left(
    inside_engine: StartInside, engine: PrivateEngine, engine_witness: Witness
) -> None:
    run = inside_engine(HOLD.format(then="target.exec(ASK)") + "\n        test_the_next = None\n")
    run.wait_for("up")
    engine.kill()
    (run.folder / "go").touch()
    run.process.wait(RUN_SECONDS)
    assert "1 failed, 1 error" in run.output(), run.output()
    assert (run.folder / "left").read_text() == ""
    engine.start()
    with Egress(session=Session(client=engine.client)) as egress:
        egress._inner.session.engine.client.ping()
        assert until(lambda: not any(run.found(engine_witness))), run.left(engine_witness)


# Its disk.


FILL = """
        def fill(left):
            folder = os.environ["DISK"]
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            with open(folder + "/filler", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, free - left)

        @pytest.fixture
        def disk(session_egress):
            session_egress._inner.session.sidecars.close()  # one that starts meanwhile would take room
            yield
            os.unlink(os.environ["DISK"] + "/filler")
"""


@pytest.fixture(scope="module")
def small_engine(
    own_engine: OwnEngine, engine_client: docker.DockerClient, bare_image: str
) -> Iterator[PrivateEngine]:
    """An engine on a disk of its own, which can be filled."""
    with own_engine(Path(tempfile.gettempdir()), size="500m") as engine:
        engine.load(engine_client, bare_image)
        yield engine


NO_ROOM = "EngineError: the engine did not take files=: write /big: no space left on device"


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    ("left", "what", "text"),
    [
        (40 << 20, "files={'/big': bytes(64 << 20)}", re.escape(NO_ROOM)),
        (40 << 20, "read_only=True, files={'/big': bytes(64 << 20)}", re.escape(NO_ROOM)),
        # runc does not always say why.
        (0, "volumes=['/data']", "no space left on device|runc did not terminate successfully"),
    ],
    ids=["files", "read-only", "all"],
)
def test_a_full_disk_fails_the_test(
    inside: StartInside,
    small_engine: PrivateEngine,
    bare_image: str,
    link: str,
    left: int,
    what: str,
    text: str,
) -> None:
    witness = Witness(docker.DockerClient(base_url=small_engine.address))
    code = (
        textwrap.dedent(ASK)
        + f"IMAGE = {bare_image!r}\n"
        + textwrap.dedent(FILL)
        + textwrap.dedent(f"""
        def test_it(egress, disk):
            fill({left})
            egress.run(IMAGE, ASK, {what})
        """)
        + textwrap.dedent(NEXT_HTTP)
    )
    run = inside(code, link, DOCKER_HOST=small_engine.address, DISK=str(small_engine.folder))
    (run.folder / "again").touch()
    assert re.search(text, run.end(witness, "Error: "))
    witness.close()
