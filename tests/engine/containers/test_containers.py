"""What `run` and `start` do with a container: its result, its files, its ports, its end, and every way to fail."""

from __future__ import annotations

import json
import pickle
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import NotFound

from pytest_egress import CommandError, ContainerTimeoutError, Egress, http_ok, log_line, port_open
from pytest_egress.session import Session
from pytest_egress.targets.handle import Container
from pytest_egress.targets.readiness import Strategy
from tests.support.container_server import SERVER, WithClient, error_text, get


@pytest.fixture(scope="module")
def server(module_egress: Egress, clients_image: str) -> Container:
    """A web server that answers with the path it was asked for."""
    return module_egress.start(
        clients_image,
        ["python3", "/srv/server.py"],
        files={"/srv/server.py": SERVER},
        wait=[log_line("^listening$"), port_open(8000), http_ok(8000, "/ready")],
    )


# run


def test_run_gives_exit_code_and_both_streams(egress: Egress, bare_image: str) -> None:
    result = egress.run(
        bare_image, ["sh", "-c", r"printf 'out\377'; echo err >&2; exit 7"], check=False
    )
    assert result.exit_code == 7
    assert (result.stdout_bytes, result.stdout) == (b"out\xff", "out\N{REPLACEMENT CHARACTER}")
    assert (result.stderr_bytes, result.stderr) == (b"err\n", "err\n")
    assert result.duration > 0


END_OF_A_FAILURE = """exited with code 3
The end of its log:
  | out
  | err
Where it may fail, check=False returns its result."""


def test_run_raises_for_a_command_that_fails_with_what_it_wrote(
    egress: Egress, bare_image: str
) -> None:
    with pytest.raises(CommandError) as caught:
        egress.run(bare_image, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    error = caught.value
    assert error_text(caught) == f"bare:latest {END_OF_A_FAILURE}"
    assert (error.exit_code, error.logs) == (3, "out\nerr\n")
    assert (error.stdout, error.stderr) == ("out\n", "err\n")


def test_run_removes_what_goes_on_for_too_long(
    egress: Egress, bare_image: str, engine_client: docker.DockerClient
) -> None:
    with pytest.raises(ContainerTimeoutError) as caught:
        egress.run(bare_image, ["sh", "-c", "hostname; sleep 600"], timeout=0.5)
    hostname = caught.value.logs.strip()
    assert error_text(caught) == (
        "bare:latest still ran after 0.5 s; it has been removed. "
        "A server is for egress.start(...), which returns while it runs.\n"
        f"The end of its log:\n  | {hostname}"
    )
    assert isinstance(caught.value, TimeoutError)
    assert egress.containers == []


@pytest.mark.parametrize("given", ["päper\n", "päper\n".encode()], ids=["text", "bytes"])
def test_input_is_what_standard_input_gives(
    egress: Egress, bare_image: str, given: str | bytes
) -> None:
    assert egress.run(bare_image, ["cat"], input=given).stdout == "päper\n"


def test_input_may_be_empty_large_or_left_unread(egress: Egress, bare_image: str) -> None:
    assert egress.run(bare_image, ["cat"], input="").stdout == ""
    large = b"0123456789abcdef" * 100_000
    assert egress.run(bare_image, ["wc", "-c"], input=large).stdout == "1600000\n"
    assert egress.run(bare_image, ["true"], input=large).exit_code == 0


def test_files_keep_their_content_and_whether_they_can_be_executed(
    egress: Egress, bare_image: str, tmp_path: Path
) -> None:
    program, data = tmp_path / "program", tmp_path / "data"
    program.write_text("#!/bin/sh\ncat /etc/app/text /etc/app/bytes /etc/app/data\n")
    program.chmod(0o755)
    data.write_bytes(b"from disk\n")
    result = egress.run(
        bare_image,
        ["sh", "-c", "/usr/local/bin/program && stat --format=%a:%u:%g /etc/app/*"],
        files={
            "/usr/local/bin/program": program,
            "/etc/app/text": "text é\n",
            "/etc/app/bytes": b"bytes\n",
            "/etc/app/data": data,
        },
    )
    assert result.stdout.splitlines() == ["text é", "bytes", "from disk", *["644:0:0"] * 3]


def test_env_user_workdir_and_entrypoint_reach_the_command(egress: Egress, bare_image: str) -> None:
    result = egress.run(
        bare_image,
        ['id -u; id -g; pwd; echo "$GREETING"'],
        env={"GREETING": "hello  you"},
        user="1234:5678",
        workdir="/var/tmp",
        entrypoint=["sh", "-c"],
    )
    assert result.stdout.splitlines() == ["1234", "5678", "/var/tmp", "hello  you"]


def test_a_command_as_a_string_is_split_and_no_shell_sees_it(
    egress: Egress, bare_image: str
) -> None:
    result = egress.run(bare_image, "printf '%s|' 'two words' $HOME '&&' true")
    assert result.stdout == "two words|$HOME|&&|true|"
    assert egress.run(bare_image, ["echo", "&&", "|"]).stdout == "&& |\n"


def test_the_images_own_command_is_the_default(egress: Egress, roots_image: str) -> None:
    result = egress.run(roots_image, input="echo from bash")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "from bash\n", "")


# start


def test_url_reaches_the_port_through_the_sidecar(server: Container) -> None:
    assert server.url(8000).startswith("http://127.0.0.1:")
    assert get(server.url(8000, "/a?b=c")) == b"/a?b=c"
    assert get(server.url(8000, "relative")) == b"/relative"


def test_many_connections_and_large_bodies_cross_at_once(server: Container) -> None:
    bodies = [bytes([number]) * 2_000_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: get(server.url(8000, "/"), body), bodies))
    assert answers == bodies
    assert get(server.url(8000, "/size")) == b"x" * 5_000_000


def test_an_address_is_one_however_many_threads_ask_first(
    egress: Egress, server: Container
) -> None:
    barrier = threading.Barrier(8)

    def ask(_number: int) -> tuple[str, int]:
        barrier.wait()
        return server.address(8001)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


def test_a_closed_port_looks_closed(server: Container) -> None:
    with pytest.raises(ConnectionError):
        server.connect(9)
    with socket.create_connection(server.address(9), 5) as sock:
        assert sock.recv(1) == b""


@pytest.mark.parametrize("port", [0, 65536, "8000", True])
def test_a_port_that_is_none_is_refused(server: Container, port: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(port))) as caught:
        server.url(port)
    assert error_text(caught) == f"{port!r} is no port; it takes an int from 1 to 65535"


def test_exec_runs_a_command_and_takes_options(server: Container) -> None:
    result = server.exec(
        ["sh", "-c", "pwd; id -u; echo err >&2; exit 4"], workdir="/tmp", user="9", check=False
    )
    assert (result.exit_code, result.stdout, result.stderr) == (4, "/tmp\n9\n", "err\n")


def test_exec_raises_for_a_command_that_fails_with_what_it_wrote(server: Container) -> None:
    command = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    with pytest.raises(CommandError) as caught:
        server.exec(command)
    error = caught.value
    assert error_text(caught) == f"{command} in {server.name} {END_OF_A_FAILURE}"
    assert (error.exit_code, error.stdout, error.stderr) == (3, "out\n", "err\n")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.stdout, again.container) == (str(error), "out\n", server.name)


def test_a_command_that_may_have_failed_for_what_no_route_claims_says_so(
    pytester: pytest.Pytester, curl_image: str
) -> None:
    pytester.makepyfile(f"""
        def test_it(egress):
            egress.run({curl_image!r}, "curl -sS --fail https://api.test/")
    """)

    result = pytester.runpytest_subprocess("-p", "no:randomly")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *CommandError: curl exited with code 22",
            "E  *It attempted what no route claims, which may be why: GET https://api.test/",
            "*to answer it: egress.intercept_https(*",
        ]
    )


def test_exec_refuses_a_word_for_a_shell_before_it_asks_the_engine(server: Container) -> None:
    with pytest.raises(ValueError, match="is for a shell"):
        server.exec("echo a > /tmp/a")


def test_a_port_where_nothing_listens_is_in_the_report_of_a_failure(
    pytester: pytest.Pytester, bare_image: str
) -> None:
    pytester.makepyfile(
        f"""
        import urllib.request
        def test_a(egress):
            server = egress.start({bare_image!r}, ["sleep", "600"])
            urllib.request.urlopen(server.url(8000))
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "bare:latest: nothing listened on port 8000 when the test connected to it",
            "  to wait until something does: start(..., wait=port_open(8000))",
        ]
    )


def test_exec_of_a_command_that_is_missing_says_so(server: Container) -> None:
    result = server.exec(["nosuch"], check=False)
    assert result.exit_code in (126, 127)
    assert 'exec: "nosuch": executable file not found' in result.stdout + result.stderr


def test_logs_grow_while_it_runs_and_wait_gives_the_result(egress: Egress, bare_image: str) -> None:
    script = "echo first; read line < /tmp/pipe; echo second $line; exit 5"
    command = ["sh", "-c", f"mkfifo /tmp/pipe; {script}"]
    container = egress.start(bare_image, command, wait=log_line("first"))
    assert container.logs() == "first\n"
    # The container may end before this command does, and takes it along.
    container.exec(["sh", "-c", "echo go > /tmp/pipe"], check=False)
    result = container.wait(timeout=30)
    assert (result.exit_code, result.stdout) == (5, "first\nsecond go\n")
    assert container.logs() == "first\nsecond go\n"


@pytest.mark.parametrize(("lines", "is_said"), [(49, False), (60, True)])
def test_a_report_that_shows_the_end_of_a_log_says_so(
    pytester: pytest.Pytester, bare_image: str, lines: int, is_said: bool
) -> None:
    pytester.makepyfile(f"""
        def test_it(egress):
            egress.run({bare_image!r}, "seq {lines}")
            assert False
    """)

    shown = pytester.runpytest_subprocess("-p", "no:randomly").stdout.str().splitlines()

    assert str(lines) in shown
    assert any(line.startswith("(the last 50 lines; all of it: ") for line in shown) is is_said


def test_a_container_is_removed_by_its_with_block(
    egress: Egress, bare_image: str, engine_client: docker.DockerClient
) -> None:
    with egress.start(bare_image, ["sleep", "600"]) as container:
        assert engine_client.containers.get(container.id).status == "running"
    with pytest.raises(NotFound):
        engine_client.containers.get(container.id)


@pytest.mark.docker
def test_names_of_the_host_are_the_sidecars(egress: Egress, bare_image: str) -> None:
    result = egress.run(
        bare_image,
        ["sh", "-c", "hostname; hostname --fqdn; getent ahosts legacy | grep STREAM"],
        hostname="shop",
        domainname="example.test",
        extra_hosts={"legacy": "192.0.2.7"},
    )
    assert result.stdout.splitlines() == [
        "shop",
        "shop.example.test",
        "192.0.2.7       STREAM legacy",
    ]
    assert egress.ledger == []


def test_a_label_of_the_tests_own_stays_beside_ours(
    egress: Egress, bare_image: str, engine_client: docker.DockerClient
) -> None:
    container = egress.start(bare_image, ["sleep", "600"], labels={"team": "payments"})
    labels = engine_client.containers.get(container.id).labels
    assert labels.items() >= {"team": "payments", **egress._inner.session.engine.labels}.items()


def test_two_of_an_image_have_names_of_their_own(egress: Egress, bare_image: str) -> None:
    first, second = (egress.start(bare_image, ["sleep", "600"]) for _ in range(2))
    assert (first.name, second.name) == ("bare:latest", "bare:latest#2")
    assert repr(second) == "<Container bare:latest#2>"


def test_no_proxy_of_the_machines_configuration_reaches_a_target(
    with_client: WithClient, bare_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxies = {"proxies": {"default": {"httpsProxy": "http://proxy.example.test:3128"}}}
    (tmp_path / "config.json").write_text(json.dumps(proxies))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert "proxy" not in with_client(docker.from_env).run(bare_image, ["env"]).stdout.lower()


# Not ready.


def test_a_container_that_exits_before_it_is_ready_is_an_error(
    egress: Egress, bare_image: str
) -> None:
    command = ["sh", "-c", "echo starting; exit 3"]
    with pytest.raises(CommandError) as caught:
        egress.start(bare_image, command, wait=port_open(80))
    assert error_text(caught) == (
        "bare:latest exited with code 3 before it was ready: "
        "port 80 is not open (Connection refused)\n"
        "The end of its log:\n  | starting"
    )
    assert caught.value.exit_code == 3


def test_a_container_that_exits_without_a_word_tells_what_it_ran(
    egress: Egress, bare_image: str
) -> None:
    with pytest.raises(CommandError) as caught:
        egress.start(bare_image, ["serve"], entrypoint=["/bin/false"], wait=port_open(80))
    assert error_text(caught) == (
        "bare:latest exited with code 1 before it was ready: "
        "port 80 is not open (Connection refused)\n"
        "Its entrypoint and command: ['/bin/false', 'serve']\n"
        "It wrote nothing."
    )


@pytest.mark.parametrize(
    ("wait", "missing"),
    [
        (port_open(81), "port 81 is not open (Connection refused)"),
        (
            http_ok(8000, "/broken"),
            "GET :8000/broken is answered with 500",
        ),
        (http_ok(81), "GET :81/ is not answered (Connection refused)"),
        (log_line("^ready$"), "no line of the log matches '^ready$'"),
    ],
    ids=["port", "status", "no-http", "log"],
)
def test_a_container_that_is_never_ready_is_an_error(
    egress: Egress, clients_image: str, wait: Strategy, missing: str
) -> None:
    container = egress._inner.session.name(clients_image)  # a number where `server` runs too
    with pytest.raises(ContainerTimeoutError) as caught:
        egress.start(
            clients_image,
            ["python3", "/server.py"],
            files={"/server.py": SERVER},
            wait=[log_line("listening"), wait],
            timeout=4,
        )
    assert error_text(caught) == (
        f"{container} was not ready after 4 s: {missing}\nThe end of its log:\n  | listening"
    )
    assert egress.containers == []


def test_an_error_about_readiness_lists_what_was_unrouted(clients_image: str) -> None:
    code = "curl -sS --retry 0 https://config.example.test/v1 >/dev/null; exit 1"
    egress = Egress()
    with pytest.raises(CommandError) as caught, egress:
        egress.start(clients_image, ["sh", "-c", code], wait=port_open(80))
    assert error_text(caught) == (
        "clients:latest exited with code 1 before it was ready: "
        "port 80 is not open (Connection refused)\n"
        "Its entrypoint and command: ['sh', '-c', 'curl -sS --ret...test/v1 >/dev/null; exit 1']\n"
        "It wrote nothing.\n"
        "Meanwhile no route claimed:\n"
        "  GET https://config.example.test/v1\n"
        '      to answer it: egress.intercept_https("config.example.test", method="GET", path="/v1")'
    )


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (
            "8000",
            "wait= takes port_open(port), http_ok(port, path), log_line(pattern), "
            "or a list of them, not '8000'",
        ),
        (
            [8000],
            "wait= takes port_open(port), http_ok(port, path), log_line(pattern), "
            "or a list of them, not 8000",
        ),
        (
            port_open,
            "wait= takes port_open(port), http_ok(port, path), log_line(pattern), "
            f"or a list of them, not {port_open!r}",
        ),
    ],
    ids=["text", "number", "function"],
)
def test_wait_takes_strategies_only(egress: Egress, bare_image: str, wait: Any, error: str) -> None:
    with pytest.raises(TypeError) as caught:
        egress.start(bare_image, wait=wait)
    assert error_text(caught) == error


@pytest.fixture
def with_client() -> Iterator[Callable[[Callable[[], docker.DockerClient]], Egress]]:
    """Makes an egress whose engine's client comes from a factory."""
    made: list[Egress] = []

    def make(client: Callable[[], docker.DockerClient]) -> Egress:
        made.append(Egress(session=Session(client=client)))
        return made[-1]

    yield make
    for egress in made:
        egress._inner.session.close()


# What is under way when a container is stopped.


@pytest.mark.egress(unrouted="block")
@pytest.mark.parametrize("end", [lambda c: c.stop(0), lambda c: c.__exit__(None, None, None)])
def test_what_a_container_has_begun_when_it_is_stopped_is_in_the_ledger(
    egress: Egress, clients_image: str, end: Callable[[Container], None]
) -> None:
    half = "POST / HTTP/1.1\\r\\nHost: api.test\\r\\nContent-Length: 9\\r\\n\\r\\nhalf"
    script = f'exec 3<>/dev/tcp/api.test/80; printf "{half}" >&3; echo sent; sleep 600'
    end(egress.start(clients_image, ["bash", "-c", script], wait=log_line("sent")))
    (exchange,) = egress.exchanges
    assert (exchange.request.method, exchange.request.content) == ("POST", b"half")


@pytest.mark.parametrize("port", ["5432", None, 70000, 0])
def test_what_is_no_port_is_refused_and_harms_nothing(
    egress: Egress, bare_image: str, port: Any
) -> None:
    container = egress.start(bare_image, ["sleep", "600"])
    with pytest.raises(ValueError, match="is no port; it takes an int from 1 to 65535"):
        container.connect(port)
    with pytest.raises(OSError, match=r".+"):
        container.connect(9)


@pytest.mark.parametrize(
    ("command", "env", "error"),
    [
        (None, {}, "the command is a list of arguments, or a string, not None"),
        (["echo", "\ud800"], {}, "half of a surrogate pair"),
        ("true", {"A": None}, "leave it out"),
    ],
)
def test_exec_refuses_what_run_refuses(
    server: Container, command: Any, env: Any, error: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        server.exec(command, env=env)


def test_exec_names_the_argument_for_its_variables(server: Container) -> None:
    with pytest.raises(TypeError, match="environment= is env= now"):
        server.exec("true", environment={})  # type: ignore[call-arg]
