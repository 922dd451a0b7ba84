"""A client in a container that distrusts fails its test, and one that comes back does not."""

from __future__ import annotations

import docker
import pytest

from pytest_egress.egress import Egress
from pytest_egress.errors import HandshakeError
from pytest_egress.session import Session
from pytest_egress.targets.readiness import log_line
from pytest_egress.traffic.entries import TlsFailure, peers_of

# Real containers.

CURL = "curl -sS https://api.test/"
PYTHON = """python3 -c 'import urllib.request as u; u.urlopen("https://api.test/")'"""
DISTRUSTING = f"SSL_CERT_FILE=/none.pem SSL_CERT_DIR=/none {PYTHON}"


@pytest.fixture
def session(engine_client: docker.DockerClient) -> Session:
    """A run of its own, whose verdicts are raised where its egress is left."""
    return Session()


def test_of_two_clients_in_a_container_the_one_that_distrusts_fails_the_test(
    session: Session, clients_image: str
) -> None:
    def two_clients() -> None:
        with Egress(session=session) as egress:
            egress.intercept_https("api.test", optional=True)
            result = egress.run(clients_image, ["sh", "-c", f"{DISTRUSTING}; {CURL}"])
            assert "CERTIFICATE_VERIFY_FAILED" in result.stderr

    with pytest.raises(HandshakeError) as caught:
        two_clients()
    assert "does not trust the CA of this run for 'api.test'" in str(caught.value)


@pytest.mark.parametrize("version", ["", "--tls-max-v1.2"])
def test_a_program_of_node_that_distrusts_is_not_excused_by_one_that_trusted(
    session: Session, clients_image: str, version: str
) -> None:
    program = "require('https').get('https://api.test/').on('error', () => 0)"
    node = f'node --use-bundled-ca {version} -e "{program}"'

    def two_programs() -> None:
        with Egress(session=session) as egress:
            api = egress.intercept_https("api.test", optional=True)
            command = ["sh", "-c", f"{node}; NODE_EXTRA_CA_CERTS= {node}"]
            egress.run(clients_image, command)
            api.assert_called_once()

    with pytest.raises(HandshakeError):
        two_programs()


def test_a_client_that_distrusts_is_not_excused_by_one_like_it_that_comes_later(
    session: Session, clients_image: str
) -> None:
    def two_programs() -> None:
        with Egress(session=session) as egress:
            api = egress.intercept_https("api.test", optional=True)
            egress.run(clients_image, ["sh", "-c", f"{DISTRUSTING}; {PYTHON}"])
            (failure,) = (entry for entry in egress.ledger if isinstance(entry, TlsFailure))
            window = session.ledger.window
            assert window is not None
            assert failure.reason == "untrusted"
            assert peers_of(failure) in window.handshakes  # of the second, which is like it
            api.assert_called_once()

    with pytest.raises(HandshakeError):
        two_programs()


@pytest.mark.parametrize(
    "check",
    [
        "openssl s_client -connect api.test:443 </dev/null",
        "openssl s_client -connect api.test:443 -alpn h2,http/1.1 </dev/null",
        "openssl s_client -connect api.test:443 -tls1_2 </dev/null",
        """python3 -c 'import ssl; print(ssl.get_server_certificate(("api.test", 443)))'""",
    ],
)
def test_a_health_check_of_tls_is_no_offence(
    session: Session, clients_image: str, check: str
) -> None:
    with Egress(session=session) as egress:
        api = egress.intercept_https("api.test", optional=True)
        result = egress.run(clients_image, ["sh", "-c", check])
        assert "BEGIN CERTIFICATE" in result.stdout
        (failure,) = (entry for entry in egress.ledger if isinstance(entry, TlsFailure))
        assert (failure.reason, api.call_count) == ("probe", 0)


def test_distrust_at_the_start_of_a_shared_container_fails_its_fixture(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_egress import log_line

        @pytest.fixture(scope="module")
        def shop(module_egress):
            module_egress.intercept_https("api.test")
            script = {DISTRUSTING + "; echo up; sleep 600"!r}
            return module_egress.start({clients_image!r}, ["sh", "-c", script], wait=log_line("^up$"))

        def test_a(shop):
            pass
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at setup of test_a*", "*a TLS handshake of clients:latest failed at what a route*"]
    )


HALF_A_HANDSHAKE = """
import os, socket, ssl, time
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="api.test")
try:
    tls.do_handshake()
except ssl.SSLWantReadError:
    pass
sock = socket.create_connection(("api.test", 443))
sock.sendall(outgoing.read())
sock.recv(1)
print("half", flush=True)
time.sleep(600)
"""


def test_a_handshake_that_is_under_way_when_its_container_is_stopped_is_no_distrust(
    clients_image: str,
) -> None:
    with Egress() as egress:
        egress.intercept_https("api.test", optional=True)
        command = ["python3", "-c", HALF_A_HANDSHAKE]
        egress.start(clients_image, command, wait=log_line("half")).stop(timeout=0)
        (failure,) = (entry for entry in egress.ledger if isinstance(entry, TlsFailure))
        assert failure.reason == "cut"
