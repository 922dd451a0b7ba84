"""Which file a cassette is, in each mode, and what is written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_egress import CassetteError, cassette
from pytest_egress.base.choices import RECORD_MODES
from pytest_egress.cassettes import Cassettes, CassetteStack, Home, content_of, file_name
from pytest_egress.routes.recordings.deck import Deck
from pytest_egress.traffic.cassettes.bodies import RecordedBody
from pytest_egress.traffic.cassettes.tape import (
    RecordedRequest,
    RecordedResponse,
    Recording,
    tape_of,
)
from pytest_egress.traffic.redaction.redactor import Redactor


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def home(folder: Path, test: str = "test_charge") -> Home:
    node = f"test_shop.py::{test}"
    return Home(folder=folder, names=("test_shop", test), node=node, is_test=True)


def stack(cassettes: Cassettes, at: Home) -> CassetteStack:
    return CassetteStack(cassettes, at, lambda container: {}, lambda: Redactor())


def recording(path: str = "/a", status: int = 200) -> Recording:
    return Recording(
        request=RecordedRequest(method="GET", url=f"https://api.test{path}"),
        response=RecordedResponse(status=status),
    )


def run(cassettes: Cassettes, at: Home, *taken: Recording, path: str | None = None) -> Deck:
    """One test that takes these, and passes."""
    scope = stack(cassettes, at)
    deck = scope.deck(cassette(path), optional=False)
    for each in taken:
        deck.reel.add(each)
    scope.write()
    return deck


def statuses(path: Path) -> list[tuple[str, int]]:
    recordings = tape_of(path.read_text(), "x").recordings
    return [(each.request.url[-2:], each.response.status) for each in recordings]


OWN = "cassettes/test_shop/test_charge.yaml"


@pytest.mark.parametrize("mode", RECORD_MODES)
def test_what_each_mode_records_and_writes(mode: Any, folder: Path) -> None:
    run(Cassettes("once"), home(folder), recording("/a", 500))
    deck = stack(Cassettes(mode), home(folder)).deck(cassette(), optional=False)
    wanted = {"none": "nothing", "once": "nothing", "new_episodes": "unknown", "rewrite": "all"}
    assert deck.reel.records == wanted[mode]
    run(Cassettes(mode), home(folder), recording("/b"))
    left = {
        "none": [("/a", 500)],
        "once": [("/a", 500)],
        "new_episodes": [("/a", 500), ("/b", 200)],
        "rewrite": [("/b", 200)],
    }
    assert statuses(folder / OWN) == left[mode]


def test_rewriting_leaves_nothing_that_is_no_longer_sent(folder: Path) -> None:
    """Old recordings that stay, since `all` appends (vcrpy, pytest-recording)."""
    run(Cassettes("rewrite"), home(folder), recording("/a"), recording("/a", 201))
    run(Cassettes("rewrite"), home(folder), recording("/b"))
    assert statuses(folder / OWN) == [("/b", 200)]


def test_a_file_that_is_not_there_says_what_to_type(folder: Path) -> None:
    """ "Can't overwrite existing cassette" where there is none (vcrpy)."""
    with pytest.raises(CassetteError) as caught:
        run(Cassettes(), home(folder))
    assert str(caught.value) == (
        f"there is no {OWN}; record it: pytest --egress-record-mode=once test_shop.py::test_charge"
    )
    with pytest.raises(CassetteError, match=r"^there is no session\.har$"):
        run(Cassettes("rewrite"), home(folder), path="session.har")


def conversation(said: str, heard: str = "okay", *, is_call: bool = False) -> Recording:
    body = RecordedBody(
        "turns" if is_call else "conversation", [{"send": said}, {"receive": heard}]
    )
    return Recording(
        request=RecordedRequest(
            method="POST" if is_call else "GET",
            url="wss://api.test/feed",
            is_call=is_call,
            is_websocket=not is_call,
        ),
        response=RecordedResponse(status=0, body=body),
    )


@pytest.mark.parametrize("is_call", [False, True])
def test_conversations_of_several_tests_at_one_url_all_stay_in_their_file(
    folder: Path, is_call: bool
) -> None:
    cassettes, path = Cassettes("rewrite"), "feed.yaml"
    said = [
        conversation("ones", is_call=is_call),
        conversation("twos", is_call=is_call),
        conversation("ones", "more", is_call=is_call),
    ]
    for number, each in enumerate(said):
        run(cassettes, home(folder, f"test_{number}"), each, path=path)
    recordings = tape_of((folder / path).read_text(), path).recordings
    heard = [(each.response.body.value[0], each.response.body.value[1]) for each in recordings]
    assert heard == [
        ({"send": "ones"}, {"receive": "more"}),
        ({"send": "twos"}, {"receive": "okay"}),
    ]
    again = Cassettes("rewrite")
    run(again, home(folder, "test_1"), conversation("last", is_call=is_call), path=path)
    assert again.finish("nothing") == [
        f"{path} keeps 2 recordings that this run has not asked for: a green run of all tests takes them out"
    ]


def test_a_handshake_that_was_refused_and_one_that_was_not_both_stay(folder: Path) -> None:
    cassettes, path = Cassettes("rewrite"), "feed.yaml"
    opened = conversation("one")
    opened = replace(
        opened, response=RecordedResponse(status=0, body=RecordedBody("conversation", []))
    )
    refused = replace(opened, response=RecordedResponse(status=403))
    run(cassettes, home(folder, "test_1"), refused, path=path)
    run(cassettes, home(folder, "test_2"), opened, path=path)
    assert len(tape_of((folder / path).read_text(), path).recordings) == 2


def test_recording_again_changes_no_byte_and_does_not_touch_the_file(folder: Path) -> None:
    """Diffs of recordings that have not changed (cassetter)."""
    run(Cassettes("rewrite"), home(folder), recording("/a"), recording("/b"))
    before = (folder / OWN).stat()
    run(Cassettes("rewrite"), home(folder), recording("/b"), recording("/a"))
    after = (folder / OWN).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_several_tests_of_a_run_record_into_one_file(folder: Path) -> None:
    """In a file that is rewritten, what no test has asked for leaves at the end of the run."""
    for mode in ("rewrite", "once"):
        path, cassettes = f"{mode}.yaml", Cassettes(mode)
        run(cassettes, home(folder, "test_a"), recording("/a"), path=path)
        second = recording("/b"), recording("/b", 201)
        shared = (recording("/a"), *second) if mode == "rewrite" else second
        run(cassettes, home(folder, "test_b"), *shared, path=path)
        assert statuses(folder / path) == [("/a", 200), ("/b", 200), ("/b", 201)]


def test_what_a_failed_test_had_stays_in_a_shared_file_that_is_rewritten(folder: Path) -> None:
    first = Cassettes("rewrite")
    old = recording("/a", 500), recording("/b", 500), recording("/b", 501)
    run(first, home(folder, "test_a"), *old, path="api.yaml")
    again = Cassettes("rewrite")
    run(again, home(folder, "test_a"), recording("/a"), path="api.yaml")
    stack(again, home(folder, "test_b")).deck(cassette("api.yaml"), optional=False)  # and it fails
    assert statuses(folder / "api.yaml") == [("/a", 200), ("/b", 500), ("/b", 501)]
    left = "api.yaml keeps 2 recordings that this run has not asked for: a green run of all tests takes them out"
    assert again.finish("nothing") == again.finish("modules") == [left]
    assert statuses(folder / "api.yaml") == [("/a", 200), ("/b", 500), ("/b", 501)]
    assert again.finish("all") == []
    assert statuses(folder / "api.yaml") == [("/a", 200)]


def test_the_file_of_a_module_needs_the_tests_of_that_module_alone(folder: Path) -> None:
    at = Home(folder=folder, names=("test_shop",), node="test_shop.py")
    run(Cassettes("rewrite"), at, recording("/a"))
    again = Cassettes("rewrite")
    run(again, at, recording("/b"))
    assert statuses(folder / "cassettes/test_shop.yaml") == [("/a", 200), ("/b", 200)]
    assert again.finish("modules") == []
    assert statuses(folder / "cassettes/test_shop.yaml") == [("/b", 200)]


@pytest.mark.parametrize("mode", RECORD_MODES)
def test_what_is_no_regular_file_is_refused_and_waits_for_nobody(mode: Any, folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    (folder / "folder.yaml").mkdir()
    (folder / "null.yaml").symlink_to("/dev/null")
    wanted = {"pipe": "no regular file", "folder": "a folder", "null": "no regular file"}
    for name, what in wanted.items():
        with pytest.raises(CassetteError, match=rf"^{name}\.yaml: it is {what}, and a cassette"):
            run(Cassettes(mode), home(folder), path=f"{name}.yaml")
    with pytest.raises(CassetteError, match="it cannot be read: File name too long"):
        run(Cassettes(mode), home(folder), path=f"{'x' * 300}.yaml")


def test_what_lies_beside_a_file_is_read_where_it_is_a_file_that_memory_holds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(OSError, match="pipe is no file"):
        content_of(folder / "pipe")
    monkeypatch.setattr("pytest_egress.cassettes.MAX_FILE_BYTES", 1 << 20)
    (folder / "large").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(OSError, match="more than 1 MiB"):
        content_of(folder / "large")


def test_a_shared_file_is_recorded_by_one_process_alone(folder: Path) -> None:
    """Workers that wrote one file lost most of it, and pytest said passed (syrupy)."""
    workers = Cassettes("rewrite", is_worker=True)
    with pytest.raises(
        CassetteError, match=r"shared\.yaml: several processes .* record it with -n 0"
    ):
        run(workers, home(folder), path="shared.yaml")
    run(workers, home(folder), recording())
    assert run(Cassettes(is_worker=True), home(folder), path=OWN).reel.records == "nothing"


def test_what_a_test_has_not_played_is_left_over_in_its_own_file_alone(folder: Path) -> None:
    run(Cassettes("once"), home(folder), recording())
    scope = stack(Cassettes(), home(folder))
    assert scope.deck(cassette(), optional=False).is_required
    assert not scope.deck(cassette(), optional=True).is_required
    other = stack(Cassettes(), home(folder, "test_other"))
    assert not other.deck(cassette(OWN), optional=False).is_required


def test_routes_of_one_test_share_a_file(folder: Path) -> None:
    scope = stack(Cassettes("once"), home(folder))
    one, two = (scope.deck(cassette(), optional=False) for _ in range(2))
    assert one.reel is two.reel


def test_names_that_a_file_system_does_not_take_are_changed_and_stay_apart() -> None:
    """Names of parametrized tests that are too long for a file (pytest-recording)."""
    assert file_name("test_a[x-1]") == "test_a[x-1]"
    names = {
        file_name(f"test_a[{each}]") for each in ("x/y", "x:y", "x" * 300, "x" * 301, "\xe9" * 200)
    }
    assert len(names) == 5
    assert all(len(name.encode()) < 140 and not {*"/:"} & {*name} for name in names)


def test_where_no_test_is_a_path_is_needed(folder: Path) -> None:
    with pytest.raises(CassetteError, match=r"cassette\('api.yaml'\)"):
        run(Cassettes(), Home(folder=folder))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff", "this is no UTF-8"), (b"a: 1\n", "this is no cassette")],
)
def test_a_file_that_cannot_be_read_says_why(content: bytes, said: str, folder: Path) -> None:
    (folder / "a.yaml").write_bytes(content)
    with pytest.raises(CassetteError, match=said):
        run(Cassettes(), home(folder), path="a.yaml")


def test_what_is_there_of_another_tool_is_written_in_our_form_without_secrets(folder: Path) -> None:
    text = "interactions:\n- request: {method: GET, uri: 'https://api.test/a', body: null,\n"
    text += "    headers: {Authorization: [Bearer x]}}\n"
    text += "  response: {status: {code: 200, message: OK}, body: {string: ''}, headers: {}}\nversion: 1\n"
    (folder / "a.yaml").write_text(text)
    run(Cassettes("new_episodes"), home(folder), recording("/b"), path="a.yaml")
    written = (folder / "a.yaml").read_text()
    assert written.startswith("egress_cassette: 1\nsecrets:\n- authorization\n")
    assert "Bearer <authorization>" in written


def test_the_file_of_a_module_is_recorded_by_one_process_alone(folder: Path) -> None:
    """Its tests may be those of several workers, each of which would write what its own have asked."""
    at = Home(folder=folder, names=("test_shop",), node="test_shop.py")
    with pytest.raises(CassetteError, match=r"test_shop\.yaml: several processes"):
        run(Cassettes("once", is_worker=True), at, recording())


def test_two_scopes_that_are_open_at_once_record_into_one_file(folder: Path) -> None:
    cassettes = Cassettes("new_episodes")
    wide = stack(cassettes, Home(folder=folder, names=("test_shop",)))
    wide.deck(cassette("api.yaml"), optional=False).reel.add(recording("/b"))
    run(cassettes, home(folder), recording("/a"), path="api.yaml")
    wide.write()
    assert statuses(folder / "api.yaml") == [("/a", 200), ("/b", 200)]
