"""Threads, time-outs, and plugins that change the clock or sockets, with real containers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import docker
import pytest
import trustme

from pytest_egress import Egress
from pytest_egress.base.clock import wall
from pytest_egress.session import Session
from tests.support.leftovers import containers
from tests.support.stage import eventually
from tests.support.stand_in import RunPytest, keep_quiet, lines_of

pytestmark = pytest.mark.plugins("time_machine", "timeout")


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)


def test_a_time_out_by_thread_ends_the_run_and_the_watchdog_removes_its_containers(
    run_real: RunPytest, pytester: pytest.Pytester, engine_client: docker.DockerClient
) -> None:
    result = run_real(
        """
        import threading
        @pytest.mark.timeout(5, func_only=True)
        def test_a(egress, image, curl):
            def stuck(request): threading.Event().wait()
            egress.intercept_https("a.test", stuck)
            curl("https://a.test/")
        """,
        "--timeout-method=thread",
        "-Wignore",
    )
    assert result.ret == 1
    lines_of(result, "*in stuck")
    session = (pytester.path / "session").read_text()
    assert eventually(lambda: not containers(engine_client, session))


def test_a_handler_sees_the_frozen_clock_and_requests_are_answered_under_it(
    run_real: RunPytest,
) -> None:
    run_real(
        """
        import datetime
        from freezegun import freeze_time
        def test_a(egress, curl):
            egress.intercept_https("*.test", lambda request: str(datetime.date.today()))
            with freeze_time("2099-01-02"):
                assert curl("https://new.test/") == "2099-01-02"
            assert curl("https://other.test/") != "2099-01-02"
        """,
        "-Wignore",
    ).assert_outcomes(passed=1)


FREEZES: Final = {
    "freezegun": "from freezegun import freeze_time as freeze",
    "time-machine": "from time_machine import travel as freeze",
}


@pytest.mark.parametrize("name", FREEZES)
@pytest.mark.parametrize("before", ["", "import pytest_egress.gateway.tls.authority, trustme"])
def test_what_starts_under_frozen_time_has_certificates_of_the_real_one(
    run_real: RunPytest, before: str, name: str
) -> None:
    run_real(
        f"""
        import datetime
        {before}
        {FREEZES[name]}
        @pytest.fixture(scope="session", autouse=True)
        def frozen():
            freezes = freeze("2099-01-02")
            freezes.start()
            yield freezes
            freezes.stop()
        def test_a(frozen, egress, curl):
            egress.intercept_https("*.test", lambda request: str(datetime.date.today()))
            assert curl("https://a.test/") == curl("https://a_b.test/") == "2099-01-02"
            assert abs(egress.ledger[0].started - {wall()}) < 600
        def test_b(frozen, egress, curl):
            frozen.stop()
            egress.intercept_https("*.test", lambda request: str(datetime.date.today()))
            assert curl("https://b.test/") == curl("https://c_d.test/") > "2026"
            frozen.start()
        """,
        "-Wignore",
    ).assert_outcomes(passed=2)


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_waits_and_durations_are_of_the_real_clock_whatever_is_frozen(
    run_real: RunPytest, link: str
) -> None:
    run_real(
        """
        import asyncio
        from freezegun import freeze_time
        from time_machine import travel
        from pytest_egress import log_line
        from pytest_egress import asgi
        from pytest_egress.errors import CallError, ContainerTimeoutError
        async def app(scope, receive, send):
            if scope["type"] == "http":
                await asyncio.sleep(0.1)
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"slow"})
        async def handler(request):
            await asyncio.sleep(0.1)
            return "slow"
        def measure(egress, image, curl):
            never = egress.intercept_https("never.test", optional=True)
            route = egress.intercept_https("a.test", handler)
            egress.intercept_https("b.test", asgi(app))
            assert curl("https://a.test/") == curl("https://b.test/") == "slow"
            assert egress.exchanges[0].duration > 0
            with pytest.raises(CallError): never.wait_for_call(timeout=0.1)
            with pytest.raises(ContainerTimeoutError):
                egress.run(image, ["sleep", "infinity"], timeout=0.5)
            with pytest.raises(ContainerTimeoutError):
                egress.start(image, ["sleep", "infinity"], wait=log_line("never"), timeout=0.5)
            assert egress.run(image, ["sleep", "0.5"]).duration > 0
        @freeze_time("2020-01-02")
        def test_freezegun(egress, image, curl): measure(egress, image, curl)
        @travel("2020-01-02")
        def test_time_machine(egress, image, curl): measure(egress, image, curl)
        """,
        "-Wignore",
        "--timeout=60",
        f"--egress-link={link}",
    ).assert_outcomes(passed=2)


@pytest.mark.plugins("socket")
@pytest.mark.parametrize(
    "options", [["--disable-socket"], ["--disable-socket", "--allow-unix-socket"]]
)
def test_the_marker_that_enables_sockets_is_enough_for_a_container(
    run_real: RunPytest, options: list[str]
) -> None:
    run_real(
        """
        @pytest.mark.enable_socket
        def test_a(egress, curl):
            egress.intercept_https("a.test", {"n": 1})
            assert curl("https://a.test/") == '{"n": 1}'
        """,
        *options,
        "-Wignore",
    ).assert_outcomes(passed=1)


@pytest.mark.plugins("socket")
def test_a_container_needs_none_of_the_hosts_that_are_allowed(run_real: RunPytest) -> None:
    run_real(
        """
        def test_a(egress, curl):
            egress.intercept_https("a.test", {"n": 1})
            assert curl("https://a.test/") == '{"n": 1}'
        """,
        "--allow-hosts=192.0.2.1",
        "--allow-unix-socket",
        "-Wignore",
    ).assert_outcomes(passed=1)


@pytest.mark.plugins("socket")
@pytest.mark.parametrize("link", ["descriptor", "stream"])
@pytest.mark.parametrize(
    "options", [["--disable-socket"], ["--allow-hosts=127.0.0.1"]], ids=["none", "hosts"]
)
def test_a_test_that_may_open_no_socket_has_containers_all_the_same(
    run_real: RunPytest, options: list[str], link: str
) -> None:
    run_real(
        f"""
        import socket, urllib.request
        from pytest_egress import forward, http_ok
        def may_connect(port):
            try: socket.create_connection(("127.0.0.1", port)).close()
            except Exception as error:
                assert "A test tried to use socket" in str(error)
                return False
            return True
        async def handler(request): return {{"n": 1}}
        def test_a(egress, image, curl):
            egress.intercept_https("a.test", handler)
            server = egress.start(image, "python3 -m http.server 8080", wait=http_ok(8080))
            assert curl("https://a.test/") == '{{"n": 1}}'
            egress.intercept_http("b.test", forward(server, 8080))
            assert "Directory listing" in curl("http://b.test/")
            assert may_connect(server.address(8080)[1]) is {options != ["--disable-socket"]}
            egress.intercept_http("c.test", forward("http://192.0.2.1:9"))
            assert "cannot be reached: A test tried to use socket." in curl("http://c.test/")
        """,
        *options,
        "--allow-unix-socket",
        f"--egress-link={link}",
        "-Wignore",
    ).assert_outcomes(passed=1)


@pytest.mark.plugins("socket")
@pytest.mark.parametrize("filter_", ["ignore", "error"])
@pytest.mark.parametrize("option", ["--disable-socket", "--allow-hosts=192.0.2.1"])
def test_a_test_that_may_not_reach_the_engine_says_what_to_type(
    run_real: RunPytest, option: str, filter_: str
) -> None:
    result = run_real(
        """
        @pytest.mark.enable_socket
        def test_a(egress, image): egress.run(image, ["true"])
        def test_b(egress, image): egress.run(image, ["true"])
        """,
        option,
        "-Wignore",
        f"-W{filter_}:A test tried",
    )
    lines_of(
        result,
        "E *EngineError: pytest-socket keeps this test from the Docker engine at unix:///*",
        "E *start pytest with --allow-unix-socket; to lift the ban *@pytest.mark.enable_socket.",
    )


# Ends of a run with real containers.


@pytest.mark.parametrize(
    ("end", "code"), [("KeyboardInterrupt", 2), ("pytest.exit('enough', returncode=7)", 7)]
)
def test_a_set_up_that_ends_the_run_leaves_no_half_started_container(
    run_real: RunPytest,
    pytester: pytest.Pytester,
    engine_client: docker.DockerClient,
    end: str,
    code: int,
) -> None:
    result = run_real(
        f"""
        from pytest_egress.targets.container import Container
        @pytest.fixture(scope="module")
        def broken(module_egress, image):
            def stop(container): raise {end}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Container, "_start", stop)
                module_egress.start(image, ["sleep", "infinity"])
        def test_a(egress, shop, broken): print("never")
        """,
        "-s",
        "-Wignore",
    )
    assert result.ret == code
    result.stdout.no_fnmatch_line("*never*")
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert eventually(
        lambda: not containers(engine_client, (pytester.path / "session").read_text())
    )


def test_a_time_out_by_signal_leaves_a_shared_container_to_the_next_test(
    run_real: RunPytest,
) -> None:
    result = run_real(
        """
        import threading
        @pytest.mark.timeout(5, func_only=True)
        @pytest.mark.egress(timeout=0.5)
        def test_a(shop, egress, curl):
            egress.intercept_https("a.test", lambda request: threading.Event().wait())
            curl("https://a.test/")
        @pytest.mark.timeout(5, func_only=True)
        def test_b(shop, egress, image): egress.run(image, ["sleep", "infinity"])
        def test_c(egress, curl):
            egress.intercept_https("a.test", {"n": 1})
            assert curl("https://a.test/") == '{"n": 1}'
            egress["a.test"].assert_called_once()
        """,
        "--timeout-method=signal",
        "-Wignore",
    )
    result.assert_outcomes(failed=2, passed=1)
    lines_of(result, "FAILED *test_a - Failed: Timeout*", "FAILED *test_b - Failed: Timeout*")


# Threads.


def test_threads_that_start_the_first_containers_together_share_one_ca_and_one_client(
    engine_client: docker.DockerClient,
) -> None:
    made = []

    def slowly(make: Callable[[], Any]) -> Callable[[], Any]:
        def wait_and_make() -> Any:
            made.append(make)
            threading.Event().wait(0.2)
            return make()

        return wait_and_make

    session = Session(client=slowly(docker.from_env), ca=slowly(trustme.CA))
    with contextlib.closing(session), ThreadPoolExecutor(4) as pool:
        seen = list(
            pool.map(
                lambda _: (session.authority, session.engine.client, session.engine.folder),
                range(4),
            )
        )
    assert len({tuple(map(id, each)) for each in seen}) == 1
    assert made == [trustme.CA, docker.from_env]


def test_threads_may_run_containers_beside_each_other(clients_image: str) -> None:
    def run(number: int) -> str:
        url = f"https://{number}.test/"
        return egress.run(clients_image, ["curl", "-sS", "--fail", url]).stdout

    with Egress() as egress, ThreadPoolExecutor(4) as pool:
        egress.intercept_https("*.test", lambda request: request.host)
        assert [*pool.map(run, range(4))] == [f"{number}.test" for number in range(4)]
        assert len({exchange.container for exchange in egress.exchanges}) == 4
