"""What a shared container goes on with after a test, and which test gets it."""

from __future__ import annotations

import textwrap
import time

import pytest

from pytest_egress import Egress, log_line
from pytest_egress.ledger.windows import Window
from pytest_egress.session import Session
from tests.support.attempts import SECONDS

UP = ["bash", "-c", "echo up; exec sleep 600"]


def test_what_runs_is_asked_of_the_engine(bare_image: str) -> None:
    with Egress() as egress:
        egress.start(bare_image, ["true"]).wait()
        assert egress._inner.session.running() == []
        runs = egress.start(bare_image, ["sleep", "600"])
        assert egress._inner.session.running() == [runs.name]
        runs.stop(timeout=0)
        assert egress._inner.session.running() == []


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_what_a_container_does_in_the_background_is_over_when_it_is_quiet(
    clients_image: str, link: str
) -> None:
    shell = "echo up; for n in 1 2 3; do curl -sS http://api.test/$n; sleep 0.1; done; sleep 600"
    with Egress(session=Session(link=link)) as egress:
        route = egress.intercept_http("api.test")
        egress.start(clients_image, ["bash", "-c", shell], wait=log_line("up"))
        egress.wait_until_quiet(2, timeout=SECONDS)
        assert [call.request.path for call in route.calls] == ["/1", "/2", "/3"]


# Inside pytest.

HEAD = """
import pytest
from pytest_egress import log_line

@pytest.fixture(scope="module")
def shop(module_egress):
    return module_egress.start(IMAGE, UP, wait=log_line("up"))

def say(shop, text):
    shop.exec(["sh", "-c", f"echo {text} >/proc/1/fd/1"])

LATER = "(until [ -e /tmp/go ]; do sleep 0.02; done; curl -s http://api.test/late) >/dev/null 2>&1 &"
"""


def run(pytester: pytest.Pytester, image: str, code: str, *args: str) -> pytest.RunResult:
    head = f"IMAGE, UP = {image!r}, {UP!r}\n{HEAD}"
    pytester.makepyfile(test_x=head + textwrap.dedent(code))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:randomly", *args)


def test_what_one_test_sets_off_and_the_next_one_gets_names_the_first(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        def test_a(shop):
            say(shop, "said by a")
            shop.exec(["bash", "-c", LATER])
        def test_without_egress(): pass
        def test_b(shop, egress):
            say(shop, "said by b")
            shop.exec(["touch", "/tmp/go"])
            ledger = egress._inner.session.ledger
            assert ledger.wait_for(lambda: bool(egress.exchanges), 30)
        def test_c(shop, egress):
            egress.intercept_http("api.test")
            shop.exec(["curl", "-s", "http://api.test/1"])
            assert 1 == 2
        """,
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "1 unrouted attempt of clients:latest; nothing got out:",
            "  GET http://api.test/late",
            "",
            "clients:latest is shared by all tests of its module. "
            "It was started by the fixture 'shop' for test_x.py::test_a at test_x.py:8.",
            "  test_x.py::test_a ran before this test, and may have set this off: *first of it came * s into*",
            "  To let a test wait for what it sets off: egress.wait_until_quiet(seconds)",
            "test_x.py:*: UnroutedError",
            "*- container clients:latest -*",
            "(since this test began; all of it: its .logs(), or `docker logs` after --egress-keep)",
            "said by b",
            "*_ test_c _*",
            "*- egress -*",
            "*GET http://api.test/1 -> 200*",
            "clients:latest is shared: what test_x.py::test_b set off, which ran before, may be among this.",
            "*- container clients:latest -*",
            "(nothing since this test began; all of it: its .logs(), or `docker logs` after --egress-keep)",
        ]
    )
    result.stdout.no_fnmatch_line("said by a")


def test_a_test_that_waits_for_quiet_leaves_the_next_one_nothing(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        def test_a(shop, egress):
            late = egress.intercept_http("api.test")
            shop.exec(["bash", "-c", LATER])
            shop.exec(["touch", "/tmp/go"])
            egress.wait_until_quiet(2, timeout=30)
            late.assert_called_once()
        def test_b(shop, egress): assert not egress.ledger
        """,
    )
    result.assert_outcomes(passed=2)


def test_the_first_test_of_a_shared_container_sees_its_log_from_the_start(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(pytester, clients_image, "def test_a(shop): assert 1 == 2")
    result.stdout.fnmatch_lines(["*- container clients:latest -*", "up"])
    result.stdout.no_fnmatch_line("*since this test began*")


@pytest.mark.docker
def test_a_clock_of_the_engine_that_is_another_is_allowed_for(
    egress: Egress, bare_image: str
) -> None:
    script = "mkfifo /tmp/pipe; echo first; read x </tmp/pipe; echo second; exec sleep 600"
    egress.start(bare_image, ["sh", "-c", script], wait=log_line("first"))
    (container,) = egress._inner.containers
    time.sleep(1)  # the two clocks are compared by a start, which takes less
    between = Window().opened
    container.exec(["sh", "-c", "echo go >/tmp/pipe"])
    assert egress._inner.session.ledger.wait_for(lambda: "second" in container.logs(), SECONDS)
    assert container.log.since(between) == "second"
    before, after = container.log.starting
    container.log.starting = before - 3600, after - 3600  # as if ours were an hour late
    assert container.log.since(between - 3600) == "second"


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_what_ends_the_capture_between_two_tests_fails_each_one_that_comes_later(
    pytester: pytest.Pytester, clients_image: str, link: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        DOWN = "import fcntl, socket, struct\\n" \\
            "sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\\n" \\
            "fcntl.ioctl(sock, 0x8914, struct.pack('16sH14x', b'eth0', 0))"  # SIOCSIFFLAGS

        @pytest.fixture(scope="module")
        def admin(module_egress):
            return module_egress.start(IMAGE, UP, wait=log_line("up"), cap_add=["NET_ADMIN"])

        @pytest.fixture
        def then_down(admin):
            yield
            admin.exec(["python3", "-c", DOWN])

        def test_a(admin, egress, then_down): pass
        def test_b(admin, egress): pass
        def test_without_egress(): pass
        def test_c(admin, egress): pass
        """,
        f"--egress-link={link}",
    )
    result.assert_outcomes(passed=2, failed=2)
    down = "something shut down the interface eth0 in the target's network namespace"
    assert result.stdout.str().count(f"{down}; that was before this test") >= 2
