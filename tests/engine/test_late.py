"""What comes late: after a shared container's start, after a test, while a container is being removed."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme  # noqa: F401

from pytest_egress import Egress, HandlerError, Request, UnroutedError, log_line
from pytest_egress.errors import CommandError, ContainerTimeoutError
from pytest_egress.session import Session
from pytest_egress.targets.handle import Container
from pytest_egress.traffic.entries import Exchange, PacketAttempt

# trustme before pytester takes its snapshot of sys.modules: cryptography can be imported only once.

SECONDS = 10.0  # what is bound to happen
HALF = "POST /late HTTP/1.1\\r\\nHost: api.test\\r\\nContent-Length: 9\\r\\n\\r\\nhalf"


@pytest.fixture
def module() -> Iterator[Egress]:
    """An egress of a module, whose handlers get little time."""
    session = Session(defaults={"drain_seconds": 0.3})
    yield Egress(session=session, scope="module")
    session.close()


def ask_and_get_ready(shell: str) -> list[str]:
    """A command that begins to ask, is ready once it has been heard, and stays."""
    return ["bash", "-c", f"{shell}; echo up; sleep 600"]


def start(egress: Egress, image: str, shell: str) -> Container:
    return egress.start(image, ask_and_get_ready(shell), wait=log_line("^up$"))


ASK = "(curl -sS http://api.test/late >/dev/null &)"
HALF_ASK = f"exec 3<>/dev/tcp/api.test/80; printf '{HALF}' >&3"


# A shared container's start.


def test_a_start_waits_for_what_it_has_begun_and_is_failed_by_what_a_handler_raises(
    clients_image: str,
) -> None:
    session = Session()
    module = Egress(session=session, scope="module")

    @module.intercept_http("api.test")
    def handler(request: Request) -> None:
        threading.Event().wait(1)
        raise AssertionError("it is late")

    with pytest.raises(HandlerError) as caught:
        start(module, clients_image, f"{ASK}; sleep 0.5")
    session.close()
    assert "raised AssertionError: it is late\n  for GET http://api.test/late" in str(caught.value)


def test_a_start_is_failed_by_a_handler_that_runs_on(module: Egress, clients_image: str) -> None:
    over = threading.Event()

    @module.intercept_http("api.test")
    def handler(request: Request) -> None:
        over.wait(SECONDS)

    with pytest.raises(HandlerError) as caught:
        start(module, clients_image, f"{ASK}; sleep 0.5")
    over.set()
    first, *rest = str(caught.value).splitlines()
    assert first.endswith("still ran 0.3 s after its container had started")
    assert rest[0] == "  for GET http://api.test/late"


def test_a_request_that_is_under_way_when_a_start_ends_is_cut_and_unrouted(
    module: Egress, clients_image: str
) -> None:
    with pytest.raises(UnroutedError) as caught:
        start(module, clients_image, HALF_ASK)
    assert "POST http://api.test/late" in str(caught.value)
    assert "the body broke off after 4 bytes" in str(caught.value)


def test_a_command_that_fails_while_a_handler_has_raised_names_it_as_the_cause(
    module: Egress, clients_image: str
) -> None:
    error = AssertionError("no such charge")

    @module.intercept_http("api.test")
    def handler(request: Request) -> None:
        raise error

    with pytest.raises(CommandError) as caught:
        module.start(
            clients_image, ["curl", "-sSf", "http://api.test/late"], wait=log_line("never")
        )
    assert caught.value.__cause__ is error


def test_what_began_in_a_start_and_raised_after_it_is_judged_at_the_end_of_its_scope(
    module: Egress, clients_image: str
) -> None:
    go_on = threading.Event()

    @module.intercept_tcp("api.test:80")
    def handler(sock: Any) -> None:
        sock.recv(100)
        assert go_on.wait(SECONDS)
        raise LookupError("no such path")

    start(module, clients_image, f"{ASK}; sleep 0.5")
    go_on.set()
    module.close()
    verdict = module._inner.late_verdict()
    assert isinstance(verdict, HandlerError)
    assert "LookupError: no such path" in str(verdict)
    assert str(verdict).endswith(
        "This began while a container of a wider scope started, and ended after start() had returned."
    )
    assert module._inner.late_verdict() is None


# The end of a container.

HAMMER = """
import os, socket, sys, time
out = os.open("/out/sent", os.O_CREAT | os.O_WRONLY)
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
count = 0
while True:
    with socket.socket(type=kind) as sock:
        text = b"GET /%d HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n" % (count + 1)
        try:
            sock.connect(("203.0.113.9", 80))
            sock.send(text)
            if kind == socket.SOCK_STREAM:
                sock.recv(1)
        except OSError:
            if kind == socket.SOCK_STREAM:
                raise
    if kind == socket.SOCK_DGRAM:
        time.sleep(0.001)  # no flood, of which some would be counted alone
    count += 1
    os.pwrite(out, b"%9d" % count, 0)
    if count == 1:
        print("up", flush=True)
"""


def stop(egress: Egress, container: Container) -> None:
    container.stop(timeout=0.1)


def leave(egress: Egress, container: Container) -> None:
    with container:
        pass


def close(egress: Egress, container: Container) -> None:
    egress.close()


def run_out_of_time(egress: Egress, container: Container) -> None:
    with pytest.raises(ContainerTimeoutError):
        container.wait(0.3)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("end", [stop, leave, close, run_out_of_time])
def test_what_a_container_attempts_until_its_end_is_in_the_ledger(
    clients_image: str, tmp_path: Path, end: Callable[[Egress, Container], None], kind: str
) -> None:
    session = Session(defaults={"policy": "block"})
    egress = Egress(session=session)
    command = ["python3", "-c", HAMMER, kind]
    volumes = {str(tmp_path): {"bind": "/out"}}
    container = egress.start(clients_image, command, volumes=volumes, wait=log_line("up"))
    end(egress, container)
    sent = int((tmp_path / "sent").read_text())
    session.close()
    assert sent > 0
    if kind == "udp":
        assert len([e for e in egress.ledger if isinstance(e, PacketAttempt)]) >= sent
    else:
        numbers = {int(e.request.path[1:]) for e in egress.ledger if isinstance(e, Exchange)}
        assert numbers >= {*range(1, sent + 1)}


def test_outside_of_pytest_what_comes_after_the_block_is_judged_too(clients_image: str) -> None:
    hammer = ["bash", "-c", "echo up; while :; do curl -sS http://api.test/late; done"]
    egress = Egress().__enter__()
    route, session = egress.intercept_http("api.test"), egress._inner.session
    egress.start(clients_image, hammer, wait=log_line("up"))
    route.wait_for_call(timeout=SECONDS)
    assert session.ledger.window is not None
    session.close_window(session.ledger.window)  # as the block's end does
    route.remove()
    late = egress._inner.between.entries
    assert session.ledger.wait_for(lambda: any(e.outcome == "unrouted" for e in late), SECONDS)
    with pytest.raises(UnroutedError) as caught:
        egress.__exit__(None)
    assert "GET http://api.test/late" in str(caught.value)
    assert str(caught.value).endswith("and before its containers were removed.")


# The same inside pytest.


def run(pytester: pytest.Pytester, image: str, code: str, *args: str) -> pytest.RunResult:
    head = f"import pytest, threading\nfrom pytest_egress import log_line\nIMAGE = {image!r}\n"
    pytester.makepyfile(test_x=head + textwrap.dedent(code))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_what_a_shared_containers_start_brings_about_later_fails_the_end_of_its_scope(
    pytester: pytest.Pytester, clients_image: str, link: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        over, gone = threading.Event(), threading.Event()
        @pytest.fixture(scope="module")
        def shop(module_egress):
            @module_egress.intercept_tcp("db.test")
            def handler(sock):
                over.wait(10)
                gone.set()
                raise LookupError("no such database")
            shell = "exec 3<>/dev/tcp/db.test/5432; echo up; sleep 600"
            yield module_egress.start(IMAGE, ["bash", "-c", shell], wait=log_line("up"))
            over.set()
            assert gone.wait(10)
        def test_a(shop): pass
        def test_b(): pass
        """,
        f"--egress-link={link}",
    )
    result.assert_outcomes(passed=2, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_b*",
            "E  *LookupError: no such database",
            "It failed the test:",
            '*handler of intercept_tcp("db.test")*raised LookupError',
            "This began while a container of a wider scope started, and ended after start() had returned.",
            "*- egress -*",
            "*TCP db.test:5432*handler raised LookupError*",
            "*- container clients:latest -*",
            "up",
            "ERROR test_x.py::test_b - TCP db.test:5432 *",
        ]
    )


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_what_a_tests_own_container_attempts_until_its_end_fails_its_teardown(
    pytester: pytest.Pytester, clients_image: str, link: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        @pytest.fixture
        def client(egress):
            route = egress.intercept_http("api.test")
            shell = "echo up; while :; do curl -sS http://api.test/v1; done"
            yield egress.start(IMAGE, ["bash", "-c", shell], wait=log_line("up"))
            route.remove()
            session = egress._inner.session
            late = egress._inner.between.entries
            assert session.ledger.wait_for(lambda: any(e.outcome == "unrouted" for e in late), 10)
        def test_a(client, egress): egress["api.test"].wait_for_call()
        """,
        f"--egress-link={link}",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*unrouted attempt* of clients:latest; nothing got out:",
            "  GET http://api.test/v1*",
            "This came after the test had ended, and before its containers were removed.",
        ]
    )


def test_a_client_that_dials_again_when_its_test_has_ended_fails_no_teardown(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        @pytest.fixture
        def client(egress):
            egress.intercept_tcp("db.test", lambda sock: print(sock.makefile("rb").read()), times=1)
            shell = "while :; do exec 3<>/dev/tcp/db.test/5432; echo hi >&3; echo up; cat <&3; done"
            yield egress.start(IMAGE, ["bash", "-c", shell], wait=log_line("up"))
            late = egress._inner.between.entries
            assert egress._inner.session.ledger.wait_for(lambda: any(e.port for e in late), 10)
        def test_a(client): pass
        """,
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*outside of any test*", "*TCP db.test:5432*UNROUTED*"])


def test_a_client_that_then_dials_something_else_fails_the_teardown(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        @pytest.fixture
        def client(egress):
            egress.intercept_tcp("db-1.test", lambda sock: print(sock.makefile("rb").read()), times=1)
            shell = "for n in 1 2; do exec 3<>/dev/tcp/db-$n.test/5432; echo hi >&3; echo up; cat <&3; done; sleep 60"
            yield egress.start(IMAGE, ["bash", "-c", shell], wait=log_line("up"))
            late = egress._inner.between.entries
            assert egress._inner.session.ledger.wait_for(lambda: any(e.port for e in late), 10)
        def test_a(client): pass
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*unrouted attempt* of clients:latest*", "  TCP db-2.test:5432*"])


def test_a_container_that_runs_and_attempts_nothing_is_proof_of_no_egress(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        @pytest.fixture(scope="module")
        def shop(module_egress):
            module_egress.run(IMAGE, ["true"])
            module_egress.assert_no_egress()
            return module_egress.start(IMAGE, ["sleep", "600"])
        def test_before(egress):
            with pytest.raises(AssertionError, match="No container ran"): egress.assert_no_egress()
        def test_shared(shop, egress): egress.assert_no_egress()
        def test_own(egress):
            egress.run(IMAGE, ["true"])
            egress.assert_no_egress()
        def test_at_a_wider_scope(egress, session_egress):
            session_egress.run(IMAGE, ["true"])
            egress.assert_only("api.test")
        """,
        "-p",
        "no:randomly",
    )
    result.assert_outcomes(passed=4)
