"""Real clients of HTTP/2: those that negotiate it, and those that know it beforehand, with bodies both ways."""

from __future__ import annotations

import json
import textwrap
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, Literal

import pytest

from pytest_egress import Egress, Request
from pytest_egress.targets.handle import Container

HOST: Final = "api.example.test"
SIZE: Final = 2_000_000
"""Bytes, of a body each way: more than a stream's window."""


NEEDED_BY_HTTPX: Final = ("h2", "hpack", "hyperframe")


@dataclass(frozen=True)
class Http2User:
    """A row: a command that posts SIZE bytes twice and prints how many come back each time."""

    name: str
    command: list[str]
    scheme: Literal["https", "http"] = "https"
    image: Literal["runtimes", "java"] = "runtimes"


NODE: Final = """
const http2 = require('http2'), session = http2.connect(URL);
let left = 2;
for (let i = 0; i < 2; i++) {
  const stream = session.request({':method': 'POST', ':path': '/echo'});
  let size = 0;
  stream.on('data', (piece) => { size += piece.length; });
  stream.on('end', () => { console.log(size); if (!--left) session.close(); });
  stream.end(Buffer.alloc(SIZE));
}
"""
JAVA: Final = """
import java.net.URI;
import java.net.http.*;
import java.util.stream.*;

public class Twice {
    public static void main(String[] args) throws Exception {
        var client = HttpClient.newHttpClient();
        var request = HttpRequest.newBuilder(URI.create(args[0] + "/echo"))
            .POST(HttpRequest.BodyPublishers.ofByteArray(new byte[SIZE])).build();
        var first = client.sendAsync(request, HttpResponse.BodyHandlers.ofByteArray());
        var other = client.sendAsync(request, HttpResponse.BodyHandlers.ofByteArray());
        for (var answer : Stream.of(first, other).map(each -> each.join()).toList())
            System.out.println(answer.body().length);
    }
}
"""
HTTPX: Final = """
import httpx
with httpx.Client(http2=True) as client:
    for _ in range(2):
        print(len(client.post(URL + "/echo", content=bytes(SIZE)).content))
"""


def filled(code: str, scheme: str) -> str:
    """A program with its URL and size."""
    return code.replace("URL", f"'{scheme}://{HOST}'").replace("SIZE", str(SIZE))


def curl(flag: str, scheme: str) -> list[str]:
    """Two requests of curl's at once, on one connection."""
    url = f"{scheme}://{HOST}/echo"
    each = f"--data-binary @/tmp/body -o /dev/null -w '%{{size_download}}\\n' {url}"
    head = f"head -c {SIZE} /dev/zero > /tmp/body"
    return ["sh", "-c", f"{head} && curl -fsS {flag} --parallel {each} --next -fsS {flag} {each}"]


USERS: Final = [
    Http2User("curl", curl("--http2", "https")),
    Http2User("curl that knows", curl("--http2-prior-knowledge", "http"), "http"),
    Http2User("Node.js http2", ["node", "-e", filled(NODE, "https")]),
    Http2User("Node.js http2 that knows", ["node", "-e", filled(NODE, "http")], "http"),
    Http2User("httpx", ["python3", "-c", textwrap.dedent(filled(HTTPX, "https"))]),
    Http2User(
        "Java HttpClient",
        ["/usr/lib/jvm/21/bin/java", "/srv/Twice.java", f"https://{HOST}"],
        image="java",
    ),
]


@pytest.fixture(scope="module")
def machine(module_egress: Egress, runtimes_image: str) -> Container:
    """A container with all clients but Java's that waits for commands; httpx needs what this process has too."""
    folders = [Path(import_module(name).__file__ or "").parent for name in NEEDED_BY_HTTPX]
    sources = [source for folder in folders for source in folder.rglob("*.py")]
    files = {f"/opt/h2/{source.relative_to(folders[0].parent)}": source for source in sources}
    env = {"PYTHONPATH": "/opt/h2"}
    return module_egress.start(runtimes_image, ["sleep", "infinity"], files=files, env=env)


@pytest.fixture(scope="module")
def java_machine(module_egress: Egress, java_image: str) -> Container:
    """A container with a JDK that waits for commands."""
    files = {"/srv/Twice.java": filled(JAVA, "https").encode()}
    return module_egress.start(java_image, ["sleep", "infinity"], files=files)


@pytest.mark.runtimes
@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
def test_a_client_of_http_2_sends_and_gets_bodies(
    egress: Egress, request: pytest.FixtureRequest, user: Http2User
) -> None:
    machine: Container = request.getfixturevalue(
        "java_machine" if user.image == "java" else "machine"
    )

    def echo(request: Request) -> bytes:
        return request.content

    declare = egress.intercept_https if user.scheme == "https" else egress.intercept_http
    route = declare(HOST, echo, path="/echo", method="POST")
    done = machine.exec(user.command, timeout=600)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert done.stdout.split() == [str(SIZE)] * 2
    assert [call.request.http_version for call in route.calls] == ["2", "2"]
    assert [len(call.request.content) for call in route.calls] == [SIZE] * 2


def test_the_url_of_a_request_is_that_of_its_client(egress: Egress, runtimes_image: str) -> None:
    route = egress.intercept_https(HOST, {"hello": "world"})
    url = f"https://{HOST}/a%20b?c=d&c=e"
    curl = egress.run(runtimes_image, ["curl", "-fsS", "--http2", "-b", "x=1; y=2", url])
    assert json.loads(curl.stdout) == {"hello": "world"}
    request = route.assert_called_once().request
    assert (request.url, request.http_version) == (url, "2")
    assert (request.headers["host"], request.headers["cookie"]) == (HOST, "x=1; y=2")


MANY: Final = """
const http2 = require('http2'), session = http2.connect(URL);
session.on('error', () => {});
for (let i = 0; i < 30; i++) session.request({':path': '/whole'}).on('error', () => {});
for (let i = 0; i < 10; i++) {
  const stream = session.request({':method': 'POST', ':path': '/half'}).on('error', () => {});
  stream.write('some');
}
"""


@pytest.mark.parametrize("how", ["kill -9 $(pidof node)", "kill -STOP $(pidof node)"])
def test_each_stream_of_a_client_that_is_killed_or_stands_still_is_in_the_ledger(
    egress: Egress, runtimes_image: str, how: str
) -> None:
    gate = threading.Event()

    def handler(request: Request) -> bytes:
        gate.wait(30)
        return b"late"

    egress.intercept_https(HOST, handler)
    command = f'node -e "{filled(MANY, "https")}" & sleep infinity'
    container = egress.start(runtimes_image, ["sh", "-c", command])
    deadline = time.monotonic() + 30
    while len(egress.exchanges) < 30 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert container.exec(["sh", "-c", how]).exit_code == 0
    gate.set()
    container.stop()
    paths = [(each.request.path, each.outcome) for each in egress.exchanges]
    assert sorted(paths) == [("/half", "recorded")] * 10 + [("/whole", "routed")] * 30
    assert {each.request.content for each in egress.exchanges if each.request.path == "/half"} == {
        b"some"
    }
