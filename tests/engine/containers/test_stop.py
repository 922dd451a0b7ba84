"""`Container.stop`: a signal that the target may answer, time to shut down, and only then the end by force."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Iterator

import docker
import pytest
from docker.errors import NotFound

from pytest_egress import Egress, Request, log_line
from pytest_egress.engine.leftovers import ENDED
from pytest_egress.session import Session

SECONDS = 60.0  # for what ends by itself: nothing waits for so long unless it fails

FLUSHES = """
import signal, sys, time, urllib.request

def flush(signum, frame):
    request = urllib.request.Request("http://spans.test/v1/traces", data=b"left over")
    print("flushed:", urllib.request.urlopen(request).read().decode(), flush=True)
    sys.exit(3)

signal.signal(getattr(signal, sys.argv[1]), flush)
print("up", flush=True)
while True:
    time.sleep(600)
"""
DEAF = ["bash", "-c", "echo up; while :; do sleep 600; done"]  # as PID 1 it gets no SIGTERM

HEARS = "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"


def flushing(signal: str = "SIGTERM") -> list[str]:
    """A command that sends what it has left when it gets a signal."""
    return ["python3", "-c", FLUSHES, signal]


@pytest.fixture(params=["descriptor", "stream"])
def linked(request: pytest.FixtureRequest) -> Iterator[Egress]:
    """An egress by either link."""
    session = Session(link=request.param)
    with Egress(session=session) as egress:
        yield egress


def test_what_a_target_flushes_as_it_shuts_down_is_answered_and_handled(
    linked: Egress, clients_image: str
) -> None:
    spans = linked.intercept_http("spans.test", b"thanks", method="POST")
    container = linked.start(clients_image, flushing(), wait=log_line("up"))
    container.stop(timeout=SECONDS)
    assert spans.assert_called_once().request.content == b"left over"
    result = container.wait()
    assert (result.exit_code, result.stdout) == (3, "up\nflushed: thanks\n")
    assert result.note == ""
    assert container.logs() == result.stdout


def test_the_stop_signal_that_a_container_has_is_the_one_that_it_gets(
    egress: Egress, clients_image: str
) -> None:
    spans = egress.intercept_http("spans.test", b"thanks")
    command = flushing("SIGUSR1")
    container = egress.start(clients_image, command, wait=log_line("up"), stop_signal="SIGUSR1")
    container.stop(timeout=SECONDS)
    spans.assert_called_once()
    assert container.wait().exit_code == 3


def test_the_stop_signal_of_an_image_is_that_of_its_containers(
    egress: Egress, clients_image: str, engine_client: docker.DockerClient
) -> None:
    made = engine_client.containers.create(clients_image, ["true"])
    image = made.commit("pytest-egress-test/stop-signal", changes="STOPSIGNAL SIGUSR2")
    made.remove()
    try:
        egress.intercept_http("spans.test", b"thanks")
        container = egress.start(
            "pytest-egress-test/stop-signal", flushing("SIGUSR2"), wait=log_line("up")
        )
        container.stop(timeout=SECONDS)
        assert container.wait().exit_code == 3
        egress.close()
    finally:
        engine_client.images.remove(str(image.id), force=True)


def test_what_does_not_end_is_killed_and_the_result_says_so(
    linked: Egress, clients_image: str
) -> None:
    container = linked.start(clients_image, DEAF, wait=log_line("up"))
    container.stop(timeout=0.2)
    result = container.wait()
    assert (result.exit_code, result.stdout) == (137, "up\n")
    assert result.note == (
        "it still ran 0.2 s after SIGTERM, and was killed; PID 1 of a container ignores a signal that it "
        "does not handle, and a shell there passes none on: handle it, `exec` the program, or start it with init=True"
    )


@pytest.mark.docker  # Podman needs another program for it
def test_init_passes_the_signal_on_as_the_note_says(egress: Egress, clients_image: str) -> None:
    container = egress.start(
        clients_image, ["sh", "-c", "echo up; exec sleep 600"], wait=log_line("up"), init=True
    )
    container.stop(timeout=SECONDS)
    result = container.wait()
    assert (result.exit_code, result.note) == (143, "")


def test_what_has_ended_is_stopped_without_an_error(egress: Egress, clients_image: str) -> None:
    container = egress.start(clients_image, ["sh", "-c", "sleep 0.3; echo done; exit 4"])
    assert container.wait().exit_code == 4
    container.stop()
    container.stop()
    assert (container.wait().exit_code, container.wait().stdout) == (4, "done\n")


def test_what_has_been_removed_is_stopped_without_an_error(
    egress: Egress, clients_image: str, engine_client: docker.DockerClient
) -> None:
    with egress.start(clients_image, ["sleep", "600"]) as container:
        pass
    container.stop()
    with pytest.raises(NotFound):
        engine_client.containers.get(container.id)


def test_what_is_stopped_is_removed_at_the_end_of_its_scope(
    clients_image: str, engine_client: docker.DockerClient
) -> None:
    with Egress() as egress:
        container = egress.start(clients_image, ["bash", "-c", HEARS], wait=log_line("up"))
        container.stop(timeout=SECONDS)
        assert engine_client.containers.get(container.id).status in ENDED
    with pytest.raises(NotFound):
        engine_client.containers.get(container.id)


@pytest.mark.egress(timeout=2 * SECONDS)
def test_a_handler_that_stops_what_called_it_does_not_wait_for_itself(
    egress: Egress, clients_image: str
) -> None:
    stopped = threading.Event()

    @egress.intercept_http("pay.test")
    def crash(request: Request) -> bytes:
        egress._inner.session.containers[-1].stop(timeout=SECONDS)
        stopped.set()
        return b"too late"

    shell = "trap 'exit 4' TERM; curl -s http://pay.test/ & wait"
    container = egress.start(clients_image, ["bash", "-c", shell])
    assert stopped.wait(SECONDS)
    assert container.wait().exit_code == 4


@pytest.mark.parametrize("timeout", [-1, "10", None, True])
def test_a_time_that_is_none_is_refused_and_harms_nothing(
    egress: Egress, clients_image: str, timeout: object
) -> None:
    container = egress.start(clients_image, ["sleep", "600"])
    with pytest.raises(TypeError, match="it takes a number of seconds"):
        container.stop(timeout=timeout)  # type: ignore[arg-type]
    assert container.exec(["true"]).exit_code == 0


# Inside pytest.


def run(pytester: pytest.Pytester, image: str, code: str) -> pytest.RunResult:
    head = f"import pytest\nfrom pytest_egress import log_line\nIMAGE, FLUSHES = {image!r}, {FLUSHES!r}\n"
    head += "FLUSH = ['python3', '-c', FLUSHES, 'SIGTERM']\n"
    pytester.makepyfile(test_x=head + textwrap.dedent(code))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def test_what_no_route_claims_of_a_shutdown_fails_the_test(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        def test_a(egress): egress.start(IMAGE, FLUSH, wait=log_line("up")).stop(60)
        def test_torn_down(egress): egress.start(IMAGE, FLUSH, wait=log_line("up"))
        """,
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "1 unrouted attempt of clients:latest; nothing got out:",
            "  POST http://spans.test/v1/traces",
        ]
    )


def test_the_log_of_a_container_that_was_killed_says_so(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        def test_a(egress):
            egress.start(IMAGE, ["bash", "-c", "echo up; sleep 600"], wait=log_line("up")).stop(0.1)
            assert 1 == 2
        """,
    )
    result.stdout.fnmatch_lines(
        [
            "*- container clients:latest -*",
            "up",
            "(it still ran 0.1 s after SIGTERM, and was killed;",
            "PID 1 of a container ignores a signal that it does not handle,*",
        ]
    )


def test_the_log_that_a_wait_quotes_comes_no_second_time(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        "def test_a(egress): egress.start(IMAGE, ['sh', '-c', 'echo up; exec sleep 600']).wait(1)",
    )
    result.stdout.fnmatch_lines(["E  *ContainerTimeoutError: clients:latest still ran *"])
    result.stdout.no_fnmatch_line("*- container clients:latest -*")
