"""Calls of gRPC in a cassette whose sides wait for each other: played in turns, and recorded in turns."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from pytest_egress import cassette
from pytest_egress.base import account
from pytest_egress.errors import CassetteError, UpstreamError
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.recordings.deck import Deck
from pytest_egress.routes.recordings.reel import ToRecord
from pytest_egress.traffic.cassettes.tape import Tape, tape_of, text_of
from pytest_egress.traffic.grpc import MessageBuffer, frame, status_fields
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.response import Response
from tests.support.greeter import pb
from tests.support.grpc_calls import Call, CallDuplex
from tests.support.reels import reel_of

KEY = "key-0123456789"
BOTH = "/greet.v1.Greeter/Both"
BEGIN = """\
egress_cassette: 1
secrets: [KEY]
interactions:
"""
ASKED = """
- request:
    grpc: https://greeter.test/greet.v1.Greeter/Both
"""
TALK = f"""{ASKED}\
  messages:
  - send: {{name: one}}
  - receive: {{text: ONE}}
  - send: {{name: <KEY>}}
  - receive: {{text: <KEY>}}
  - half-close
  response:
    status: NOT_FOUND
    details: no more
    trailing_metadata: {{x-why: end}}
"""
OTHER = TALK.replace("<KEY>", "two")
OPEN = f"{ASKED}  messages:\n  - send: {{name: one}}\n  - receive: {{text: ONE}}\n"
REFUSED = f"{ASKED}  messages: []\n  response: {{status: UNAUTHENTICATED}}\n"
OK = Headers(status_fields(0, ""))


def deck(*texts: str, records: ToRecord = "nothing", **options: Any) -> Deck:
    reel = reel_of(
        tape_of(BEGIN + "".join(texts), "a.yaml") if texts else None,
        records=records,
        variables={"KEY": KEY},
        command="pytest --egress-record-mode=new_episodes test_a.py",
    )
    return Deck(reel, cassette(**options), is_required=False)


def pieces(duplex: CallDuplex) -> Generator[tuple[bytes, bool], None, None]:
    while True:
        with contextlib.suppress(TimeoutError):
            piece = duplex.receive(0.02)
            yield piece, not piece


def shouting(content: Iterator[bytes]) -> Response:
    """A real server that answers each message at once."""

    def answers() -> Iterator[bytes]:
        buffer = MessageBuffer()
        for piece in content:
            buffer.receive(piece)
            while (data := buffer.next_message()) is not None:
                said = pb.Hello.FromString(data).name.upper()
                yield frame(pb.Reply(text=said).SerializeToString())

    head = Headers({"content-type": "application/grpc", "x-server": "real"})
    return Response.received(200, head, reason="OK", stream=answers(), trailers=OK)


def unreachable(content: Iterator[bytes]) -> Response:
    raise UpstreamError("it cannot be reached")


def call(one: Deck, ask: Any = unreachable, *said: str, ends: bool = False) -> Call:
    """A call whose client has said these names."""
    answer = one.call(lambda: pieces(made.duplex), ask)
    made = Call(answer, BOTH)
    return made.start(*(pb.Hello(name=name) for name in said), ends=ends)


def say(made: Call, name: str) -> str:
    made.say(pb.Hello(name=name))
    return str(made.hear(pb.Reply).text)


def test_an_answer_comes_when_what_the_client_sent_before_it_has_come() -> None:
    made = call(one := deck(TALK))
    assert say(made, "one") == "ONE"
    assert made.duplex.sent.empty()
    assert say(made, KEY) == KEY
    assert not made.duplex.finished.is_set()
    made.half_close()
    made.join()
    assert made.error is None
    assert made.status == ("NOT_FOUND", "no more")
    assert made.duplex.trailers_sent is not None
    assert made.duplex.trailers_sent["x-why"] == "end"
    assert made.conversation.exchange.note == "recording 1 of a.yaml"
    assert one.reel.unplayed() == []


@pytest.mark.parametrize(
    ("said", "ends", "text"),
    [
        (["1"], False, "messages[0].name: '1' is not 'one'"),
        (["one", "2"], False, "messages[2].name: '2' is not '<KEY>'"),
        (["one"], True, "messages[2]: its client has sent all its messages before it"),
        (["one", KEY, "x"], False, r"messages[4]: b'\n\x01x' was not expected"),
        ([b"\7"], True, "messages: the request ended within a message"),
    ],
)
def test_what_differs_is_named_and_the_client_gets_a_status(
    said: list[Any], ends: bool, text: str
) -> None:
    made = call(deck(TALK))
    for each in said:
        made.say(pb.Hello(name=each) if isinstance(each, str) else each)
    if ends:
        made.half_close()
    made.join()
    assert isinstance(made.error, CassetteError)
    assert text in str(made.error)
    assert str(made.error).endswith(
        "so says a.yaml:5; record it again: pytest --egress-record-mode=rewrite test_a.py"
    )
    if made.duplex.head is not None:
        assert made.status == ("UNKNOWN", "pytest-egress: a message is not the recorded one")


@pytest.mark.parametrize(
    ("texts", "begins"),
    [
        ([TALK, OTHER], True),
        ([TALK, OTHER.replace("details", "metadata: {x-a: b}\n    details")], False),
        ([TALK, REFUSED], False),
        ([REFUSED], False),
    ],
)
def test_the_head_comes_before_the_client_has_sent_anything_where_it_is_sure(
    texts: list[str], begins: bool
) -> None:
    made = call(deck(*texts), ends=True).join()
    assert (made.duplex.trailers_sent is not None) is begins


def test_a_place_may_be_ignored() -> None:
    made = call(deck(TALK, ignore=["messages[0].name"]))
    assert say(made, "other") == "ONE"


def test_a_status_alone_is_one_and_comes_without_a_message() -> None:
    made = call(deck(REFUSED)).join()
    assert made.status == ("UNAUTHENTICATED", "")
    assert made.duplex.trailers_sent is None
    assert made.error is None


def test_a_call_that_was_left_open_stays_so_until_its_client_leaves() -> None:
    made = call(deck(OPEN))
    assert say(made, "one") == "ONE"
    made.half_close()
    made._thread.join(0.05)
    assert made._thread.is_alive()
    made.duplex.leave()
    made.join()
    assert isinstance(made.error, ClientLeftError)


def test_two_calls_in_another_order_each_follow_their_own_recording() -> None:
    one = deck(TALK, OTHER)
    first, second = call(one), call(one)
    for made in (first, second):
        assert say(made, "one") == "ONE"
    assert say(first, "two") == "two"  # which is the recording of the second
    assert say(second, KEY) == KEY
    for made in (first, second):
        made.half_close()
        made.join()
        assert made.error is None
    assert first.conversation.exchange.note == "recording 2 of a.yaml"
    assert one.reel.unplayed() == []


def test_a_call_beyond_the_recordings_is_none_of_them() -> None:
    one = deck(TALK)
    made = call(one, unreachable, "one", KEY, ends=True).join()
    assert made.error is None
    request = made.conversation.exchange.request
    assert "recorded 1 time in a.yaml, and asked once more" in one.misses(request)[0]
    assert deck(TALK, repeat=True).misses(request) == []


def test_a_call_is_recorded_in_turns_where_its_client_waits() -> None:
    one = deck(records="all")
    made = call(one, shouting)
    assert say(made, "one") == "ONE"
    assert say(made, "two") == "TWO"
    made.half_close()
    made.join()
    assert made.error is None
    assert made.status == ("OK", "")
    assert made.conversation.exchange.note == "recorded into a.yaml"
    text = text_of(Tape(recordings=tuple(one.reel.taken)))
    assert text.endswith(
        """\
  messages:
  - send: {name: one}
  - receive: {text: ONE}
  - send: {name: two}
  - receive: {text: TWO}
  - half-close
  response:
    status: OK
    metadata: {x-server: real}
"""
    )
    assert tape_of(text, "a.yaml").recordings == tuple(one.reel.taken)


def test_a_call_whose_client_waits_for_nothing_is_recorded_side_by_side() -> None:
    def later(content: Iterator[bytes]) -> Response:
        sent = b"".join(content)
        return shouting(iter([sent]))

    one = deck(records="all")
    assert call(one, later, "one", "two", ends=True).join().error is None
    (taken,) = one.reel.taken
    assert taken.request.body.value == [{"name": "one"}, {"name": "two"}]
    assert taken.response.body.value == [{"text": "ONE"}, {"text": "TWO"}]


def test_a_call_that_its_client_leaves_is_recorded_as_open() -> None:
    def waiting(content: Iterator[bytes]) -> Response:
        try:
            return shouting(content)
        finally:
            made.duplex.leave()

    one = deck(records="all")
    answer = one.call(lambda: pieces(made.duplex), waiting)
    made = Call(answer, BOTH)
    made.start(pb.Hello(name="one"), ends=False).join()
    assert isinstance(made.error, ClientLeftError)
    (taken,) = one.reel.taken
    text = text_of(Tape(recordings=(taken,)))
    assert text.endswith("  messages: []\n  response:\n    metadata: {x-server: real}\n")
    assert tape_of(text, "a.yaml").recordings == (taken,)


def test_an_unknown_call_goes_to_the_server_with_what_was_read_of_it() -> None:
    one = deck(TALK, records="unknown")
    made = call(one)
    assert say(made, "one") == "ONE"  # which is known
    made.duplex.leave()
    made.join()
    new = call(one, shouting)
    assert say(new, "other") == "OTHER"
    new.half_close()
    new.join()
    assert new.error is None
    (taken,) = one.reel.taken
    assert taken.response.body.value == [
        {"send": {"name": "other"}},
        {"receive": {"text": "OTHER"}},
        "half-close",
    ]


def test_a_call_that_cannot_be_recorded_fails_and_its_client_gets_the_answer() -> None:
    def unspoken(content: Iterator[bytes]) -> Response:
        return Response.received(200, Headers({"x-a": "b"}), reason="OK")

    made = call(one := deck(records="all"), unspoken, "one", ends=True).join()
    assert "is not recorded: the answer, 200, has no grpc-status" in str(made.error)
    assert made.duplex.head is not None
    assert one.reel.taken == []

    def deaf(content: Iterator[bytes]) -> Response:
        assert b"".join(content) == b"\7" * 6
        return Response.received(200, OK, reason="OK")

    made = call(one, deaf)
    made.say(b"\7" * 6)
    made.half_close()
    made.join()
    assert "what its client sends cannot be read: a message begins with 7" in str(made.error)
    assert one.reel.taken == []


def test_a_call_with_more_messages_than_are_kept_is_none_and_its_client_gets_every_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(account, "MAX_HELD_BYTES", 1000)
    made = call(one := deck(records="all"), shouting)
    assert [say(made, f"n{number}") for number in range(20)] == [f"N{n}" for n in range(20)]
    made.half_close()
    made.join()
    assert "is not recorded: its messages are more than is kept" in str(made.error)
    assert one.reel.taken == []


def test_a_server_that_is_not_reached_is_an_error_and_no_recording() -> None:
    made = call(one := deck(records="all"), unreachable, "one").join()
    assert isinstance(made.error, UpstreamError)
    assert one.reel.taken == []
