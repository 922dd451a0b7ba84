"""`pytest-egress diff`: what it calls a difference, and its text. Its runs are in `tests/engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_egress import cli
from pytest_egress.commands.diff import SHOWN, Change, as_markdown, as_text, between, with_lock
from pytest_egress.evidence.lock import Lock, LockLine

CHANGES = [
    Change(part="asks", what="https a.test:443", old="TLSv1.2", new="TLSv1.3"),
    Change(part="asks", what="http b.test:80", new="in the clear"),
    Change(part="accepts", what="c.test", old="rejected all"),
]


def test_what_is_new_gone_and_changed() -> None:
    sides = {"same": "1", "was": "", "a": "1"}, {"same": "1", "is": "", "a": "2"}
    assert [(each.sign, each.what, each.how) for each in between("part", sides)] == [
        ("!", "a", "1 -> 2"),
        ("+", "is", ""),
        ("-", "was", ""),
    ]


def test_its_text_has_a_line_for_each() -> None:
    assert as_text(CHANGES) == [
        "asks",
        "! https a.test:443  TLSv1.2 -> TLSv1.3",
        "+ http b.test:80  in the clear",
        "",
        "accepts",
        "- c.test  rejected all",
    ]


def test_a_table_for_a_pull_request_has_no_markup_of_an_image() -> None:
    hostile = Change(part="asks", what="http <b>|@you|.test\x1b[2J\n:80", new="")
    lines = as_markdown("shop:1", "shop:2", [*CHANGES, hostile])
    assert lines[0] == "### Egress: 4 changes from <code>shop:1</code> to <code>shop:2</code>"
    assert lines[4] == (
        "| changed | asks | <code>https a.test:443</code> | TLSv1.2 -&#62; TLSv1.3 |"
    )
    assert lines[-1].count("|") == 5
    assert not {"<b>", "@", "\x1b", "\n"} & {*lines[-1]}
    assert as_markdown("a", "b", []) == [
        "### Egress: 0 changes from <code>a</code> to <code>b</code>"
    ]


def test_an_image_that_floods_is_told_of_by_a_number() -> None:
    many = [Change(part="asks", what=f"http {n}.test:80", new="") for n in range(SHOWN + 3)]
    assert as_text(many)[-1] == "... 3 more"
    assert "and 3 more" in as_markdown("a", "b", many)[-1]
    assert "\x1b" not in "".join(as_text([Change(part="asks", what="a\x1b[2J\nb", new="")]))


LOCK = Lock(
    lines=frozenset(
        {
            LockLine("shop", "https", "*.s3.test:443"),
            LockLine("shop", "tcp", "db.test:5432"),
            LockLine("shop", "blocked", "metrics.test:80"),
            LockLine("worker", "https", "a.test:443"),
        }
    )
)
REACHED = [
    LockLine("shop", "https", "x.s3.test:443"),
    LockLine("shop", "http", "metrics.test:80"),
    LockLine("shop", "https", "new.test:443"),
]


@pytest.mark.parametrize(("is_old", "signs"), [(True, "+-"), (False, "-+")])
def test_a_lock_is_compared_with_what_its_image_reaches(is_old: bool, signs: str) -> None:
    found = [*with_lock("shop", LOCK, REACHED, is_old=is_old)]
    assert {each.what: each.sign for each in found} == {
        "https new.test:443": signs[0],
        "tcp db.test:5432": signs[1],
    }


def test_two_locks_need_no_engine_and_take_nothing_of_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("")
    new.write_text('[shop]\nhttps = ["a.test:443"]\n')
    assert cli.main(["diff", "--markdown", str(old), str(new)]) == 1
    assert "| new | shop | <code>https a.test:443</code> |  |" in capsys.readouterr().out
    assert cli.main(["diff", str(new), str(new)]) == 0
    assert cli.main(["diff", "-e", "A=1", str(old), str(new)]) == 2
    assert "leave -e and COMMAND out" in capsys.readouterr().err
    assert cli.main(["diff", str(tmp_path / "none.lock"), str(new)]) == 2
    assert "No such file" in capsys.readouterr().err
    assert cli.main(["diff", str(old), "shop"]) == 2
    assert "no Docker engine answers" in capsys.readouterr().err


def test_a_reader_that_has_left_ends_it_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: Any, **__: Any) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("pytest_egress.commands.diff.diff", leave)
    monkeypatch.setattr(cli, "leave_output", lambda: None)
    assert cli.main(["diff", "a", "b"]) == 141
    assert capsys.readouterr().err == ""
