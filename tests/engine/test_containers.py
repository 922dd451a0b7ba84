"""What `run` and `start` do with a container: its result, its files, its ports, its end, and every way to fail."""

from __future__ import annotations

import errno
import gc
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import NotFound
from docker.models.containers import Container as DockerContainer

from pytest_egress import (
    CommandError,
    ContainerTimeoutError,
    Egress,
    EngineError,
    ImageError,
    LinkError,
    UnroutedError,
    http_ok,
    log_line,
    port_open,
)
from pytest_egress.engine.archive import read_tar
from pytest_egress.session import Session
from pytest_egress.targets.handle import Container
from pytest_egress.targets.options import REFUSED_OPTIONS
from pytest_egress.targets.plan import plan
from pytest_egress.targets.program import LINK_FOLDER
from pytest_egress.targets.readiness import Strategy

SERVER = """
import http.server, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = {"/size": b"x" * 5_000_000, "/broken": b"no"}.get(self.path, self.path.encode())
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("", 8000), Handler)
print("listening", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def server(module_egress: Egress, clients_image: str) -> Container:
    """A web server that answers with the path it was asked for."""
    return module_egress.start(
        clients_image,
        ["python3", "/srv/server.py"],
        files={"/srv/server.py": SERVER},
        wait=[log_line("^listening$"), port_open(8000), http_ok(8000, "/ready")],
    )


def text(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """The whole text of an error."""
    return str(caught.value)


# run


def test_run_gives_exit_code_and_both_streams(egress: Egress, bare_image: str) -> None:
    result = egress.run(bare_image, ["sh", "-c", r"printf 'out\377'; echo err >&2; exit 7"])
    assert result.exit_code == 7
    assert (result.stdout_bytes, result.stdout) == (b"out\xff", "out\N{REPLACEMENT CHARACTER}")
    assert (result.stderr_bytes, result.stderr) == (b"err\n", "err\n")
    assert result.duration > 0


def test_run_with_check_raises_with_the_logs(egress: Egress, bare_image: str) -> None:
    with pytest.raises(CommandError) as caught:
        egress.run(bare_image, ["sh", "-c", "echo out; echo err >&2; exit 3"], check=True)
    assert text(caught) == ("bare:latest exited with code 3\nThe end of its log:\n  | out\n  | err")
    assert (caught.value.exit_code, caught.value.logs) == (3, "out\nerr\n")


def test_run_with_check_returns_what_succeeded(egress: Egress, bare_image: str) -> None:
    assert egress.run(bare_image, ["true"], check=True).exit_code == 0


def test_run_removes_what_goes_on_for_too_long(
    egress: Egress, bare_image: str, engine_client: docker.DockerClient
) -> None:
    with pytest.raises(ContainerTimeoutError) as caught:
        egress.run(bare_image, ["sh", "-c", "hostname; sleep 600"], timeout=0.5)
    hostname = caught.value.logs.strip()
    assert text(caught) == (
        "bare:latest still ran after 0.5 s; it has been removed\n"
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
    result = egress.run(bare_image, "printf '%s|' 'two words' $HOME && true")
    assert result.stdout == "two words|$HOME|&&|true|"


def test_the_images_own_command_is_the_default(egress: Egress, roots_image: str) -> None:
    result = egress.run(roots_image, input="echo from bash")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "from bash\n", "")


# start


def test_url_reaches_the_port_through_the_sidecar(server: Container) -> None:
    assert server.url(8000).startswith("http://127.0.0.1:")
    assert get(server.url(8000, "/a?b=c")) == b"/a?b=c"
    assert get(server.url(8000, "relative")) == b"/relative"


def get(url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, data, timeout=10) as response:
        return bytes(response.read())


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
    assert text(caught) == f"{port!r} is no port; it takes an int from 1 to 65535"


def test_exec_runs_a_command_and_takes_options(server: Container) -> None:
    result = server.exec(["sh", "-c", "pwd; id -u; echo err >&2; exit 4"], workdir="/tmp", user="9")
    assert (result.exit_code, result.stdout, result.stderr) == (4, "/tmp\n9\n", "err\n")


def test_exec_of_a_command_that_is_missing_says_so(server: Container) -> None:
    result = server.exec(["nosuch"])
    assert result.exit_code in (126, 127)
    assert 'exec: "nosuch": executable file not found' in result.stdout + result.stderr


def test_logs_grow_while_it_runs_and_wait_gives_the_result(egress: Egress, bare_image: str) -> None:
    script = "echo first; read line < /tmp/pipe; echo second $line; exit 5"
    command = ["sh", "-c", f"mkfifo /tmp/pipe; {script}"]
    container = egress.start(bare_image, command, wait=log_line("first"))
    assert container.logs() == "first\n"
    container.exec(["sh", "-c", "echo go > /tmp/pipe"])
    result = container.wait(timeout=30)
    assert (result.exit_code, result.stdout) == (5, "first\nsecond go\n")
    assert container.logs() == "first\nsecond go\n"


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
    assert labels.items() >= {"team": "payments", **egress.session.engine.labels}.items()


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
    assert text(caught) == (
        "bare:latest exited with code 3 before it was ready: "
        "port 80 is not open (Connection refused)\n"
        "The end of its log:\n  | starting"
    )
    assert caught.value.exit_code == 3


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
    container = egress.session.name(clients_image)  # a number where `server` runs too
    with pytest.raises(ContainerTimeoutError) as caught:
        egress.start(
            clients_image,
            ["python3", "/server.py"],
            files={"/server.py": SERVER},
            wait=[log_line("listening"), wait],
            timeout=4,
        )
    assert text(caught) == (
        f"{container} was not ready after 4 s: {missing}\nThe end of its log:\n  | listening"
    )
    assert egress.containers == []


def test_an_error_about_readiness_lists_what_was_unrouted(clients_image: str) -> None:
    code = "curl -sS --retry 0 https://config.example.test/v1 >/dev/null; exit 1"
    egress = Egress()
    with pytest.raises(CommandError) as caught, egress:
        egress.start(clients_image, ["sh", "-c", code], wait=port_open(80))
    assert text(caught) == (
        "clients:latest exited with code 1 before it was ready: "
        "port 80 is not open (Connection refused)\n"
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
    assert text(caught) == error


# What is refused before anything is created.

OUT = "it would give the target a way out; a target has its sidecar's network and no other"
NO_PORTS = "nothing is published; container.url(port) reaches a port through the sidecar"
NAMES = "every name resolves, and is answered by the test"
REMOVED = "every container is removed at the end of its scope"
HOST = "with it a target can reach the host's network namespace"
REFUSED: list[tuple[str, Any, str]] = [
    ("network", "bridge", OUT),
    ("network_mode", "host", OUT),
    ("network_disabled", True, OUT),
    ("networking_config", {"net": {}}, OUT),
    ("mac_address", "02:00:00:00:00:01", OUT),
    ("ports", {"80/tcp": 8080}, NO_PORTS),
    ("publish_all_ports", True, NO_PORTS),
    ("dns", ["192.0.2.1"], NAMES),
    ("dns_opt", ["ndots:5"], NAMES),
    ("dns_search", ["corp.test"], NAMES),
    ("links", {"db": "db"}, "name the other container in a route instead"),
    (
        "privileged",
        True,
        "a privileged target can leave its namespace; "
        "give it the capabilities it needs with cap_add=[...]",
    ),
    ("auto_remove", True, REMOVED),
    ("remove", True, REMOVED),
    (
        "detach",
        True,
        "egress.start() returns while the container runs, egress.run() when it has ended",
    ),
    (
        "stream",
        True,
        "egress.start() returns a container whose logs() can be read while it runs",
    ),
    ("stdin_open", True, "give what the command reads as input="),
    (
        "name",
        "shop",
        "egress gives each container a name of its own, by which it is told from others; see container.id",
    ),
    ("log_config", {"type": "none"}, "the log is read back into the test's report"),
    ("environment", {"A": "b"}, "the variables go into env="),
    ("working_dir", "/srv", "the folder goes into workdir="),
    ("pid_mode", "host", HOST),
    ("ipc_mode", "host", HOST),
    ("uts_mode", "host", HOST),
]


@pytest.mark.parametrize(("name", "value", "instead"), REFUSED, ids=[row[0] for row in REFUSED])
def test_an_option_that_would_leave_the_sidecar_is_refused_by_name(
    egress: Egress, name: str, value: Any, instead: str
) -> None:
    for method in (egress.run, egress.start):
        with pytest.raises(ValueError) as caught:
            method("never:looked-up", **{name: value})
        assert text(caught) == f"{name}={value!r} is refused: {instead}"


def test_every_refused_option_is_in_the_list_above() -> None:
    assert set(REFUSED_OPTIONS) <= {row[0] for row in REFUSED}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"env": ["A=b"]}, "env= takes a mapping of names to values, not ['A=b']"),
        ({"files": {"/a": 1}}, "files={'/a': ...} takes str, bytes or a Path, not 1"),
        ({"files": "/a"}, "files= takes a mapping of paths to contents, not '/a'"),
        ({"input": 1}, "input= takes str or bytes, not 1"),
        (
            {"extra_hosts": ["db:192.0.2.1"]},
            "extra_hosts= takes a mapping of names to addresses, not ['db:192.0.2.1']",
        ),
        (
            {"enviroment": {}},
            "there is no option enviroment=; besides their own, run() and start() take those of "
            "docker-py's containers.create()",
        ),
    ],
    ids=["env", "file", "files", "input", "extra_hosts", "unknown"],
)
def test_an_option_of_the_wrong_type_is_refused(
    egress: Egress, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(TypeError) as caught:
        egress.run("never:looked-up", **options)
    assert text(caught) == error


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"env": {"A": None}}, "env['A'] is None: leave it out, or write '' for an empty value"),
        ({"env": {"A": b"x"}}, "env['A'] takes a str, not the bytes b'x'"),
        ({"timeout": None}, "timeout=None: it takes a number of seconds"),
    ],
    ids=["none", "bytes", "timeout"],
)
def test_a_value_that_nobody_can_mean_is_refused(
    egress: Egress, options: dict[str, Any], error: str
) -> None:
    for method in (egress.run, egress.start):
        with pytest.raises(TypeError) as caught:
            method("never:looked-up", **options)
        assert text(caught) == error


def test_an_option_that_is_refused_may_be_given_unset() -> None:
    unset = {"environment": {}, "stdin_open": False}
    checked = plan(
        "shop",
        None,
        env={"N": "1"},
        files={Path("/x"): "a"},  # type: ignore[dict-item]  # more than is promised
        input=None,
        own={},
        docker_options=unset,
    )
    assert (checked.options, checked.env) == ({}, {"N": "1"})
    assert read_tar(checked.files or b"").keys() == {"x"}


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        (b"ready", "log_line() takes a regular expression that is a str, not b'ready'"),
        (re.compile(b"x"), "log_line() takes a regular expression that is a str, not re.compile("),
        ("*ready", "log_line('*ready'): it is no regular expression (nothing to repeat at"),
    ],
    ids=["bytes", "pattern-of-bytes", "malformed"],
)
def test_a_line_to_wait_for_is_checked_where_it_is_declared(pattern: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        log_line(pattern)


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/"])
def test_a_path_that_leads_nowhere_is_refused_before_anything_starts(
    egress: Egress, path: str
) -> None:
    with pytest.raises(ValueError, match=r"^cannot put "):
        egress.run("never:looked-up", files={path: "x"})


@pytest.mark.parametrize(
    ("image", "command", "error"),
    [
        ("", None, "the image is a name like 'shop:latest', not ''"),
        (None, None, "the image is a name like 'shop:latest', not None"),
        ("shop", 5, "the command is a list of arguments, or a string, not 5"),
        ("shop", ["a", 5], "5 in the command ['a', 5] is no str; write '5'"),
    ],
    ids=["empty", "none", "number", "member"],
)
def test_an_image_or_command_that_is_none_is_refused(
    egress: Egress, image: Any, command: Any, error: str
) -> None:
    with pytest.raises(TypeError) as caught:
        egress.run(image, command)
    assert text(caught) == error


# What the engine cannot do. Its own sentence is a placeholder here.


def test_an_image_that_is_missing_and_cannot_be_pulled_is_named(egress: Egress) -> None:
    name = "registry.invalid:5000/shop:v2"
    with pytest.raises(ImageError) as caught:
        egress.run(name)
    assert re.fullmatch(
        re.escape(f"the image {name!r} is not on the engine at ")
        + "unix:///.+ and cannot be pulled: .+\n"
        + re.escape(
            "Check the name (`docker images` lists what is there), "
            f"build it (`docker build -t {name} .`), or log in to its registry "
            "(`docker login registry.invalid:5000`)."
        ),
        text(caught),
    )
    assert egress.containers == []


def test_a_command_that_is_missing_in_the_image_is_named(egress: Egress, bare_image: str) -> None:
    with pytest.raises(EngineError) as caught:
        egress.run(bare_image, ["nosuch", "--flag"])
    assert re.fullmatch(
        re.escape(
            f"there is no 'nosuch' in {bare_image!r}\n"
            f"the engine did not start {bare_image!r} with ['nosuch', '--flag']: "
        )
        + ".*executable file .*not found in \\$PATH.*\n"
        + re.escape(
            f"Look at what the image has: `docker run --rm -it --entrypoint sh {bare_image}`."
        ),
        text(caught),
    )
    assert egress.containers == []


@pytest.mark.parametrize(
    ("program", "begins"),
    [("/nosuch", "there is no '/nosuch' in "), ("/etc/passwd", "'/etc/passwd' in ")],
)
def test_a_path_that_cannot_be_executed_is_named_first(
    egress: Egress, bare_image: str, program: str, begins: str
) -> None:
    with pytest.raises(EngineError) as caught:
        egress.run(bare_image, [program])
    assert text(caught).startswith(begins)


HUNGRY = ["python3", "-c", "bytearray(200 << 20)"]
LITTLE: dict[str, Any] = {"mem_limit": "32m", "memswap_limit": "32m"}


def test_want_of_memory_is_named_where_a_command_fails_by_it(
    egress: Egress, clients_image: str
) -> None:
    result = egress.run(clients_image, HUNGRY, **LITTLE)
    assert (result.exit_code, "OOMKilled" in result.note) == (137, True)
    with pytest.raises(CommandError, match=r"exited with code 137 \(.* want of memory: OOMKilled"):
        egress.run(clients_image, HUNGRY, check=True, **LITTLE)


def test_want_of_memory_is_named_where_a_container_ends_by_it_before_it_is_ready(
    egress: Egress, clients_image: str
) -> None:
    with pytest.raises(CommandError, match=r"exited with code 137 \(.*OOMKilled.* before it was"):
        egress.start(clients_image, HUNGRY, wait=port_open(80), **LITTLE)


@pytest.mark.docker
def test_an_option_that_the_engine_refuses_is_quoted(egress: Egress, bare_image: str) -> None:
    with pytest.raises(EngineError) as caught:
        egress.run(bare_image, ["true"], mem_limit="1k")
    assert re.fullmatch(
        re.escape(f"the engine did not create a container of {bare_image!r}: ")
        + ".*memory limit.*",
        text(caught),
    )


@pytest.fixture
def with_client() -> Iterator[Callable[[Callable[[], docker.DockerClient]], Egress]]:
    """Makes an egress whose engine's client comes from a factory."""
    made: list[Egress] = []

    def make(client: Callable[[], docker.DockerClient]) -> Egress:
        made.append(Egress(session=Session(client=client)))
        return made[-1]

    yield make
    for egress in made:
        egress.session.close()


@pytest.fixture
def _unanswered() -> Iterator[None]:
    """Collect the sockets that docker-py leaves open where nothing answers, in their own test."""
    yield
    gc.collect()


WithClient = Callable[[Callable[[], docker.DockerClient]], Egress]
START_ENGINE = (
    "Start one (`systemctl start docker`, Docker Desktop), or name another with DOCKER_HOST; "
    "`docker info` shows whether it answers."
)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("_unanswered")
def test_an_engine_that_refuses_connections_is_named(
    monkeypatch: pytest.MonkeyPatch, bare_image: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(EngineError) as caught, Egress() as egress:
        egress.run(bare_image)
    assert text(caught) == (
        f"no Docker engine answers at {address}: [Errno 111] Connection refused\n{START_ENGINE}"
    )


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("_unanswered")
def test_a_socket_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, bare_image: str, tmp_path: Path
) -> None:
    address = f"unix://{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(EngineError) as caught, Egress() as egress:
        egress.run(bare_image)
    assert text(caught) == (
        f"no Docker engine answers at {address}: [Errno 2] No such file or directory\n"
        f"{START_ENGINE}"
    )


def test_a_failure_without_an_engine_ends_at_the_line_of_the_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{pytester.path}/docker.sock")
    pytester.makepyfile("def test_it(egress):\n    egress.run('shop:latest')")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       egress.run('shop:latest')",
            "E       pytest_egress.errors.EngineError: no Docker engine answers at *",
            "E       Start one *",
            "",
            "*.py:2: EngineError",
        ],
        consecutive=True,
    )


def test_a_user_whom_the_socket_refuses_is_told_of_its_group(
    with_client: WithClient, bare_image: str
) -> None:
    def refused() -> docker.DockerClient:
        raise docker.errors.DockerException from PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(EngineError) as caught:
        with_client(refused).run(bare_image)
    what, cure = text(caught).splitlines()
    assert what.endswith(": [Errno 13] Permission denied")
    assert "`sudo usermod --append --groups docker $USER`, and log in again" in cure


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("_unanswered")
def test_a_client_of_the_tests_own_that_gets_no_answer_is_an_engine_error(
    with_client: WithClient, bare_image: str, tmp_path: Path
) -> None:
    egress = with_client(
        lambda: docker.DockerClient(base_url=f"unix://{tmp_path}/docker.sock", version="1.44")
    )
    with pytest.raises(EngineError, match=f"no Docker engine answers at .*{tmp_path.name}"):
        egress.run(bare_image)


@pytest.mark.docker
def test_an_engine_that_does_not_see_this_machines_files_is_a_named_limit(
    with_client: WithClient, bare_image: str, python_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("PYTEST_EGRESS_LINK", "descriptor")
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_IMAGE", python_image)

    def elsewhere() -> docker.DockerClient:
        """A client whose engine finds no folder of ours, as one on another machine."""
        client = docker.from_env()
        create = client.api.create_container

        def create_with_missing_folder(**options: Any) -> Any:
            for mount in options["host_config"]["Mounts"]:
                if mount["Target"] == LINK_FOLDER:
                    mount["Source"] = "/nonexistent/folder"
            return create(**options)

        monkeypatch.setattr(client.api, "create_container", create_with_missing_folder)
        return client

    egress = with_client(elsewhere)
    with pytest.raises(LinkError) as caught:
        egress.run(bare_image)
    assert re.fullmatch(
        "The engine does not share this machine's files "
        "\\(.*bind source path does not exist: /nonexistent/folder\\)\\.\n"
        "The descriptor link needs them; --egress-link=auto takes the stream link where they are not\\.",
        text(caught),
    )
    assert egress.containers == []


def test_a_container_of_a_wider_scope_that_is_unrouted_while_it_starts_is_an_error(
    clients_image: str,
) -> None:
    session = Session()
    module = Egress(session=session, scope="module")
    command = ["sh", "-c", "curl -sS https://config.example.test/; echo up; sleep 600"]
    with pytest.raises(UnroutedError) as caught:
        module.start(clients_image, command, wait=log_line("up"))
    session.close()
    assert text(caught) == (
        "1 unrouted attempt of clients:latest; nothing got out:\n\n"
        "  GET https://config.example.test/\n"
        '      to answer it: egress.intercept_https("config.example.test", method="GET", path="/")'
    )


def test_a_broken_answer_of_the_target_is_the_clients_to_see(server: Container) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server.url(8000, "/broken"))
    with caught.value:
        assert caught.value.code == 500


@pytest.mark.parametrize(
    ("started", "finished", "told"),
    [("2026-11-25T15:45:55.7300", "2026-11-25T15:45:55.7092", True), ("15:45", "15:46", False)],
)
def test_output_that_the_engine_may_have_lost_is_told(
    egress: Egress,
    bare_image: str,
    monkeypatch: pytest.MonkeyPatch,
    started: str,
    finished: str,
    told: bool,
) -> None:
    def reload(container: DockerContainer) -> None:
        container.attrs["State"] = {"StartedAt": started, "FinishedAt": finished}

    monkeypatch.setattr(DockerContainer, "reload", reload)
    silent, loud = egress.run(bare_image, ["true"]), egress.run(bare_image, ["echo", "x"])
    text = "it ended before the engine had noted its start: on a busy machine Docker may lose such output"
    assert (silent.note, loud.note) == (text if told else "", "" if loud.stdout else silent.note)


# What is under way when a container is stopped.


@pytest.mark.egress(unrouted="block")
@pytest.mark.parametrize("end", [lambda container: container.stop(0), Container.__exit__])
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
