"""The commands that run an image, on a real engine: what they print, what they write, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from pytest_egress import cli
from pytest_egress.commands.audit import SHOWN_TO_CLIENTS
from pytest_egress.engine.leftovers import SESSION_LABEL
from tests.support.inner_runs import Inside
from tests.support.stage import eventually

KEY = "Zx81-ab-cdef-0123"
ASKS = """
curl -sS -H "Authorization: Bearer $API_KEY" -d '{}' https://api.test/v1/charges
curl -sS https://api.test/v1/$API_KEY
curl -sS http://metrics.test/
python3 -c '
import socket
socket.create_connection(("queue.test", 5672)).sendall(b"AMQP\\x00\\x00\\x09\\x01")
'
exit 3
"""


def test_watch_prints_each_attempt_and_a_test_that_passes(
    clients_image: str,
    capsys: pytest.CaptureFixture[str],
    inside: Inside,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    assert cli.main(["watch", "-e", "API_KEY", clients_image, "sh", "-c", ASKS]) == 0
    lines, _, text = capsys.readouterr().out.partition("A test about it:\n\n")
    for attempt in (
        "POST https://api.test/v1/charges  no route",
        "GET https://api.test/v1/<API_KEY>  no route",
        "GET http://metrics.test/  no route",
        "TCP queue.test:5672",
        "It exited with code 3; nothing got out.",
    ):
        assert attempt in lines
    assert KEY not in lines + text
    inside(text).result.assert_outcomes(passed=1)


def test_what_an_image_writes_is_not_read_however_much_it_is(
    bare_image: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.link.attach.MAX_OUTPUT_BYTES", 1000)
    assert cli.main(["watch", bare_image, "head", "-c", "9000", "/dev/zero"]) == 0
    assert "It exited with code 0; nothing got out." in capsys.readouterr().out


def test_attempts_that_no_command_could_see_are_told_of(
    clients_image: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("pytest_egress.ledger.ledger.MAX_ENTRIES", 1)
    lock = tmp_path / "egress.lock"
    lock.touch()
    asks = [clients_image, "curl", "-s", "http://a.test/", "http://b.test/"]
    assert cli.main(["watch", *asks]) == 0
    assert "Not all that it attempted could be seen: at least" in capsys.readouterr().out
    assert cli.main(["diff", str(lock), *asks]) == 2
    assert "cannot be compared, since not all of it was seen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-image.test/it"], "no-such-image.test/it"),
        (["IMAGE", "/no/such/program", KEY], "/no/such/program"),
    ],
)
def test_what_cannot_be_run_is_told_without_secrets(
    arguments: list[str], said: str, clients_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = [each.replace("IMAGE", clients_image) for each in arguments]
    assert cli.main(["watch", "-e", f"API_KEY={KEY}", *run]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert KEY not in told


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_no_container_is_left(
    how: signal.Signals, clients_image: str, engine_client: docker.DockerClient
) -> None:
    name = f"sleeper-{os.getpid()}-{how.name}"
    program = "import sys; from pytest_egress.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "watch", clients_image]
    with subprocess.Popen(
        [*command, "sh", "-c", f"sleep 600; echo {name}"], stdout=subprocess.PIPE
    ) as watching:

        def running() -> list[object]:
            listed = engine_client.api.containers(all=True, filters={"label": SESSION_LABEL})
            return [each for each in listed if name in each["Command"]]

        assert eventually(running)
        watching.send_signal(how)
        said = watching.communicate(timeout=60)[0].decode()
    assert ("It was stopped; nothing got out." in said) is (how is signal.SIGINT)
    assert eventually(lambda: not running())


AUDITED = """
curl -sS -m 9 -H "Authorization: Bearer $API_KEY" https://careful.test/
curl -sS -m 9 -k "https://careless.test/?k=$API_KEY"
curl -sS -m 9 https://falls-back.test/ || curl -sS -m 9 http://falls-back.test/
python3 -c '
import socket, ssl
for host, context in (
    ("mqtt.test", ssl._create_unverified_context()), ("ldap.test", ssl.create_default_context())
):
    try:
        with socket.create_connection((host, 8883), 9) as plain:
            with context.wrap_socket(plain, server_hostname=host) as sock:
                sock.sendall(bytes.fromhex("100c00044d5154540402003c0000"))
                sock.recv(1)
    except OSError as error:
        print(error)
'
"""


def test_an_audit_finds_who_verifies_and_who_does_not(
    clients_image: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    shown = {each: SHOWN_TO_CLIENTS[each] for each in ("expired", "TLSv1.1")}
    monkeypatch.setattr("pytest_egress.commands.audit.SHOWN_TO_CLIENTS", shown)
    arguments = ["-e", f"API_KEY={KEY}", clients_image, "sh", "-c", AUDITED]
    assert cli.main(["audit", "--report", str(tmp_path), *arguments]) == 1
    text = capsys.readouterr().out
    cells = [line.split() for line in text.splitlines()]
    for row in (
        ["careful.test", "careless.test", "falls-back.test", "mqtt.test"],
        ["expired", "rejected", "ACCEPTED", "in", "the", "clear", "ACCEPTED"],
        ["TLSv1.1", "rejected", "rejected", "in", "the", "clear", "rejected"],
        ["ldap.test"],
        ["expired", "rejected"],
        ["API_KEY", "careful.test:443", "in", "header", "authorization"],
        ["https", "careful.test:443", "TLSv1.3,", "OpenSSL", "1", "attempt"],
        ["tls", "mqtt.test:8883", "TLSv1.3,", "OpenSSL", "1", "attempt"],
        ["4", "findings,", "of", "3", "runs."],
    ):
        assert row in cells, text
    assert KEY not in text
    assert f"The report is {tmp_path}/index.html" in text
    assert len([*tmp_path.glob("*/timeline.html")]) == 3
    assert not [
        each for each in tmp_path.rglob("*.*") if each.is_file() and KEY in each.read_text()
    ]


def test_an_audit_of_an_image_that_asks_nobody_finds_nothing(
    bare_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit", bare_image, "true"]) == 0
    assert "0 findings, of 1 run." in capsys.readouterr().out


def test_a_diff_of_a_lock_and_an_image_and_of_two_that_are_alike(
    clients_image: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    shown = {"expired": SHOWN_TO_CLIENTS["expired"]}
    monkeypatch.setattr("pytest_egress.commands.audit.SHOWN_TO_CLIENTS", shown)
    lock = tmp_path / "egress.lock"
    name = clients_image.removesuffix(":latest")
    lock.write_text(f'["{name}"]\nhttp = ["metrics.test:80"]\ntcp = ["gone.test:1"]\n')
    command = ["sh", "-c", "curl -s http://metrics.test/; curl -sk https://new.test/"]
    assert cli.main(["diff", str(lock), clients_image, *command]) == 1
    assert capsys.readouterr().out == f"{name}\n+ https new.test:443\n- tcp gone.test:1\n"
    assert cli.main(["diff", clients_image, clients_image, *command]) == 0
    assert capsys.readouterr().out == ""


BEGINS_TLS = """
for mail in "--ssl-reqd -k smtp://careless" "--ssl-reqd smtp://careful" "--ssl smtp://tries"; do
    curl -s -m 5 $mail.test:587 --mail-from a@b.test --mail-rcpt c@d.test -T /etc/hostname
done
curl -s -m 5 -k --ssl-reqd imap://ann:secret@imap.test/
curl -s http://meant.test/
echo "the key is $API_KEY"
"""


def test_an_audit_offers_starttls_and_has_the_logs_on_its_pages(
    clients_image: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    shown = {"expired": SHOWN_TO_CLIENTS["expired"]}
    monkeypatch.setattr("pytest_egress.commands.audit.SHOWN_TO_CLIENTS", shown)
    options = ["--report", str(tmp_path), "--allow-clear", "meant.test", "-e", f"API_KEY={KEY}"]
    assert cli.main(["audit", *options, clients_image, "sh", "-c", BEGINS_TLS]) == 1
    text = capsys.readouterr().out
    assert "careless.test:587  STARTTLS, TLSv1.3, OpenSSL" in text
    cells = [line.split() for line in text.splitlines()]
    assert ["expired", "ACCEPTED", "rejected", "rejected", "ACCEPTED"] in cells
    assert "no STARTTLS  rejected       rejected      in the clear  rejected" in text
    assert "it accepted of careless.test: expired" in text
    assert "it goes on in the clear with tries.test where STARTTLS is not offered" in text
    assert "3 findings, of 4 runs." in text
    logs = [each.read_text() for each in tmp_path.rglob("*.log")]
    assert len(logs) == 4
    assert all("the key is <API_KEY>" in each for each in logs)


def test_a_reader_that_leaves_ends_the_run(
    clients_image: str, engine_client: docker.DockerClient
) -> None:
    name = f"unread-{os.getpid()}"
    program = "import sys; from pytest_egress.cli import main; sys.exit(main())"
    asks = f"while true; do curl -s http://a.test/; sleep 0.1; done; echo {name}"
    command = [sys.executable, "-c", program, "watch", clients_image, "sh", "-c", asks]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    ) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.stdout.close()
        assert watching.wait(60) == 141
        assert watching.stderr is not None
        assert watching.stderr.read() == b""
    listed = engine_client.api.containers(all=True, filters={"label": SESSION_LABEL})
    assert not [each for each in listed if name in each["Command"]]
