"""The command `pytest-egress`: what a user sees of `doctor`, `clean`, `lock` and `diff`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_egress import cli
from pytest_egress.errors import LinkError
from pytest_egress.evidence.policies import FORMATS
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


def test_doctor_notes_what_only_some_tests_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / "docker-credential-found"
    found.write_text("#!/bin/sh")
    found.chmod(0o755)
    settings = {"credsStore": "desktop", "credHelpers": {"a.test": "found", "b.test": 7}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("pytest_egress.base.sockets.descriptor_limit", lambda: 256)
    assert list(cli.notes(most=85)) == [
        "descriptors: `ulimit -n` is 256, which is 64 connections of a container at once; "
        "`ulimit -n 4096` before pytest gives more",
        "credentials: 'docker-credential-desktop', which keeps them (config.json of Docker), is not in PATH; "
        "images of private registries cannot be pulled",
    ]
    (tmp_path / "config.json").write_text("[]")
    assert list(cli.notes(most=sys.maxsize)) == []


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


def test_no_command_prints_the_password_of_an_engine_or_a_key_that_is_no_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://joe:hunter22hunter@127.0.0.1:1")
    assert (cli.main(["doctor"]), cli.main(["clean"])) == (1, 1)
    assert cli.main(["audit", "-e", "sk_live_4eC39HqLyjWDarjtT1zdp7dc", "shop"]) == 2
    said = "".join(capsys.readouterr())
    assert said.count("127.0.0.1") > 1
    assert "hunter22" not in said
    assert "4eC39HqLyjWDarjtT1zdp7dc" not in said


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


# lock and diff

LOCK = """
["acme/shop"]
https = ["api.stripe.com:443"]
[worker]
tcp = ["db.internal:*"]
"""


def test_a_lock_is_exported_as_rules(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("egress.lock").write_text(LOCK)
    assert cli.main(["lock", "export", "--format=cilium"]) == 0
    assert capsys.readouterr().out.count("kind: ") == 2
    assert cli.main(["lock", "export", "--format=harden-runner", "--image=acme/shop"]) == 0
    assert "      api.stripe.com:443\n" in capsys.readouterr().out


def test_what_no_rule_can_say_is_told_on_standard_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, no_lock = tmp_path / "egress.lock", tmp_path / "no.lock"
    file.write_text(LOCK)
    no_lock.write_text("<<<<<<< HEAD\n")
    for arguments, said in (
        (["--format=networkpolicy", str(file)], "tcp db.internal:* of worker: to a NetworkPolicy"),
        (
            ["--format=squid", "--image=x", str(file)],
            f"{file} has no image 'x'; it has acme/shop, ",
        ),
        (["--format=squid", str(no_lock)], f"{no_lock}: line 1 has a merge conflict"),
        (["--format=squid", "/no/such"], "/no/such: [Errno 2] No such file or directory"),
    ):
        assert cli.main(["lock", "export", *arguments]) == 2
        written = capsys.readouterr()
        assert written.out == ""
        assert written.err.startswith(said)


def test_two_locks_are_compared_as_files_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old, new = tmp_path / "old.lock", tmp_path / "new.lock"
    old.write_text(LOCK)
    new.write_text(LOCK.replace("api.stripe.com", "api.adyen.com"))
    assert cli.main(["diff", str(old), str(old)]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["diff", str(old), str(new)]) == 1
    assert capsys.readouterr().out == (
        "acme/shop\n+ https api.adyen.com:443\n- https api.stripe.com:443\n"
    )
    assert cli.main(["diff", str(old), "/no/such"]) == 2


def test_the_formats_are_those_that_exports_have() -> None:
    assert {*cli.FORMATS} == {*FORMATS}


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_order", interrupt)
    assert cli.main(["audit", "shop"]) == 130
