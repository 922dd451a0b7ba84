"""`egress.lock` of real containers: each kind of destination, as they reach it."""

from __future__ import annotations

import pytest

from pytest_egress import Egress
from pytest_egress.evidence.lock import Lock
from pytest_egress.evidence.policies import squid

SUITE = """
import socket

PROGRAM = '''
import socket, ssl, urllib.request
def ask(url):
    try:
        urllib.request.urlopen(url).read()
    except OSError:
        pass
ask("https://api.test/")
ask("http://mirror.test:8080/")
ask("https://telemetry.test/")
ask("https://expired.test/")
socket.create_connection(("db.test", 5432)).sendall(b"hello")
socket.getaddrinfo("metrics.internal", None)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    sock.sendto(b"x", ("203.0.113.9", 8125)); sock.recv(1)
except OSError:
    pass
'''

def test_all_kinds(egress):
    egress.intercept_https("api.test", {})
    egress.intercept_http("mirror.test:8080", {})
    egress.intercept_https("expired.test", certificate="expired")
    egress.intercept_tcp("db.test:5432", lambda sock: print(sock.recv(5)))
    egress.block("telemetry.test")
    egress.block("203.0.113.9:8125")
    egress.run("IMAGE", ["python3", "-c", PROGRAM])
"""


def test_the_lock_has_what_a_container_reaches_by_kind(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    pytester.makepyfile(SUITE.replace("IMAGE", clients_image))

    result = pytester.runpytest_subprocess("--egress-lock=update")

    result.assert_outcomes(passed=1)
    _, _, listed = (pytester.path / "egress.lock").read_text().partition("\n\n")
    assert listed == (
        '["pytest-egress-test/clients"]\n'
        'blocked = [\n    "203.0.113.9:8125",\n    "telemetry.test:443",\n]\n'
        'http = [\n    "mirror.test:8080",\n]\n'
        'https = [\n    "api.test:443",\n    "expired.test:443",\n]\n'
        'names = [\n    "metrics.internal",\n]\n'
        'tcp = [\n    "db.test:5432",\n]\n'
    )
    pytester.runpytest_subprocess("--egress-lock=check").assert_outcomes(passed=1)


def test_what_a_shared_container_reaches_while_it_starts_fails_the_test_that_comes_first(
    pytester: pytest.Pytester, curl_image: str
) -> None:
    pytester.makepyfile(
        test_shared=f"""
        import pytest
        @pytest.fixture(scope="module")
        def started(module_egress):
            module_egress.intercept_https("*", {{}})
            module_egress.run({curl_image!r}, "curl -sS https://early.test/")
        def test_a(started, egress): pass
        def test_b(started, egress): pass
    """
    )

    result = pytester.runpytest_subprocess("--egress-lock=check")

    result.assert_outcomes(passed=1, failed=1)
    assert "  https early.test:443   1 request, by test_shared.py::test_a" in result.outlines


SQUID_READS = """
import subprocess, sys
done = subprocess.run(["squid", "-k", "parse", "-f", "/rules.conf"], capture_output=True, text=True)
sys.stdout.write(done.stderr)
sys.exit(done.returncode)
"""


def test_squid_takes_the_rules_of_a_lock(egress: Egress, services_image: str) -> None:
    lock = Lock.read("""
[shop]
https = ["api.test:443", "*.s3.test:443", "*:8443"]
http = ["mirror.test:80"]
tcp = ["203.0.113.0/24:25", "[2001:db8::7]:9"]
""")

    read = egress.run(
        services_image,
        ["python3", "-c", SQUID_READS],
        files={"/rules.conf": f"http_port 3128\n{squid(lock)}"},
    )

    assert read.stdout.count("Processing: http_access allow ") == 6
    assert "Processing: http_access deny all" in read.stdout
    assert not [line for line in read.stdout.splitlines() if "FATAL" in line or "WARNING" in line]
