"""Nothing is left behind: no container, volume, thread, descriptor or folder, whatever ended the run."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
import trustme
from docker.errors import NotFound

from pytest_egress import CommandError, Egress, HandlerError, UnroutedError, log_line
from pytest_egress.engine.engine import Engine
from pytest_egress.engine.leftovers import KEPT, SESSION_LABEL, remove_containers
from pytest_egress.gateway.server import Gateway
from pytest_egress.routes.answers import HttpAnswer
from pytest_egress.session import Session
from pytest_egress.targets import container as containers
from pytest_egress.targets import contents
from pytest_egress.targets.handle import Container
from pytest_egress.targets.ingress import Ingress
from pytest_egress.targets.logs import Log
from pytest_egress.targets.sidecars.sidecar import Sidecar
from pytest_egress.targets.trust import placing as trust
from tests.support.inner_runs import only_plugins

PATIENCE_SECONDS = 30.0  # for what ends by itself within milliseconds on an idle machine
RUN_SECONDS = 90.0  # for a run of pytest to import and start containers, or to end, at ten times a machine's load


def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether a condition comes true: the engine removes a sidecar that has ended in its own time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """A client whose connections are not among what a test may have left open."""
    client = docker.from_env()
    try:
        yield client
    finally:
        client.close()


def containers_of(session: str) -> list[str]:
    """The ids of what the engine has of one run."""
    with engine() as client:
        found = client.containers.list(
            all=True,
            filters={"label": f"{SESSION_LABEL}={session}"},
            ignore_removed=True,
            sparse=True,
        )
    return [str(container.id) for container in found]


def descriptors() -> dict[str, str]:
    """What this process has open, by number."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    return found


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session of this test's own, of which nothing may be left at its end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before, threads = descriptors(), set(threading.enumerate())
    session = Session()
    yield session
    session.close()
    label = session.engine.labels[SESSION_LABEL]
    assert until(lambda: not containers_of(label)), "containers are left"
    assert until(lambda: set(threading.enumerate()) <= threads), threading.enumerate()
    gc.collect()
    assert {k: v for k, v in descriptors().items() if before.get(k) != v} == {}
    assert list(folder.iterdir()) == []


# Ends of a test.


def test_nothing_is_left_after_success(clean: Session, clients_image: str) -> None:
    with Egress(session=clean) as egress:
        route = egress.intercept_https("api.test", {"id": 1})
        command = ["sh", "-c", "cat; python3 -m http.server 8000"]
        server = egress.start(clients_image, command, input="text")
        assert until(lambda: port_answers(server))
        socket.create_connection(server.address(8000)).close()
        server.exec("curl -sS https://api.test/")
        egress.run(clients_image, "curl -sS https://api.test/", volumes=["/data"])
        assert route.call_count == 2


def port_answers(server: Container) -> bool:
    try:
        server.connect(8000).close()
    except OSError:
        return False
    return True


def test_an_anonymous_volume_goes_with_its_container(clean: Session, bare_image: str) -> None:
    with engine() as client:
        with Egress(session=clean) as egress:
            container = egress.start(bare_image, ["sleep", "600"], volumes=["/data"])
            (mount,) = client.containers.get(container.id).attrs["Mounts"]
            client.volumes.get(mount["Name"])
        with pytest.raises(NotFound):
            client.volumes.get(mount["Name"])


def test_nothing_is_left_after_a_failure_of_any_kind(clean: Session, clients_image: str) -> None:
    def broken(_request: object) -> None:
        raise ValueError("broken")

    def ask(egress: Egress, image: str, handler: HttpAnswer) -> None:
        egress.intercept_https("api.test", handler)
        egress.run(image, "curl -sS https://api.test/")

    with pytest.raises(UnroutedError), Egress(session=clean) as egress:
        egress.run(clients_image, "curl -sS https://api.test/")
    with pytest.raises(HandlerError), Egress(session=clean) as egress:
        ask(egress, clients_image, broken)
    with pytest.raises(CommandError), Egress(session=clean) as egress:
        egress.run(clients_image, ["false"])
    with pytest.raises(ZeroDivisionError), Egress(session=clean) as egress:
        egress.start(clients_image, ["sleep", "600"]).address(1 // 0)


def test_connections_that_are_open_end_with_their_container(
    clean: Session, clients_image: str
) -> None:
    with Egress(session=clean) as egress:
        egress.intercept_http("api.test", optional=True)
        code = """
            import socket
            kept = [socket.create_connection(("api.test", 80)) for _ in range(20)]
            server = socket.create_server(("127.0.0.1", 8000))
            print("up", flush=True)
            kept += [server.accept() for _ in range(2)]
            import time; time.sleep(600)
        """
        command = ["python3", "-uc", textwrap.dedent(code)]
        container = egress.start(clients_image, command, wait=log_line("^up$"))
        open_here = [socket.create_connection(container.address(8000)) for _ in range(2)]
        (started,) = egress._inner.containers
        assert until(lambda: len(started.gateway.connections) == 20)
    for sock in open_here:
        with sock:
            assert sock.recv(1) == b""


# An error, or an interrupt, in each phase of the launch.


class Injected(Exception):
    """Raised in a phase."""


PHASES: dict[str, tuple[Any, str]] = {
    "image": (Engine, "image"),
    "sidecar-create": (Sidecar, "_create"),
    "sidecar-start": (Sidecar, "start"),
    "target-create": (Engine, "create"),
    "roots": (contents, "find_roots"),
    "put": (trust, "put"),
    "gateway": (Gateway, "__init__"),
    "gateway-start": (Gateway, "start"),
    "input": (containers, "attach_input"),
    "target-start": (containers.Container, "_start"),
    "ready": (containers.Container, "become_ready"),
    "settle": (Gateway, "settle"),
    "log": (Log, "tail"),
    "ingress": (Ingress, "__init__"),
}


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, phase: str, when: str, error: type[BaseException]
) -> Iterator[None]:
    """Let a phase fail once, before it has done anything or after it has done all."""
    owner, name = PHASES[phase]
    real = getattr(owner, name)
    pending = [error]

    def fail(*args: Any, **options: Any) -> Any:
        if when == "after" or not pending:
            result = real(*args, **options)
        if pending:
            raise pending.pop()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        yield
    assert not pending, f"{phase} was never reached"


@pytest.mark.parametrize("error", [Injected, KeyboardInterrupt], ids=["error", "interrupt"])
@pytest.mark.parametrize(
    ("phase", "when"),
    [
        (phase, when)
        for phase, (_, name) in PHASES.items()
        for when in ("before", "after")
        if (name, when) != ("__init__", "after")  # what it made would be nobody's
    ],
)
def test_nothing_is_left_when_a_phase_of_the_start_fails(
    clean: Session,
    bare_image: str,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    error: type[BaseException],
    when: str,
) -> None:
    def use() -> None:
        with Egress(session=clean) as egress:
            egress.start(bare_image, ["cat"], input="x").address(80)

    with failing(monkeypatch, phase, when, error), pytest.raises(error):
        use()


def test_nothing_is_left_when_the_ca_cannot_be_made(
    bare_image: str,
) -> None:
    def broken() -> trustme.CA:
        raise Injected

    before = descriptors()
    session = Session(ca=broken)
    with pytest.raises(Injected), Egress(session=session) as egress:
        egress.run(bare_image)
    label = session.engine.labels[SESSION_LABEL]
    assert until(lambda: not containers_of(label))
    gc.collect()
    assert {k: v for k, v in descriptors().items() if before.get(k) != v} == {}


# Ctrl-C, in a run of pytest of its own.

CONFTEST = """
import os, pathlib, time
import pytest
from pytest_egress import egress
from pytest_egress.targets import container
from pytest_egress.engine import engine
from pytest_egress.targets.sidecars import sidecar

IMAGE = {image!r}
HERE = pathlib.Path(__file__).parent

def now():
    (HERE / "ready").write_text("now")

def pause(owner, name, seconds):
    '''Say so when a phase begins, and let it take a while.'''
    real = getattr(owner, name)
    def paused(*args, **options):
        now()
        time.sleep(seconds)
        return real(*args, **options)
    setattr(owner, name, paused)

def hold(owner, name):
    '''Let a phase, on whichever thread, not begin before the run is interrupted.'''
    real = getattr(owner, name)
    def held(*args, **options):
        while not (HERE / "interrupted").exists():
            time.sleep(0.02)
        return real(*args, **options)
    setattr(owner, name, held)

@pytest.fixture(autouse=True, scope="session")
def label(session_egress):
    (HERE / "session").write_text(session_egress._inner.session.engine.labels["{label}"])

@pytest.fixture(scope="module")
def shop(module_egress):
    return module_egress.start(IMAGE, ["sleep", "600"])
"""
INTERRUPTED = {
    "image-lookup": """
        def test_a(egress):
            pause(engine.Engine, "image", 60)
            egress.run(IMAGE, ["true"])
        """,
    "image-pull": """
        def test_a(egress):
            egress.run("127.0.0.1:{port}/shop:latest")
        """,
    "sidecar-start": """
        hold(sidecar.Sidecar, "start")  # the first one's begins before the test
        def test_a(egress):
            now()
            egress.run(IMAGE, ["true"])
        """,
    "target-create": """
        def test_a(egress):
            pause(engine.Engine, "create", 3)
            egress.run(IMAGE, ["true"])
        """,
    "target-start": """
        def test_a(egress):
            pause(container.Container, "_start", 60)
            egress.run(IMAGE, ["true"])
        """,
    "not-ready": """
        from pytest_egress import log_line
        def test_a(egress, shop):
            egress.intercept_https("ready.test", lambda request: now())
            egress.start(IMAGE, "sh -c 'curl -sS https://ready.test; sleep 600'",
                         wait=log_line("never"))
        """,
    "run": """
        def test_a(egress, shop):
            egress.intercept_https("ready.test", lambda request: now())
            egress.run(IMAGE, "sh -c 'curl -sS https://ready.test; sleep 600'", timeout=600)
        """,
    "handler": """
        import threading
        def test_a(egress, shop):
            @egress.intercept_https("ready.test")
            def stand(request):
                now()
                threading.Event().wait()
            egress.run(IMAGE, "curl -sS https://ready.test", timeout=600)
        """,
    "drain": """
        import threading
        @pytest.mark.egress(timeout=600)
        def test_a(egress, shop):
            entered = threading.Event()
            @egress.intercept_https("ready.test")
            def stand(request):
                entered.set()
                threading.Event().wait()
            shop.exec(["sh", "-c", "curl -sS https://ready.test >/dev/null 2>&1 &"])
            assert entered.wait(60)
            real = egress._inner.session.ledger.wait_for
            def wait_for(condition, timeout, *look):
                if timeout > 500:  # the wait for the handler
                    now()
                return real(condition, timeout, *look)
            egress._inner.session.ledger.wait_for = wait_for
        """,
    "teardown": """
        def test_a(egress, shop):
            egress.start(IMAGE, ["sleep", "600"])
            pause(container.Container, "close", 1)
        """,
    "wide-teardown": """
        def test_a(egress, shop):
            egress.start(IMAGE, ["sleep", "600"])
        def test_b(shop):
            pause(container.Container, "close", 1)
        """,
}


@pytest.fixture
def silent_registry() -> Iterator[tuple[int, threading.Event]]:
    """A registry on loopback that never answers; its port, and whether it has been asked."""
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            kept = []
            try:
                while True:
                    kept.append(listener.accept()[0])
                    asked.set()
            except OSError:
                for sock in kept:
                    sock.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1], asked
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def heed_interrupts() -> None:
    """What a shell starts in the background ignores them, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def folders(parent: Path) -> tuple[Path, Path]:
    """Where a run of pytest is, and where it puts temporary files."""
    folder, temporary = parent / "tests", parent / "temporary"
    folder.mkdir()
    temporary.mkdir()
    return folder, temporary


def started(folder: Path, temporary: Path, image: str, code: str) -> subprocess.Popen[str]:
    """A run of pytest that heeds interrupts, in a process of its own."""
    (folder / "conftest.py").write_text(CONFTEST.format(image=image, label=SESSION_LABEL))
    (folder / "pytest.ini").write_text("[pytest]")
    test = f"import pytest\nfrom conftest import *\n{textwrap.dedent(code)}"
    (folder / "test_inside.py").write_text(test)
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env={**os.environ, **only_plugins(), "TMPDIR": str(temporary)},
        preexec_fn=heed_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("phase", INTERRUPTED)
def test_nothing_is_left_after_an_interrupt(
    clients_image: str,
    tmp_path: Path,
    silent_registry: tuple[int, threading.Event],
    phase: str,
) -> None:
    port, asked = silent_registry
    folder, temporary = folders(tmp_path)
    code = INTERRUPTED[phase].replace("{port}", str(port))
    with started(folder, temporary, clients_image, code) as process:
        try:
            ready = folder / "ready"
            reached = until(
                lambda: ready.exists() or asked.is_set() or process.poll() is not None, RUN_SECONDS
            )
            process.send_signal(signal.SIGINT)
            (folder / "interrupted").touch()
            output, _ = process.communicate(timeout=RUN_SECONDS)
        finally:
            process.kill()
    assert reached, output
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "KeyboardInterrupt" in output
    assert not re.search(r"Traceback|Exception ignored|INTERNALERROR", output), output
    session = (folder / "session").read_text()
    assert until(lambda: not containers_of(session)), output
    assert list(temporary.iterdir()) == [], output


@pytest.mark.parametrize("second", ["in-teardown", "at-once"])
def test_nothing_is_left_after_two_interrupts(
    clients_image: str, tmp_path: Path, second: str
) -> None:
    folder, temporary = folders(tmp_path)
    code = """
        def test_a(egress, shop):
            pause(container.Container, "close", 2)
            egress.intercept_https("ready.test", lambda request: now())
            egress.run(IMAGE, "sh -c 'curl -sS https://ready.test; sleep 600'", timeout=600)
    """
    ready = folder / "ready"
    with started(folder, temporary, clients_image, code) as process:
        try:
            reached = until(ready.exists, RUN_SECONDS)
            ready.unlink(missing_ok=True)
            process.send_signal(signal.SIGINT)
            reached = reached and (second == "at-once" or until(ready.exists, RUN_SECONDS))
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=RUN_SECONDS)
        finally:
            process.kill()
    assert reached, output
    assert "KeyboardInterrupt" in output
    session = (folder / "session").read_text()
    assert until(lambda: not containers_of(session)), output
    assert until(lambda: not list(temporary.iterdir())), output


# What is left on purpose.


def listed(client: docker.DockerClient, session: str) -> list[tuple[str, str]]:
    found = client.api.containers(all=True, filters={"label": f"{SESSION_LABEL}={session}"})
    return [(container["Names"][0], container["Status"]) for container in found]


def run_and_keep(pytester: pytest.Pytester, image: str, tests: str) -> tuple[pytest.RunResult, str]:
    """Run tests with --egress-keep: the result, and the session; one of them has to take `said`."""
    prelude = f"""
        import pathlib, pytest
        from pytest_egress import port_open
        IMAGE = {image!r}
        @pytest.fixture
        def said(egress):
            pathlib.Path("session").write_text(egress._inner.session.engine.labels["{SESSION_LABEL}"])
    """
    pytester.makepyfile(textwrap.dedent(prelude) + textwrap.dedent(tests))
    result = pytester.runpytest_subprocess("--egress-keep", "-p", "no:cacheprovider")
    return result, (pytester.path / "session").read_text()


def test_containers_of_failed_tests_are_kept_on_request(
    pytester: pytest.Pytester, engine_client: docker.DockerClient, is_podman: bool, bare_image: str
) -> None:
    result, session = run_and_keep(
        pytester,
        bare_image,
        """
        def test_fails(egress, said):
            egress.start(IMAGE, ["sleep", "600"])
            ended = egress.start(IMAGE, ["sh", "-c", "echo evidence"])
            assert ended.wait().stdout == "other"
        def test_passes(egress):
            egress.start(IMAGE, ["sleep", "600"])
            egress.run(IMAGE, "true")
        """,
    )
    result.assert_outcomes(passed=1, failed=1)
    try:
        left = 4 if is_podman else 2  # it keeps the sidecars too, ended
        assert until(lambda: len(containers_of(session)) == left), listed(engine_client, session)
        all_left = [engine_client.containers.get(c) for c in containers_of(session)]
        kept = [container for container in all_left if KEPT in str(container.name)]
        assert {container.status for container in kept} == {"exited"}
        assert sorted(container.logs() for container in kept) == [b"", b"evidence\n"]
        removal = re.search(r"to remove: docker rm --force (\w+) (\w+)", result.stdout.str())
        assert removal is not None
        assert {c.id[:12] for c in kept if c.id} == set(removal.groups())
    finally:
        remove_containers(engine_client.api, containers_of(session))


RUN = 'egress.run(IMAGE, ["sh", "-c", "echo evidence; {then}"], {options})'


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (RUN.format(then="false", options=""), "CommandError"),
        (RUN.format(then="sleep 60", options="timeout=3"), "it has been killed"),
        (
            RUN.replace("run", "start").format(
                then="sleep 60", options="wait=port_open(80), timeout=3"
            ),
            "was not ready",
        ),
    ],
    ids=["ended", "timeout", "not-ready"],
)
def test_what_a_failed_test_has_run_is_kept_too(
    pytester: pytest.Pytester,
    engine_client: docker.DockerClient,
    bare_image: str,
    code: str,
    error: str,
) -> None:
    result, session = run_and_keep(pytester, bare_image, f"def test_fails(egress, said): {code}\n")
    result.assert_outcomes(failed=1)
    try:
        assert error in result.stdout.str()
        (kept,) = (name for name, _ in listed(engine_client, session) if KEPT in name)
        container = engine_client.containers.get(kept.strip("/"))
        assert (container.status, container.logs()) == ("exited", b"evidence\n")
    finally:
        remove_containers(engine_client.api, containers_of(session))


def test_what_fails_only_in_its_teardown_is_kept_and_told_of(
    pytester: pytest.Pytester, engine_client: docker.DockerClient, bare_image: str
) -> None:
    result, session = run_and_keep(
        pytester,
        bare_image,
        """
        @pytest.fixture
        def late(egress):
            yield
            egress.run(IMAGE, ["bash", "-c", "exec 3<>/dev/tcp/192.0.2.7/5432; echo evidence"], check=False)
        def test_passes(late, said): pass
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    try:
        (kept,) = (name for name, _ in listed(engine_client, session) if KEPT in name)
        container = engine_client.containers.get(kept.strip("/"))
        assert f"to remove: docker rm --force {str(container.id)[:12]}" in result.stdout.str()
    finally:
        remove_containers(engine_client.api, containers_of(session))
