"""Without `http3=True` QUIC is refused at once, and recorded, and a client falls back where it may."""

from __future__ import annotations

import pytest

from pytest_egress import Egress, NeverCalledError, UnroutedError
from pytest_egress.traffic.entries import NO_HTTP3, PacketAttempt
from tests.support.clients import attempts
from tests.support.upstreams import succeed

URL = "https://api.example.test/"
REFUSED = "QUIC connect to 198.18.0.1 port 443 failed: Could not connect to server"


def test_curl_that_wants_http_3_falls_back_and_its_test_passes(
    egress: Egress, clients_image: str
) -> None:
    route = egress.intercept_https("api.example.test", {"hello": "world"})
    curl = egress.run(clients_image, ["curl", "--http3", "-sSv", URL])
    assert succeed(curl) == '{"hello": "world"}'
    assert REFUSED in curl.stderr
    route.assert_called_once()
    packets = attempts(egress, PacketAttempt)
    assert {(packet.outcome, packet.note) for packet in packets} == {("recorded", NO_HTTP3)}
    assert {str(packet).rpartition(", ")[2] for packet in packets} == {"probably QUIC"}
    assert {packet.address for packet in packets} >= {"198.18.0.1"}


def test_a_client_of_http_3_alone_is_refused_and_its_test_says_why(clients_image: str) -> None:
    def ask() -> None:
        with Egress() as egress:
            egress.intercept_https("api.example.test", {"hello": "world"})
            curl = egress.run(clients_image, ["curl", "--http3-only", "-sSv", URL], check=False)
            assert curl.exit_code == 7  # "Failed to connect to host"

    with pytest.raises(NeverCalledError, match=r"api\.example\.test:443 .*probably QUIC") as caught:
        ask()
    assert NO_HTTP3 in str(caught.value)


def test_quic_for_what_nobody_declared_fails_the_test(clients_image: str) -> None:
    def ask() -> None:
        with Egress() as egress:
            egress.run(clients_image, ["curl", "--http3-only", "-sS", URL], check=False)

    with pytest.raises(UnroutedError, match=r"UDP api\.example\.test:443 .*probably QUIC"):
        ask()


def test_what_is_no_quic_fails_the_test_though_its_host_is_declared(clients_image: str) -> None:
    code = (
        "import socket; to = socket.socket(type=socket.SOCK_DGRAM); "
        "to.connect(('api.example.test', 443)); to.send(b'customer row 42')"
    )

    def send() -> None:
        with Egress() as egress:
            egress.intercept_https("api.example.test", optional=True)
            egress.run(clients_image, ["python3", "-c", code], check=False)

    with pytest.raises(
        UnroutedError,
        match=r"UDP api\.example\.test:443 .*, 15 bytes, first b'customer row 42'\n *it does not",
    ):
        send()
