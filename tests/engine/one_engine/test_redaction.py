"""Secrets of a real container, in all that a failing test shows."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

import docker
import pytest

from pytest_egress import CommandError, Egress
from tests.support.inner_runs import Inside

KEY = "Kx7/hQ2v+R9xLm4Zp8Wd3&Ns6"
PARTS = [KEY[at : at + 8] for at in range(len(KEY) - 7)]

CLIENT = """
import base64, json, os, re, socket, subprocess, sys, urllib.parse

key = os.environ["SHOP_KEY"]
encoded = urllib.parse.quote(key, safe="")
b64 = base64.b64encode(b"joe:" + key.encode()).decode()

def curl(*args):
    done = subprocess.run(["curl", "-sS", "-m", "5", *args], capture_output=True, text=True)
    print(done.stdout, done.stderr)

curl(f"https://api.shop.test/v1/{encoded}/charges")
curl(f"https://api.shop.test/q?k={encoded}&page=2")
curl(f"https://api.shop.test/{'long/' * 15}{encoded}/{'path/' * 15}?x={b64}")
curl("https://api.shop.test/h", "-H", f"Authorization: Basic {b64}", "-H", f"X-Debug: {key}",
     "-H", "Idempotency-Key: order-4711", "-H", f"X-Hex: {key.encode().hex()}")
curl("https://api.shop.test/b", "--json", json.dumps({"note": key, "inner": json.dumps({"a": key})}))
curl("https://api.shop.test/f", "-d", f"note={encoded}")
curl("https://hooks.slack.com/services/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", "-d", "{}")
curl("https://api.telegram.test/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/sendMessage")
curl("http://postgres.test/")
connection = socket.create_connection(("cache.shop.test", 6379))
connection.sendall(b"*2\\r\\n$4\\r\\nAUTH\\r\\n$%d\\r\\n%s\\r\\n" % (len(key), key.encode()))
connection.close()
word = re.sub("[^a-z0-9]", "", key.lower())
print("log", key, encoded, b64, json.dumps(key), key.encode().hex(), repr(key), "x" * 1990 + key + "y" * 1990)
sys.exit(3)
"""


FAILING = f"""
import os

def test_a(egress, image):
    env = {{"SHOP_KEY": os.environ["KEY_OF_SHOP"], "POSTGRES_PASSWORD": "postgres"}}
    egress.intercept_https("api.shop.test", path="/never", headers={{"X-Debug": env["SHOP_KEY"]}})
    result = egress.run(image, ["python3", "-c", {CLIENT!r}], env=env, check=False)
    assert result.stdout.count(env["SHOP_KEY"]) > 1  # the test has it
    print("the test's own", result.stdout)
"""


def test_a_key_of_the_environment_is_on_no_terminal_and_in_no_file_of_junit(
    inside: Inside, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_SHOP", KEY)
    run = inside(FAILING, "-v", "--junitxml=junit.xml", "--showlocals", "-o", "junit_logging=all")
    report = run.report("test_a")
    assert report.failed
    shown = {
        "terminal": run.output,
        "JUnit": Path(pytester.path, "junit.xml").read_text(),
        "report": f"{report.longreprtext}{report.sections}",
    }
    inner = base64.b64encode(b"joe:" + KEY.encode()).decode()[8:24]
    forms = [*PARTS, quote(KEY, safe="")[:12], KEY.encode().hex()[:16], inner]
    found = [(place, form) for place, text in shown.items() for form in forms if form in text]
    assert not found
    text = run.output
    assert 'path="/v1/*/charges"' in text
    assert "GET https://api.shop.test/q?k=<SHOP_KEY>&page=2" in text
    assert "> idempotency-key: order-4711" in text.lower()
    assert "xWnWqZ3dV8" not in text
    assert "AAHdqTcvCH" not in text
    assert "http://postgres.test/" in text
    assert "log <SHOP_KEY> <SHOP_KEY>" in text
    assert 'path="/services/*"' in text
    assert 'path="/bot*/sendMessage"' in text


def test_a_test_that_fails_by_itself_shows_no_key_in_its_own_lines(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_SHOP", KEY)
    run = inside(
        """
        import os

        def test_a(egress, image):
            key = os.environ["KEY_OF_SHOP"]
            result = egress.run(image, ["sh", "-c", "echo $SHOP_KEY; echo $SHOP_KEY >&2"], env={"SHOP_KEY": key})
            print(key)
            assert result.stdout == "", result.stderr

        def test_b(egress, image):
            print(os.environ["KEY_OF_SHOP"])
            raise ValueError(os.environ["KEY_OF_SHOP"]) from KeyError(os.environ["KEY_OF_SHOP"])

        def test_c(egress):
            print(os.environ["KEY_OF_SHOP"])
        """,
        "--showlocals",
        "-rA",
    )
    assert KEY not in run.output
    assert "AssertionError: <SHOP_KEY>" in run.output
    assert "ValueError: <SHOP_KEY>" in run.output
    assert run.output.count("<SHOP_KEY>") > 8


def test_what_the_test_reads_of_a_container_is_as_it_was_written(
    egress: Egress, clients_image: str
) -> None:
    script = 'echo "out $A_TOKEN"; echo "err $A_TOKEN" >&2; exit 3'
    secret = f"Tok3n-{os.getpid()}-of-a-test"
    with pytest.raises(CommandError) as caught:
        egress.run(clients_image, ["sh", "-c", script], env={"A_TOKEN": secret})
    error = caught.value
    assert (error.stdout, error.stderr) == (f"out {secret}\n", f"err {secret}\n")
    assert secret in error.logs
    assert secret not in str(error)
    assert "| out <A_TOKEN>" in str(error)


def test_our_refusal_tells_the_client_nothing_that_it_would_log(
    inside: Inside, pytester: pytest.Pytester
) -> None:
    run = inside("""
        def test_a(egress, image):
            secret = "Tok3n-in-the-path-" + "0123456789"
            egress.intercept_http("api.shop.test", path=f"/v2/{secret}", optional=True)
            script = 'curl -sS "http://api.shop.test/v1/$A_TOKEN?k=$A_TOKEN"'
            said = egress.run(image, ["sh", "-c", script], env={"A_TOKEN": secret}).stdout
            open("said", "w").write(said)
    """)
    said = Path(pytester.path, "said").read_text()
    assert said == (
        "pytest-egress: no route answers GET http://api.shop.test/v1/<A_TOKEN>?k=<A_TOKEN>\n"
        "nearest route: intercept_http(\"api.shop.test\", path='/v2/<A_TOKEN>')\n"
        f"    declared at {re.findall('declared at (.*)', said)[0]}\n"
        "    path: '/v1/<A_TOKEN>' is not '/v2/<A_TOKEN>'\n"
        'to answer it: egress.intercept_http("api.shop.test", method="GET", path="/v1/*")\n'
    )
    assert "0123456789" not in run.output.replace('"0123456789"', "")


def test_a_suite_says_what_is_a_secret_and_what_is_none(inside: Inside) -> None:
    run = inside(
        """
        import pytest
        from pytest_egress import Redaction

        @pytest.fixture(scope="session")
        def egress_redaction():
            return Redaction(
                headers=["X-Tenant"], query=["t"], json=["iban"], values=["swordfish"], keep=["session"]
            )

        def test_a(egress, image):
            egress.run(image, ["curl", "-sS", "http://api.shop.test/swordfish?t=acme-corp&session=abcdefgh",
                               "-H", "X-Tenant: acme-corp", "--json", '{"iban": "DE89370400440532013000"}'])
    """,
        "-v",
    )
    assert "POST http://api.shop.test/<SECRET>?t=ac...(9)&session=abcdefgh" in run.output
    assert "X-Tenant: ac... (9 characters)" in run.output
    assert '"iban": "DE89... (22 characters)"' in run.output


def test_a_fixture_that_returns_something_else_is_refused(inside: Inside) -> None:
    run = inside("""
        import pytest

        @pytest.fixture(scope="session")
        def egress_redaction():
            return {"headers": ["X-Tenant"]}

        def test_a(egress, image):
            egress.run(image, ["true"])
    """)
    assert (
        "the fixture egress_redaction returned {'headers': ['X-Tenant']}; it returns a Redaction"
        in run.output
    )


def test_a_secret_of_a_command_in_a_container_is_hidden_too(
    egress: Egress, clients_image: str
) -> None:
    container = egress.start(clients_image, ["sleep", "60"])
    with pytest.raises(CommandError) as caught:
        container.exec(["sh", "-c", "echo $B_TOKEN; exit 4"], env={"B_TOKEN": "Sec0nd-token-0123"})
    assert "| <B_TOKEN>" in str(caught.value)
    assert json.dumps("Sec0nd-token-0123") not in str(caught.value)


def test_a_secret_of_a_container_that_something_else_creates_is_hidden_too(
    egress: Egress, clients_image: str, engine_client: docker.DockerClient
) -> None:
    secret = "Th1rd-token-0123456789"
    egress.intercept_http("api.shop.test")
    options = egress.docker_options(clients_image)
    options["environment"]["C_TOKEN"] = secret
    script = 'curl -sS "http://api.shop.test/$C_TOKEN"'
    container = engine_client.containers.create(clients_image, ["sh", "-c", script], **options)
    try:
        egress.trust(container)
        container.start()
        container.wait()
    finally:
        container.remove(force=True)
    (exchange,) = egress.exchanges
    assert str(exchange) == "GET http://api.shop.test/<C_TOKEN>"
    assert exchange.request.path == f"/{secret}"
