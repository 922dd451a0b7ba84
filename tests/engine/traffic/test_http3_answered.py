"""HTTP/3 on a route that has `http3=True`: requests over QUIC are answered and judged as those over TCP are."""

from __future__ import annotations

import pytest

from pytest_egress import Egress, Request, Response, UnroutedError
from pytest_egress.errors import HandshakeError
from pytest_egress.traffic.entries import PacketAttempt
from tests.support.clients import attempts
from tests.support.upstreams import succeed

URL = "https://api.example.test/"
CURL = "curl -sS --max-time 30 -w '%{http_version} %{size_download}\n'"
ONLY = f"{CURL} --http3-only"
SCRIPT = f"""
set -e
{ONLY} -d x=1 {URL}a?b=1 {URL}b
{ONLY} -6 -o /tmp/got {URL}large
head -c 3000000 /dev/zero > /tmp/sent
{ONLY} -T /tmp/sent {URL}size
{CURL} --alt-svc /tmp/known {URL}version
{CURL} --alt-svc /tmp/known {URL}version
"""


def answered(request: Request) -> Response:
    if request.path == "/large":
        return Response(content=bytes(5_000_000))
    if request.path == "/size":
        return Response(text=f"{len(request.content)} ")
    return Response(text=f"{request.text}{request.http_version} ")


def test_curl_speaks_http_3(egress: Egress, clients_image: str) -> None:
    route = egress.intercept_https("api.example.test", answered, http3=True)
    curl = egress.run(clients_image, ["sh", "-c", SCRIPT], check=False)
    assert succeed(curl).splitlines() == [
        "x=13 3 5",
        "x=13 3 5",
        "3 5000000",
        "3000000 3 8",
        "2 2 2",
        "3 3 2",
    ]
    assert [call.request.http_version for call in route.calls] == [*"3333", *"23"]
    assert route.calls[0].request.shown_url == f"{URL}a?b=1"
    tls = route.calls[0].request.tls
    assert tls is not None
    assert (tls.version, tls.alpn, tls.cipher[:8]) == ("TLSv1.3", "h3", "TLS_AES_")
    assert route.calls[0].request.sni == "api.example.test"
    assert not attempts(egress, PacketAttempt)


def test_what_no_route_answers_over_http_3_is_unrouted(clients_image: str) -> None:
    def ask() -> None:
        with Egress() as egress:
            egress.intercept_https("api.example.test", {}, path="/v1", http3=True, optional=True)
            run = egress.run(clients_image, ["sh", "-c", f"{ONLY} -o /dev/null {URL}v2"])
            assert run.stdout.startswith("3 ")

    with pytest.raises(UnroutedError, match=r"GET https://api\.example\.test/v2"):
        ask()


def test_a_client_of_http_3_that_distrusts_the_ca_is_told(clients_image: str) -> None:
    other = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout /tmp/k -out /tmp/c"

    def ask() -> None:
        with Egress() as egress:
            egress.intercept_https("api.example.test", {}, http3=True, optional=True)
            script = f"{other} 2>/dev/null; {ONLY} --cacert /tmp/c --capath /tmp {URL}"
            assert egress.run(clients_image, ["sh", "-c", script], check=False).exit_code == 60

    with pytest.raises(HandshakeError, match=r"does not trust the CA of this run .*unknown CA"):
        ask()
