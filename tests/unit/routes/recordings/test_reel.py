"""Reels: which recording is played, and what is said where none is left."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from pytest_egress.errors import CassetteError
from pytest_egress.routes.recordings import reel as reel_module
from pytest_egress.routes.recordings.reel import Reel, ToRecord
from pytest_egress.traffic.cassettes.bodies import RecordedBody
from pytest_egress.traffic.cassettes.tape import (
    RecordedRequest,
    RecordedResponse,
    Recording,
    Tape,
)
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from tests.support.reels import reel_of


def recording(path: str = "/a", status: int = 200, line: int = 7) -> Recording:
    return Recording(
        request=RecordedRequest(method="GET", url=f"https://api.test{path}"),
        response=RecordedResponse(status=status),
        line=line,
    )


def of_body(body: object, path: str = "/a", *, line: int) -> Recording:
    made = recording(path, line=line)
    return replace(made, request=replace(made.request, body=RecordedBody("json", body)))


def reel(*recordings: Recording, records: ToRecord = "nothing", **tape: Any) -> Reel:
    return reel_of(
        Tape(recordings=recordings, **tape),
        records=records,
        command="pytest --egress-record-mode=new_episodes test_a.py::test_a",
    )


def get(path: str = "/a", **headers: str) -> Request:
    fields = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return Request(
        method="GET", scheme="https", host="api.test", port=443, path=path, headers=fields
    )


def statuses(played: Reel, *paths: str, repeat: bool = False) -> list[int | None]:
    found = [played.take(get(path), (), repeat=repeat) for path in paths]
    return [each.recording.response.status if each else None for each in found]


def test_a_repeated_request_plays_its_recordings_in_order_each_once() -> None:
    """Retries got the first answer for ever (vcrpy)."""
    played = reel(recording(status=503), recording("/b", 204), recording(status=200))
    assert statuses(played, "/a", "/a", "/a", "/b") == [503, 200, None, 204]


def test_the_order_between_different_requests_does_not_matter() -> None:
    """Order under threads and several containers (pytest-vcr, exvcr)."""
    for paths in (["/a", "/b"], ["/b", "/a"]):
        assert None not in statuses(reel(recording(), recording("/b")), *paths)


def test_a_used_up_recording_says_so_and_repeat_plays_the_last_again() -> None:
    """ "Can't overwrite existing cassette" for a repeated request (vcrpy)."""
    played = reel(recording(status=503), recording(status=200))
    statuses(played, "/a", "/a")
    assert played.misses(get(), (), repeat=False) == [
        "recordings: recorded 2 times in a.yaml, and asked once more; repeat=True plays the last one again",
        "record it: pytest --egress-record-mode=new_episodes test_a.py::test_a",
    ]
    assert played.misses(get(), (), repeat=True) == []
    assert statuses(played, "/a", "/a", repeat=True) == [200, 200]


def test_what_answers_again_by_itself_needs_no_repeat() -> None:
    assert statuses(reel(recording(), answers_again=True), "/a", "/a") == [200, 200]


def test_an_unknown_request_is_told_the_nearest_recording_and_its_line() -> None:
    played = reel(recording("/x/y"), recording("/v1/charges", line=12))
    assert played.misses(get("/v1/refunds"), (), repeat=False) == [
        "path: '/v1/refunds' is not '/v1/charges'",
        "so says the nearest recording, a.yaml:12",
        "record it: pytest --egress-record-mode=new_episodes test_a.py::test_a",
    ]


def test_a_recording_of_the_same_path_is_nearer_than_one_of_the_same_body() -> None:
    played = reel(
        of_body({"a": 2, "b": 3}, "/v1/charges", line=3),
        of_body({"a": 1, "b": 2}, "/v1/refunds", line=9),
    )
    asked = replace(get("/v1/charges", content_type="application/json"), content=b'{"a":1,"b":2}')
    assert "so says the nearest recording, a.yaml:3" in played.misses(asked, (), repeat=False)


def test_of_recordings_of_one_path_the_one_with_the_fewest_differences_is_the_nearest() -> None:
    bodies = [{"a": 2, "b": 2}, {"a": 1, "b": 2}, {"a": 2, "b": 3}]
    recordings = [of_body(body, line=line) for line, body in enumerate(bodies, 1)]
    asked = replace(get(content_type="application/json"), content=b'{"a":1,"b":4}')
    lines = reel(*recordings).misses(asked, (), repeat=False)
    assert lines[:2] == ["json.b: 4 is not 2", "so says the nearest recording, a.yaml:2"]


def test_a_tape_without_recordings_says_so() -> None:
    assert reel().misses(get(), (), repeat=False)[0] == "recordings: a.yaml has none"


def test_many_differences_are_cut() -> None:
    request = get()
    object.__setattr__(request, "query_string", "&".join(f"k{n}=1" for n in range(20)))
    lines = reel(recording()).misses(request, (), repeat=False)
    assert len(lines) == 11
    assert "and 12 differences more" in lines


def test_what_is_to_be_recorded_is_no_miss() -> None:
    for records in ("unknown", "all"):
        assert reel(records=records).misses(get("/new"), (), repeat=False) == []


def test_a_websocket_is_recorded_and_no_recording_of_a_request_answers_it() -> None:
    request = get(Upgrade="websocket", Connection="Upgrade")
    assert reel(records="all").misses(request, (), repeat=False) == []
    line, *_ = reel(recording()).misses(request, (), repeat=False)
    assert line == "upgrade: one of them opens a WebSocket, and the other does not"


def test_recordings_that_nothing_asks_for_are_listed_with_their_lines() -> None:
    """Nobody notices that a recording is not used (vcrpy, vcr, go-vcr)."""
    played = reel(recording(), recording("/old", line=20))
    statuses(played, "/a")
    assert played.unplayed() == ["a.yaml:20: GET https://api.test/old"]


def test_two_threads_never_play_one_recording_twice() -> None:
    played = reel(*(recording(status=200 + n) for n in range(50)))
    found: list[int | None] = []
    threads = [
        threading.Thread(target=lambda: found.extend(statuses(played, *["/a"] * 10)))
        for _ in range(5)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(filter(None, found)) == [200 + n for n in range(50)]


def test_a_websocket_that_is_still_recorded_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It outlasts its container by the time that the server takes to close."""
    one, begun, ends = reel(records="all"), threading.Event(), threading.Event()

    def record() -> None:
        with one.taking():
            begun.set()
            ends.wait(20)
            one.add(recording())

    thread = threading.Thread(target=record)
    thread.start()
    begun.wait(20)
    with monkeypatch.context() as patched:
        patched.setattr("pytest_egress.routes.recordings.reel.SETTLE_SECONDS", 0.01)
        with pytest.raises(CassetteError, match=r"a\.yaml is not written: a WebSocket"):
            one.settle()
    ends.set()
    one.settle()
    assert len(one.taken) == 1
    thread.join()


def test_what_waits_for_its_test_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reel_module, "MAX_RECORDED_BYTES", 10)
    large = Recording(
        request=RecordedRequest(method="GET", url="/", body=RecordedBody("json", {"a": "x" * 20})),
        response=RecordedResponse(status=200),
    )
    with pytest.raises(CassetteError, match=r"a\.yaml: its bodies have more than"):
        reel(records="all").add(large)
