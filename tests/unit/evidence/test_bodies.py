"""Bodies in a report: what they are shown as, their limits, and that no secret stays in any form of them."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from pytest_egress.evidence.bodies import (
    SHOWN_BODY,
    Bodies,
    message_text,
)
from pytest_egress.traffic.redaction.redactor import BY_NAMES

KEY = "live_key_0123456789abcdef"
KNOWING = BY_NAMES.knowing({"API_KEY": KEY})


def test_a_text_is_text_and_anything_else_is_base64() -> None:
    bodies = Bodies(BY_NAMES)
    assert bodies.of("grün\n".encode()) == {"size": 6, "text": "grün\n"}
    assert bodies.of(b"\xff\x00") == {"size": 2, "base64": "/wA="}
    assert bodies.whole(lambda: b"") is None


def test_a_body_that_is_not_kept_has_no_size() -> None:
    def gone() -> bytes:
        raise RuntimeError("it was streamed")

    assert Bodies(BY_NAMES).whole(gone) == {"size": None}


def test_a_coding_is_taken_off_and_named() -> None:
    packed = gzip.compress(b'{"a": 1}')
    made = Bodies(BY_NAMES).of(packed, coding="gzip")
    assert made == {"size": len(packed), "coding": "gzip", "text": '{"a": 1}'}
    assert "base64" in Bodies(BY_NAMES).of(b"\xff no gzip", coding="gzip")


def test_a_bomb_is_decoded_no_further_than_it_is_shown() -> None:
    made = Bodies(BY_NAMES).of(gzip.compress(bytes(50_000_000)), coding="gzip")
    assert made["cut"] == SHOWN_BODY


def test_one_body_and_all_of_a_test_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 4 * SHOWN_BODY  # of all: a tenth of a second goes to each
    monkeypatch.setattr("pytest_egress.evidence.bodies.SHOWN_BODIES", most)
    bodies = Bodies(BY_NAMES)
    made = [bodies.of(b"x" * 100_000) for _ in range(6)]
    assert {each["size"] for each in made} == {100_000}
    assert made[0]["cut"] == SHOWN_BODY == len(made[0]["text"])
    assert made[-1]["cut"] == 0
    assert sum(len(each["text"]) for each in made) == most


@pytest.mark.parametrize("before", range(SHOWN_BODY - len(KEY) - 1, SHOWN_BODY + 2, 3))
def test_a_secret_at_the_cut_is_replaced_as_a_whole(before: int) -> None:
    made = Bodies(KNOWING).of(b"x" * before + KEY.encode() + b"y" * 100)
    assert "live" not in made["text"]


def test_a_secret_in_bytes_is_replaced_before_they_become_base64() -> None:
    made = Bodies(KNOWING).of(b"\xff" + KEY.encode() + b"\x00")
    assert base64.b64decode(made["base64"]) == b"\xff<API_KEY>\x00"


def test_json_is_masked_by_its_names_at_any_depth_and_stays_json() -> None:
    value = {"card": [{"client_secret": "seti_0123456789"}], "amount": 1}
    made = Bodies(BY_NAMES).of(json.dumps(value).encode())
    assert json.loads(made["text"])["amount"] == 1
    assert "0123456789" not in made["text"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"password": "hunter2-hunter2", "password": 1}',
        b'{"a":' * 5000 + b'{"password": "hunter2-hunter2"}' + b"}" * 5000,
        b"x" * 5000 + b"\npassword=hunter2-hunter2&a=b",
        b"a" * 4090 + b" password=hunter2-hunter2",
        b'[{"password": "hunter2-hunter2"',
    ],
)
def test_no_form_of_a_text_keeps_a_secret_that_has_a_name(body: bytes) -> None:
    made = Bodies(BY_NAMES).of(body, type="application/json")
    assert "hunter2-hunter2" not in made["text"]


def test_a_form_is_masked_as_a_query() -> None:
    form = b"grant_type=x&client_secret=abcdefgh%2B12345678"
    made = Bodies(BY_NAMES).of(form, type="application/x-www-form-urlencoded; charset=utf-8")
    assert made["text"] == "grant_type=x&client_secret=abcd...(19)"


def test_a_login_of_a_raw_protocol_is_masked_and_a_line_of_a_request_is_not() -> None:
    said = b"USER shop\r\nPASS hunter2-hunter2\r\n"
    assert "hunter2-hunter2" not in Bodies(BY_NAMES).of(said, is_raw=True)["text"]
    assert "PASS test_one" in Bodies(BY_NAMES).of(b"PASS test_one\n")["text"]


def test_a_message_that_answers_a_question_for_a_password_is_masked() -> None:
    assert "aHVudGVyMg" in message_text(b"aHVudGVyMg==\r\n", BY_NAMES)
    assert "aHVudGVyMg" not in message_text(b"aHVudGVyMg==\r\n", BY_NAMES, is_asked=True)
    assert message_text(b"\xff\x01", BY_NAMES) == r"\xff\x01"
