"""The block of a failure that declares all attempts: pasted into its test, it passes."""

from __future__ import annotations

import textwrap
from typing import Any

from pytest_egress.ledger.declaring import BLOCK
from tests.support.inner_runs import Inside

ATTEMPTS = """
    import smtplib, socket, ssl, urllib.request

    def attempt(what):
        try:
            what()
        except Exception as error:
            print(repr(error))

    def mail():
        with smtplib.SMTP("mail.test", 587, timeout=10) as client:
            client.sendmail("shop@shop.test", ["ann@shop.test"], "Subject: it\\r\\n\\r\\nhello")

    def tls():
        with socket.create_connection(("queue.test", 8883), 10) as sock:
            with ssl.create_default_context().wrap_socket(sock, server_hostname="queue.test") as tls:
                tls.sendall(bytes.fromhex("100c00044d5154540402003c0000"))
                tls.recv(1)

    def tcp():
        with socket.create_connection(("db.test", 5432), 10) as sock:
            sock.sendall(bytes.fromhex("00010203"))
            sock.recv(1)

    attempt(lambda: urllib.request.urlopen("https://api.test/v1/charges?n=1", b"{}", 10))
    attempt(lambda: urllib.request.urlopen("https://api.test/v1/charges?n=2", b"{}", 10))
    attempt(lambda: urllib.request.urlopen("http://hooks.test/a%20b/{c}", None, 10))
    attempt(mail)
    attempt(tls)
    attempt(tcp)
    attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.7", 123)))
"""
LOOKUPS = """
    import socket
    for name in ("db.test", "metrics.test"):
        try:
            socket.getaddrinfo(name, 443)
        except OSError as error:
            print(error)
"""


def block_of(section: str) -> list[str]:
    lines = section.splitlines()
    after = lines[lines.index(BLOCK) + 1 :]
    return [line.strip() for line in after[: after.index("")]]


def source(program: str, marker: str = "", block: list[str] | None = None) -> str:
    """A test that runs the program, with the block pasted before."""
    body = [*(block or ()), f"egress.run(image, ['python3', '-c', {textwrap.dedent(program)!r}])"]
    return "\n".join([marker, "def test_a(egress, image):", *(f"    {line}" for line in body)])


def egress_section(run: Any) -> str:
    (found,) = (
        text for name, text, _ in run.report("test_a").longrepr.sections if name == "egress"
    )
    return str(found)


def test_the_block_pasted_into_the_test_makes_it_pass(inside: Inside) -> None:
    failed = inside(source(ATTEMPTS))
    section = egress_section(failed)
    block = block_of(section)
    assert block == [
        "from pytest_egress import smtp",
        'egress.intercept_https("api.test", method="POST", path="/v1/charges")',
        'egress.intercept_http("hooks.test", method="GET", path="/a%20b/*")',
        'egress.intercept_tcp("mail.test:587", smtp())',
        'egress.intercept_tls("queue.test:8883")',
        'egress.intercept_tcp("db.test:5432")',
        'egress.intercept_udp("192.0.2.7:123")',
    ]
    assert section.index(BLOCK) < section.index("POST https://api.test/v1/charges?n=1 ->")
    inside(source(ATTEMPTS, block=block)).result.assert_outcomes(passed=1)


def test_the_block_of_names_alone_makes_their_test_pass(inside: Inside) -> None:
    strict = "import pytest\n@pytest.mark.egress(dns='strict')"
    block = block_of(egress_section(inside(source(LOOKUPS, strict))))
    assert block == ['egress.dns("db.test", "NXDOMAIN")', 'egress.dns("metrics.test", "NXDOMAIN")']
    inside(source(LOOKUPS, strict, block)).result.assert_outcomes(passed=1)
