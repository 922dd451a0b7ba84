"""The command `pytest-egress`: what a user sees of `doctor` and `clean`."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from pytest_egress import cli
from pytest_egress.errors import LinkError
from pytest_egress.link.descriptor import DescriptorLink


def test_doctor_tries_what_a_test_needs_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = re.sub(r"\(\d+ ms\)", "(T ms)", capsys.readouterr().out).splitlines()
    assert re.fullmatch(
        r"ok      engine: \S+, API \S+, kernel \S+, at unix://\S+  \(T ms\)", lines[0]
    )
    assert lines[1].startswith("ok      sidecar: descriptor link, sidecar with this Python ")
    assert lines[1].endswith(", IPv4 and IPv6  (T ms)")
    assert lines[2:] == [
        "ok      capture: a connection to 203.0.113.9:443 arrived here and nowhere else  (T ms)",
        "Everything that a test needs is there.",
    ]


def test_doctor_says_what_to_do_where_no_engine_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert cli.main(["doctor"]) == 1
    failed, *reason = capsys.readouterr().out.splitlines()
    assert failed == "FAILED  engine:"
    assert reason[0].startswith("        no Docker engine answers at tcp://127.0.0.1:1: ")
    assert "DOCKER_HOST" in reason[1]


def test_doctor_finds_a_connection_that_does_not_arrive_as_it_was_dialled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DescriptorLink, "destination", lambda self, sock: ("192.0.2.1", 1))
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "        a connection to ('203.0.113.9', 443) arrived as one to ('192.0.2.1', 1)"
    )


def test_doctor_quotes_a_sidecar_that_gives_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*_: object, **__: object) -> None:
        raise LinkError("the kernel refused it")

    monkeypatch.setattr("pytest_egress.targets.sidecars.sidecar.Sidecar.create", give_up)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "FAILED  sidecar:",
        "        the kernel refused it",
    ]


def test_the_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"pytest-egress {version('pytest-egress')}\n"


def test_the_command_is_installed_and_its_help_needs_no_engine() -> None:
    code = "import sys; from pytest_egress.cli import main; sys.argv = ['x', '--help']; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    )
    assert "doctor" in done.stdout
    assert "docker" not in done.stderr
