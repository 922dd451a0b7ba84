"""Hiding: no secret is in a recording, wherever and in whatever form it was sent."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from pytest_egress.traffic.cassettes.bodies import NO_BODY, RecordedBody, body_of
from pytest_egress.traffic.cassettes.hiding import hidden
from pytest_egress.traffic.cassettes.tape import (
    RecordedFields,
    RecordedRequest,
    RecordedResponse,
    Recording,
    Tape,
    text_of,
)
from pytest_egress.traffic.redaction.declared import Redaction
from pytest_egress.traffic.redaction.redactor import Redactor

KEY = "sk_test_0123/45+6789abcdef"
KNOWING = Redactor().knowing({"STRIPE_KEY": KEY})


def made(
    url: str = "https://api.test/",
    asked: RecordedFields = (),
    body: RecordedBody = NO_BODY,
    answered: RecordedFields = (),
    answer: RecordedBody = NO_BODY,
) -> Recording:
    return Recording(
        request=RecordedRequest(method="POST", url=url, headers=asked, body=body),
        response=RecordedResponse(status=200, headers=answered, body=answer),
    )


def without_secrets(recording: Recording, redactor: Redactor = KNOWING) -> tuple[Recording, Tape]:
    tape = hidden([recording], redactor)
    return tape.recordings[0], tape


MULTIPART = (
    b'--x\r\nContent-Disposition: form-data; name="password"\r\n\r\nhunter22\r\n'
    b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\n\xff'
    + KEY.encode()
    + b"\r\n--x--\r\n"
)


@pytest.mark.parametrize(
    "recording",
    [
        made(url=f"https://api.test/v1/{quote(KEY, safe='')}/x?k={quote(KEY, safe='')}"),
        made(url=f"https://me:{KEY}@api.test/"),
        made(asked=(("authorization", f"Bearer {KEY}"),)),
        made(asked=(("x-debug", f"key is {KEY}!"),)),
        made(answered=(("location", f"https://other.test/cb?token={quote(KEY, safe='')}"),)),
        made(answered=(("link", f'<https://api.test/?sig={KEY}>; rel="next"'),)),
        made(answered=(("set-cookie", f"sid={KEY}; Path=/; HttpOnly"),)),
        made(body=RecordedBody("json", {"a": [{KEY: f"x{KEY}x"}]})),
        made(body=RecordedBody("json", {"a": base64.b64encode(f"u:{KEY}".encode()).decode()})),
        made(body=RecordedBody("form", {"a": [KEY, "b"]})),
        made(body=RecordedBody("text", f"<xml>{KEY}</xml>")),
        made(body=RecordedBody("text", "x" * 5000 + KEY)),
        made(body=body_of(MULTIPART, "multipart/form-data; boundary=x", of="request")),
        made(answer=RecordedBody("events", [{"json": {"a": KEY}}, {"data": f"a {KEY}"}])),
    ],
)
def test_a_value_of_env_is_in_no_place_and_no_form(recording: Recording) -> None:
    """Credentials in cassettes that were committed (top-github-scraper, vcrpy, gridstatus)."""
    _, tape = without_secrets(recording)
    text = text_of(tape)
    for form in (
        KEY,
        quote(KEY, safe=""),
        KEY[4:20],
        base64.b64encode(KEY.encode()).decode()[4:24],
    ):
        assert form not in text
    assert "hunter22" not in text
    assert "STRIPE_KEY" in tape.secrets or tape.secrets == {"sid"}


def test_a_placeholder_stands_for_the_whole_value_by_name_too() -> None:
    recording, tape = without_secrets(
        made(
            url="https://api.test/?api_key=abcdefgh1&page=2",
            asked=(
                ("authorization", "Basic dTpw"),
                ("x-api-key", "abc"),
                ("idempotency-key", "i-1"),
            ),
            body=RecordedBody(
                "json",
                {
                    "client_secret": "s3cr3t",
                    "amount": 1,
                    "nested": {"password": {"a": "b", "n": 1}},
                },
            ),
            answered=(("set-cookie", "sid=abc; Path=/"), ("location", "/next?token=t1&page=2")),
            answer=RecordedBody(
                "json", {"access_token": "x", "token_type": "Bearer", "max_tokens": 5}
            ),
        )
    )
    asked, answered = recording.request, recording.response
    assert asked.url == "https://api.test/?api_key=<api_key>&page=2"
    assert asked.headers == (
        ("authorization", "Basic <authorization>"),
        ("x-api-key", "<x-api-key>"),
        ("idempotency-key", "i-1"),
    )
    assert asked.body.value == {
        "client_secret": "<client_secret>",
        "amount": 1,
        "nested": {"password": {"a": "<password>", "n": 1}},
    }
    assert answered.headers == (
        ("set-cookie", "sid=<sid>; Path=/"),
        ("location", "/next?token=<token>&page=2"),
    )
    assert answered.body.value == {
        "access_token": "<access_token>",
        "token_type": "Bearer",
        "max_tokens": 5,
    }
    assert tape.secrets >= {"api_key", "authorization", "sid", "token", "password"}


def test_what_a_client_is_given_by_name_is_hidden_where_it_sends_it_too() -> None:
    recording, _ = without_secrets(
        made(
            url="https://api.test/sessions/se_0123456789abcdef/x",
            answer=RecordedBody("json", {"session_id": "se_0123456789abcdef"}),
        )
    )
    assert recording.request.url == "https://api.test/sessions/<session_id>/x"


def test_text_has_its_names_looked_at_to_its_end() -> None:
    long = "x=1&" * 3000 + 'password=hunter22&b={"token": "abc", "secret": {"k": "v"}}'
    recording, _ = without_secrets(made(body=RecordedBody("text", long)))
    assert recording.request.body.value.endswith(
        'password=<password>&b={"token": "<token>", "secret": {"k": "<secret>"}}'
    )


def test_texts_within_brackets_are_hidden_without_their_end_too_and_none_is_read_twice() -> None:
    cut = '{"password": {"a" : "hunter22", "b": ["x\\"y", "hunter33'
    recording, _ = without_secrets(made(body=RecordedBody("text", cut)))
    assert recording.request.body.value == (
        '{"password": {"a" : "<password>", "b": ["<password>", "<password#2>'
    )
    quotes = '{"password": {"' + '\\"' * 50_000  # each of which may begin a text
    recording, _ = without_secrets(made(body=RecordedBody("text", quotes)))
    assert recording.request.body.value == '{"password": {"<password>'


def test_secrets_by_their_form_are_hidden() -> None:
    text = "ghp_" + "a1" * 18
    recording, tape = without_secrets(made(body=RecordedBody("json", {"note": text})), Redactor())
    assert recording.request.body.value == {"note": "<SECRET>"}
    assert tape.secrets == {"SECRET"}


def test_what_a_suite_declares_is_hidden_and_what_it_keeps_is_kept() -> None:
    rules = Redaction(headers=["X-Tenant"], json=["email"], keep=["session_id"])
    recording, _ = without_secrets(
        made(
            asked=(("x-tenant", "acme"),),
            body=RecordedBody("json", {"email": "a@b.test", "session_id": "s"}),
        ),
        Redactor.declared(rules),
    )
    assert recording.request.headers == (("x-tenant", "<x-tenant>"),)
    assert recording.request.body.value == {"email": "<email>", "session_id": "s"}


def test_keys_that_look_alike_without_their_secrets_are_both_kept() -> None:
    redactor = Redactor().hiding([("A", "aaaaaaaa1"), ("A", "bbbbbbbb1")])
    recording, _ = without_secrets(
        made(body=RecordedBody("json", {"aaaaaaaa1": 1, "<A>": 2})), redactor
    )
    assert recording.request.body.value == {"<A>": 1, "<A>#2": 2}


def test_hiding_again_changes_nothing() -> None:
    recording = made(
        asked=(("authorization", f"Bearer {KEY}"), ("cookie", "a=1; theme=dark")),
        body=RecordedBody("json", {"password": "hunter22", "k": KEY}),
    )
    first, _ = without_secrets(recording)
    second, _ = without_secrets(first)
    assert first == second


def test_a_call_in_turns_has_no_secret_in_either_direction() -> None:
    turns = [
        {"send": {"token": "tok-1", "name": KEY}},
        {"receive": base64.b64encode(b"x" + KEY.encode()).decode()},
        "half-close",
    ]
    hidden_one, _ = without_secrets(made(answer=RecordedBody("turns", turns)))
    first, second, last = hidden_one.response.body.value
    assert first == {"send": {"token": "<token>", "name": "<STRIPE_KEY>"}}
    assert base64.b64decode(second["receive"]) == b"x<STRIPE_KEY>"
    assert last == "half-close"
