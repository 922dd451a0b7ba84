"""Clients of HTTP/2 in containers: those that prefer it where it is offered, and those that speak nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import h2
import hpack
import hyperframe
import pytest

from pytest_egress import Egress, HandlerError, Request, Response, sequence
from pytest_egress.targets.handle import Container
from tests.support.upstreams import succeed

URL = "https://api.test/greeting"
MEGABYTE = 1 << 20
NODE = """
const client = require('http2').connect('https://api.test');
const ask = path => new Promise((done, failed) => {
    const stream = client.request({':path': path, ':method': 'POST'});
    const answer = {body: '', trailers: {}};
    stream.on('response', headers => answer.status = headers[':status']);
    stream.on('trailers', trailers => answer.trailers = {...trailers});
    stream.setEncoding('utf8');
    stream.on('data', data => answer.body += data);
    stream.on('end', () => done(answer));
    stream.on('error', failed);
    stream.end('of ' + path);
});
Promise.all([...Array(100).keys()].map(n => ask('/' + n)))
    .then(answers => { console.log(JSON.stringify(answers)); client.close(); });
"""
HTTPX = """
import asyncio, httpx, json
async def main():
    async with httpx.AsyncClient(http2=True) as client:
        answers = await asyncio.gather(*(client.get(f"https://api.test/{n}") for n in range(300)))
    print(json.dumps([[a.http_version, a.text] for a in answers]))
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def client(module_egress: Egress, clients_image: str) -> Container:
    """A container with curl, Node.js, and Python's httpx with what it needs for HTTP/2."""
    folders = [Path(module.__file__ or "").parent for module in (h2, hpack, hyperframe)]
    modules = {
        f"/opt/h2/{path.relative_to(folder.parent)}": path
        for folder in folders
        for path in folder.rglob("*.py")
    }
    return module_egress.start(clients_image, ["sleep", "infinity"], files=modules)


@pytest.fixture(scope="module")
def nghttp(module_egress: Egress, http2_image: str) -> Container:
    return module_egress.start(http2_image, ["sleep", "infinity"])


def version(request: Request) -> str:
    return request.http_version


def test_curl_speaks_it_wherever_it_is_offered(egress: Egress, client: Container) -> None:
    egress.intercept_https("api.test", version)
    egress.intercept_http("api.test", version)
    shown = "curl -sS -w ' %{http_version}'"
    assert succeed(client.exec(f"{shown} https://api.test/")) == "2 2"
    assert succeed(client.exec(f"{shown} --http1.1 https://api.test/")) == "1.1 1.1"
    assert succeed(client.exec(f"{shown} http://api.test/")) == "1.1 1.1"
    assert succeed(client.exec(f"{shown} --http2 http://api.test/")) == "1.1 1.1"
    assert succeed(client.exec(f"{shown} --http2-prior-knowledge http://api.test/")) == "2 2"


def test_five_megabytes_go_each_way(egress: Egress, client: Container) -> None:
    def echo(request: Request) -> Response:
        return Response(content=request.content, headers={"X-Size": str(len(request.content))})

    route = egress.intercept_https("api.test", echo)
    make = f"head -c {5 * MEGABYTE} /dev/urandom > /tmp/sent"
    ask = f"curl -sS --data-binary @/tmp/sent {URL} | cmp - /tmp/sent"
    succeed(client.exec(["sh", "-c", f"{make} && {ask}"]))
    assert route.assert_called_once().request.http_version == "2"


def test_a_handler_that_fails_within_its_body_is_an_error_to_its_client(clients_image: str) -> None:
    """RST_STREAM(INTERNAL_ERROR), with which curl ends by 92."""

    def pieces() -> Iterator[str]:
        yield "begun"
        raise ValueError("late")

    def fails() -> None:
        with Egress() as own:
            own.intercept_https("api.test", lambda request: Response(stream=pieces()))
            done = own.run(clients_image, ["curl", "-sS", URL], check=False)
            ends.append((done.exit_code, done.stdout, "INTERNAL_ERROR" in done.stderr))

    ends: list[tuple[int | None, str, bool]] = []
    with pytest.raises(HandlerError, match="late"):
        fails()
    assert ends == [(92, "begun", True)]


def test_node_asks_a_hundred_times_at_once(egress: Egress, client: Container) -> None:
    met = threading.Barrier(50)  # so many handlers are at work at the same time

    def handler(request: Request) -> Response:
        met.wait(60)
        body = iter([request.content, b"!"])
        return Response(stream=body, trailers={"X-Path": request.path})

    route = egress.intercept_https("api.test", handler)
    answers = json.loads(succeed(client.exec(["node", "-e", NODE])))
    assert [(a["status"], a["body"], a["trailers"]["x-path"]) for a in answers] == [
        (200, f"of /{number}!", f"/{number}") for number in range(100)
    ]
    assert route.call_count == 100


def test_httpx_asks_300_times_at_once_over_one_connection(
    egress: Egress, client: Container
) -> None:
    route = egress.intercept_https("api.test", lambda request: request.path)
    command = ["env", "PYTHONPATH=/opt/h2", "python3", "-c", HTTPX]
    answers = json.loads(succeed(client.exec(command)))
    assert answers == [["HTTP/2", f"/{number}"] for number in range(300)]
    assert route.call_count == 300
    assert len({call.request.client for call in route.calls}) == 1


@pytest.mark.parametrize("jdk", [21, 25])
def test_the_http_client_of_java_prefers_it(egress: Egress, java_image: str, jdk: int) -> None:
    egress.intercept_https("api.test", version)
    command = [f"/usr/lib/jvm/{jdk}/bin/java", "Client", "HttpClient", "api.test"]
    assert egress.run(java_image, command, timeout=120).stdout.strip() == "2"


def test_net_http_of_go_prefers_it(egress: Egress, go_image: str) -> None:
    egress.intercept_https("api.test", version)
    assert egress.run(go_image, ["api.test"]).stdout.strip() == "2"


def test_nghttp_gets_trailers_and_an_early_hint(egress: Egress, nghttp: Container) -> None:
    def handler(request: Request) -> Response:
        request.send_interim(103, {"Link": "</a.css>; rel=preload"})
        return Response(stream=iter(["one", "two"]), trailers={"X-Sum": "42"})

    egress.intercept_https("api.test", handler)
    shown = succeed(nghttp.exec(f"nghttp -v {URL}"))
    assert "onetwo" in shown.replace("\n", "") or ("one" in shown and "two" in shown)
    assert ":status: 103" in shown
    assert "x-sum: 42" in shown


def test_h2load_opens_as_many_streams_as_it_may(egress: Egress, nghttp: Container) -> None:
    route = egress.intercept_https("api.test", {"hello": "world"})
    shown = succeed(nghttp.exec(f"h2load -n 2000 -c 8 -m 300 {URL}"))
    assert "2000 succeeded, 0 failed, 0 errored" in shown
    assert route.call_count == 2000


def test_a_connection_carries_one_request_after_the_other(
    egress: Egress, client: Container
) -> None:
    route = egress.intercept_https("api.test", sequence(b"first ", b"second"))
    assert succeed(client.exec(f"curl -sS {URL} {URL}")) == "first second"
    assert len({call.request.client for call in route.calls}) == 1
