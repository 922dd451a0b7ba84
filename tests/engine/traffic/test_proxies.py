"""Real clients behind a company's proxy: through a route of `proxy`, and without one."""

from __future__ import annotations

import textwrap
from typing import Final

import pytest
from grpc_health.v1 import health, health_pb2_grpc

from pytest_egress import Egress, grpc_server, refuse
from pytest_egress.traffic.entries import ProxyCall
from tests.support.greeter import pb_grpc
from tests.support.upstreams import succeed

PROXY: Final = "proxy.corp.test:3128"
URL: Final = "https://api.stripe.test/greeting"
HTTPS: Final = f"http://bob:secret@{PROXY}"
ENV: Final = {"HTTPS_PROXY": HTTPS, "https_proxy": HTTPS, "http_proxy": f"http://{PROXY}"}
REQUESTS: Final = f"import requests; print(requests.get({URL!r}).text)"
HTTPX: Final = f"import httpx; print(httpx.get({URL!r}).text)"
URLLIB: Final = f"import urllib.request as u; print(u.urlopen({URL!r}).read().decode())"
NODE: Final = f"fetch({URL!r}).then(r => r.text()).then(console.log)"
TUNNEL: Final = """
const http = require('http'), tls = require('tls'), https = require('https');
http.request({host: 'proxy.corp.test', port: 3128, method: 'CONNECT', path: 'api.stripe.test:443'})
  .on('connect', (answer, socket) => https.get({host: 'api.stripe.test', port: 443, path: '/greeting',
    createConnection: () => tls.connect({socket, servername: 'api.stripe.test'})}, r => r.pipe(process.stdout)))
  .end();
"""
CLIENTS: Final = {
    "curl": ("clients", ["curl", "-sS", URL]),
    "curl-http2": ("clients", ["curl", "-sS", "--http2", URL]),
    "curl-http1.0": ("clients", ["curl", "-sS", "--proxy1.0", f"http://{PROXY}", URL]),
    "wget": ("runtimes", ["wget", "-qO-", URL]),
    "requests": ("clients", ["python3", "-c", REQUESTS]),
    "httpx": ("clients", ["python3", "-c", HTTPX]),
    "urllib": ("clients", ["python3", "-c", URLLIB]),
    "node": ("clients", ["node", "-e", TUNNEL]),
    "go": ("go", ["/client", "api.stripe.test"]),
    "ruby": ("runtimes", ["ruby", "-ropen-uri", "-e", f"puts URI.open({URL!r}).read"]),
}
JAVA: Final = """
import java.net.*;
import java.net.http.*;

public class Get {
    public static void main(String[] args) throws Exception {
        try (var in = new URL(args[0]).openStream()) { System.out.println(new String(in.readAllBytes())); }
        var client = HttpClient.newBuilder().proxy(ProxySelector.getDefault()).build();
        var request = HttpRequest.newBuilder(URI.create(args[0])).build();
        System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
"""


@pytest.mark.parametrize(("image", "command"), CLIENTS.values(), ids=CLIENTS.keys())
def test_a_client_gets_its_answer_through_the_proxy(
    egress: Egress, request: pytest.FixtureRequest, image: str, command: list[str]
) -> None:
    proxy = egress.proxy(PROXY)
    route = egress.intercept_https("api.stripe.test", {"hello": "world"}, path="/greeting")
    result = egress.run(request.getfixturevalue(f"{image}_image"), command, env=ENV)
    assert succeed(result) == '{"hello": "world"}'
    assert route.assert_called_once().through == PROXY
    assert proxy.assert_called_once().target == "api.stripe.test:443"
    egress.assert_only("api.stripe.test")


def test_java_gets_its_answers_through_the_proxy(egress: Egress, java_image: str) -> None:
    proxy = egress.proxy(PROXY)
    route = egress.intercept_https("api.stripe.test", {"hello": "world"})
    options = ["-Dhttps.proxyHost=proxy.corp.test", "-Dhttps.proxyPort=3128"]
    files = {"/srv/Get.java": textwrap.dedent(JAVA)}
    result = egress.run(java_image, ["java", *options, "/srv/Get.java", URL], files=files)
    assert succeed(result).split("\n") == ['{"hello": "world"}'] * 2
    assert (route.call_count, proxy.call_count) == (2, 2)


def test_grpc_goes_through_the_proxy(egress: Egress, grpc_image: str) -> None:
    class Greeter(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
        pass

    proxy = egress.proxy(PROXY)
    health_of = (health_pb2_grpc.add_HealthServicer_to_server, health.HealthServicer())
    route = egress.intercept_https("greeter.test:50051", grpc_server(health_of))
    code = (
        "import grpc; from grpc_health.v1 import health_pb2, health_pb2_grpc as h;"
        "channel = grpc.secure_channel('greeter.test:50051', grpc.ssl_channel_credentials());"
        "print(h.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status)"
    )
    env = {"https_proxy": f"http://{PROXY}"}
    assert succeed(egress.run(grpc_image, ["python", "-c", code], env=env)) == "1"
    assert route.assert_called_once().through == PROXY
    assert proxy.calls[0].target == "greeter.test:50051"


def test_plain_requests_go_through_the_proxy(egress: Egress, clients_image: str) -> None:
    proxy = egress.proxy(PROXY)
    one = egress.intercept_http("one.test", b"one")
    two = egress.intercept_http("two.test:8080", b"two")
    urls = ["http://one.test/", "http://two.test:8080/", "http://one.test/"]
    result = egress.run(clients_image, ["curl", "-sS", *urls], env=ENV)
    assert succeed(result) == "onetwoone"
    assert (one.call_count, two.call_count, proxy.call_count) == (2, 1, 3)


def test_a_refused_connection_reaches_a_client_as_the_proxys_error(
    egress: Egress, clients_image: str
) -> None:
    egress.proxy(PROXY)
    egress.intercept_tcp("api.stripe.test:443", refuse())
    result = egress.run(clients_image, ["curl", "-sS", URL], env=ENV, check=False)
    assert "CONNECT tunnel failed, response 502" in result.stderr


@pytest.mark.egress(unrouted="block")
def test_credentials_of_a_url_are_recorded(egress: Egress, clients_image: str) -> None:
    proxy = egress.proxy(PROXY)
    egress.run(clients_image, ["curl", "-sS", URL], env=ENV, check=False)
    call = proxy.assert_called_once()
    assert isinstance(call, ProxyCall)
    assert (call.user, call.password) == ("bob", "secret")
    assert str(call).endswith("as bob:***")


@pytest.mark.egress(unrouted="block")
@pytest.mark.parametrize(
    ("env", "variables"),
    [
        ({"HTTPS_PROXY": f"http://bob:secret@{PROXY}"}, ["HTTPS_PROXY"]),
        ({"ALL_PROXY": f"http://{PROXY}", "https_proxy": PROXY}, ["ALL_PROXY", "https_proxy"]),
    ],
    ids=["one", "two"],
)
def test_a_proxy_that_no_route_is_names_the_variables_that_led_there(
    egress: Egress, clients_image: str, env: dict[str, str], variables: list[str]
) -> None:
    egress.run(clients_image, ["curl", "-sS", URL], env=env, check=False)
    (entry,) = egress.exchanges
    assert entry.note == (
        f"a tunnel to api.stripe.test:443 through the proxy {PROXY}, which the target took from "
        f"{' and '.join(variables)}"
    )


def test_the_cure_has_the_client_dial_by_itself(egress: Egress, clients_image: str) -> None:
    route = egress.intercept_https("api.stripe.test", 204)
    succeed(egress.run(clients_image, ["curl", "-sS", URL], env={"HTTPS_PROXY": ""}))
    assert route.assert_called_once().through == ""


@pytest.mark.egress(unrouted="block")
def test_the_proxy_of_an_exec_is_known_too(egress: Egress, clients_image: str) -> None:
    container = egress.start(clients_image, ["sleep", "infinity"])
    env = {"HTTPS_PROXY": f"http://{PROXY}"}
    container.exec(["curl", "-sS", URL], env=env, check=False)
    (entry,) = egress.exchanges
    assert entry.note.endswith("which the target took from HTTPS_PROXY")
