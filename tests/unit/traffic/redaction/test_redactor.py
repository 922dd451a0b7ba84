"""What reports show of secrets, and of URLs that are long."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress import partial
from pytest_egress.ledger.refusals import unrouted_body
from pytest_egress.ledger.remedies import remedy
from pytest_egress.ledger.report import unrouted_text
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.routes.matching import Match
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import BY_NAMES, mask
from pytest_egress.traffic.shown import SHOWN_TARGET, shown
from tests.support.traffic import request

SECRET = "sk_live_51H7cQ2eZvKYlo2C9x8Fw3Rt"
OTHER = f"{SECRET[:-1]}u"  # which stands nowhere, as a key from the environment


def exchange(asked: Request, **fields: Any) -> Exchange:
    about = {"container": "shop", "started": 1.0, "outcome": "unrouted"}
    return Exchange(**{**about, "host": asked.host, "port": asked.port, "request": asked, **fields})


# Values.


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        (SECRET, "sk_l... (32 characters)"),
        ("swordfish", "sw... (9 characters)"),
        ("abc", "... (3 characters)"),
        ("k", "... (1 character)"),
        ("", "... (0 characters)"),
    ],
)
def test_no_more_than_a_quarter_of_a_secret_is_shown(secret: str, shown: str) -> None:
    assert mask(secret) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", f"Bearer {SECRET}", "Bearer sk_l... (32 characters)"),
        ("Authorization", SECRET, "sk_l... (32 characters)"),
        ("X-Api-Key", SECRET, "sk_l... (32 characters)"),
        ("Cookie", f"a={SECRET}; b=1", "a=sk_l... (32 characters); b=... (1 character)"),
        ("Set-Cookie", f"a={SECRET}; Path=/; Secure", "a=sk_l... (32 characters); Path=/; Secure"),
        (
            "Referer",
            f"https://x.test/?token={SECRET}",
            "https://x.test/?token=sk_l... (32 characters)",
        ),
        ("Accept", "text/html", "text/html"),
    ],
)
def test_a_field_is_shown_without_its_secret(name: str, value: str, shown: str) -> None:
    assert BY_NAMES.field(name, value) == shown


def test_a_query_is_shown_without_its_secrets() -> None:
    query = f"page=2&api_key={SECRET}&flag&X-Amz-Signature=abcdefgh"
    assert BY_NAMES.query(query) == "page=2&api_key=sk_l...(32)&flag&X-Amz-Signature=ab...(8)"
    assert BY_NAMES.query(f"user%5Bpassword%5D={SECRET}") == "user%5Bpassword%5D=sk_l...(32)"


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (f"next=https://x.test/?token={SECRET}", "next=https://x.test/?token=sk_l...(32)"),
        (
            f"next=https%3A%2F%2Fx.test%2F%3Fkey%3D{SECRET}%26a%3Db",
            "next=https%3A%2F%2Fx.test%2F%3Fkey%3Dsk_l...(32)%26a%3Db",
        ),
        ("next=%2F%3Fpage%3D2&a=b=c", "next=%2F%3Fpage%3D2&a=b=c"),
    ],
)
def test_a_url_in_a_query_is_shown_without_its_secrets(query: str, shown: str) -> None:
    assert BY_NAMES.query(query) == shown


def test_who_logs_in_is_not_shown() -> None:
    assert BY_NAMES.authority(f"joe:{SECRET}@api.test:80") == "joe:...(36)@api.test:80"
    assert BY_NAMES.authority("api.test:80") == "api.test:80"


def test_json_is_shown_without_its_secrets_however_deep() -> None:
    value = {"auth": {"user": "joe", "keys": [SECRET, 7]}, "max_tokens": 100, "name": "joe"}
    assert BY_NAMES.json(value) == {
        "auth": {"user": "... (3 characters)", "keys": ["sk_l... (32 characters)", 7]},
        "max_tokens": 100,
        "name": "joe",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"a=1&password={SECRET}&b=2", "a=1&password=sk_l... (32 characters)&b=2"),
        (f'{{"token" : "{SECRET}", "a": "b"}}', '{"token" : "sk_l... (32 characters)", "a": "b"}'),
        (f'{{"token": "{SECRET}', '{"token": "sk_l... (32 characters)'),
        (
            f"GET /?key={SECRET} HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\nHost: x",
            "GET /?key=sk_l... (32 characters) HTTP/1.1\r\n"
            "Authorization: Bearer sk_l... (32 characters)\r\nHost: x",
        ),
        (
            f"Referer: http://x.test/?key={SECRET}",
            "Referer: http://x.test/?key=sk_l... (32 characters)",
        ),
        (
            f'{{"tokens": ["{SECRET}", "b"], "a": 1}}',
            '{"tokens": ["sk_... (39 characters)], "a": 1}',
        ),
        (
            f'{{"secret": {{"x": {{"y": "}}"}}, "z": "{SECRET}"}}, "a": "b"}}',
            '{"secret": {"x":... (56 characters)}, "a": "b"}',
        ),
        (f"password=a'b,{SECRET};&b=2", "password=a'b,... (37 characters)&b=2"),
        (f'password="{SECRET}" a', 'password="sk_l... (32 characters)" a'),
        (
            f'{{"body": "{{\\"key\\": \\"{SECRET}',
            '{"body": "{\\"key\\": \\"sk_l... (32 characters)',
        ),
        (
            f'--b\r\nContent-Disposition: form-data; name="api_key"\r\nX: y\r\n\r\n{SECRET}\r\n--b\r\n'
            'Content-Disposition: form-data; name="a"\r\n\r\nopen\r\n--b--',
            '--b\r\nContent-Disposition: form-data; name="api_key"\r\nX: y\r\n\r\nsk_l... (32 characters)\r\n--b\r\n'
            'Content-Disposition: form-data; name="a"\r\n\r\nopen\r\n--b--',
        ),
        (
            f'; name=token; filename="t"\r\n\r\n{SECRET}',
            '; name=token; filename="t"\r\n\r\nsk_l... (32 characters)',
        ),
        ('; name="token"\r\n\r\n', '; name="token"\r\n\r\n'),
        ("no names at all", "no names at all"),
    ],
)
def test_a_text_is_shown_without_the_secrets_that_it_names(text: str, shown: str) -> None:
    assert BY_NAMES.text(text) == shown
    assert BY_NAMES.content(text.encode()) == shown.encode()


@given(st.text("a=\"&:;\\' {}\r\n-", max_size=200), st.text("key=: \"'&", max_size=40))
def test_any_text_can_be_shown(text: str, names: str) -> None:
    assert len(BY_NAMES.text(text + names + text)) >= 0
    assert BY_NAMES.text(text.replace("a", "")) == text.replace("a", "")


def test_a_long_text_is_shown_by_its_beginning() -> None:
    assert BY_NAMES.content(b"x" * 1_000_000) == b"x" * 4096 + b"..."


# Messages.


SECRETIVE: dict[str, Any] = {
    "headers": {"Authorization": f"Bearer {OTHER}"},
    "query": {"api_key": OTHER},
    "json": {"client_secret": OTHER, "sum": 5},
}


def test_differences_show_that_secrets_differ_and_not_the_secrets() -> None:
    asked = request(
        f"https://api.test/?api_key={SECRET}",
        headers=Headers({"authorization": f"Bearer {SECRET}"}),
        content=f'{{"client_secret": "{SECRET}", "sum": 4}}'.encode(),
    )
    shown = "'sk_l... (32 characters)'"
    assert Match(**SECRETIVE).differences(asked) == [
        f"query['api_key']: {shown} is not {shown}: they differ from character 32 on",
        "headers['Authorization']: 'Bearer sk_l... (32 characters)' is not 'Bearer sk_l... (32 characters)': "
        "they differ from character 39 on",
        f"json.client_secret: {shown} is not {shown}: they differ from character 32 on",
        "json.sum: 4 is not 5",
    ]


def test_what_is_absent_or_too_much_is_shown_without_its_secret() -> None:
    asked = request(content=f'{{"token": "{SECRET}"}}'.encode())
    found = "\n".join(Match(**SECRETIVE).differences(asked))
    assert SECRET[5:] not in found
    assert OTHER[5:] not in found
    assert "absent, expected 'Bearer sk_l... (32 characters)'" in found
    assert "json.token: 'sk_l... (32 characters)' was not expected" in found


def test_long_values_that_look_alike_are_told_to_differ() -> None:
    asked = request(content=b"a" * 100 + b"x" + b"a" * 100)
    (difference,) = Match(content=b"a" * 201).differences(asked)
    assert difference.endswith(": they differ from character 101 on")


def test_a_declaration_is_shown_without_its_secrets() -> None:
    assert str(Match(**SECRETIVE, content=f"password={OTHER}".encode())) == (
        "query={'api_key': 'sk_l... (32 characters)'}, "
        "headers={'Authorization': 'Bearer sk_l... (32 characters)'}, "
        "content=b'password=sk_l... (32 characters)', "
        "json={'client_secret': 'sk_l... (32 characters)', 'sum': 5}"
    )


def test_what_the_source_of_the_test_says_is_shown_as_it_is_written() -> None:
    masked = "'sk_l... (32 characters)'"
    query = Match(query={"api_key": ["sk_test_*", OTHER]})
    assert str(query) == f"query={{'api_key': ['sk_test_*', {masked}]}}"
    headers: dict[str, Any] = {"Authorization": "Bearer *", "X-Token": re.compile("tok_[0-9]+")}
    assert str(Match(headers=headers)) == f"headers={shown(headers)}"
    body = Match(json=partial({"key": "a", "keys": [OTHER]}))
    assert str(body) == f"json=partial({{'key': 'a', 'keys': [{masked}]}})"
    assert str(Match(content=b"password=hunter2")) == "content=b'password=hunter2'"


def test_what_a_target_sent_stays_masked_beside_what_the_test_wrote() -> None:
    asked = request(
        f"https://api.test/?api_key={SECRET}",
        headers=Headers({"authorization": f"Basic {SECRET}", "x-token": "tok_1234567x"}),
        content=f'{{"secret": "{SECRET}", "token": "{SECRET}"}}'.encode(),
    )
    found = Match(
        query={"api_key": "other"},
        headers={"Authorization": "Bearer *", "X-Token": "tok_12345678"},
        json=partial({"secret": re.compile("[a-z]+"), "token": {"id": "shown"}}),
    ).differences(asked)
    masked = "'sk_l... (32 characters)'"
    assert found == [
        f"query['api_key']: {masked} is not 'other'",
        "headers['Authorization']: 'Basic sk_l... (32 characters)' is not 'Bearer *'",
        "headers['X-Token']: 'tok... (12 characters)' is not 'tok_12345678': they differ from character 12 on",
        f"json.secret: {masked} does not match re.compile('[a-z]+'): a part of it does, and all of it has to",
        f"json.token: {masked} is not {{'id': 'shown'}}",
    ]


def test_a_pattern_with_a_secret_that_stands_nowhere_is_masked() -> None:
    matcher = Match(headers={"X-Key": re.compile(OTHER)})
    assert str(matcher) == "headers={'X-Key': re.compile('sk_l... (32 characters)')}"


def test_a_condition_without_the_body_knows_the_literals_of_the_test_too() -> None:
    matcher = Match(headers={"Authorization": "Bearer *"}, json=1)
    with ThreadPoolExecutor(1) as another:  # whose stack has no file of the test's
        found = another.submit(matcher.forecast, request(), is_whole=False).result()
    assert found == ["headers['Authorization']: absent, expected 'Bearer *'"]


def test_no_report_of_a_request_has_its_secret() -> None:
    asked = request(f"https://api.test/a?access_token={SECRET}&page=2")
    entry = exchange(asked, response=Response(502), near=())
    texts = [str(entry), repr(asked), outcome_text(entry), unrouted_text([entry])]
    texts += [unrouted_body(entry), remedy(entry)]
    assert not [text for text in texts if SECRET[5:] in text]
    assert str(entry) == "GET https://api.test/a?access_token=sk_l...(32)&page=2"
    assert asked.url.endswith(f"access_token={SECRET}&page=2")  # the test has it
    with pytest.raises(ValueError, match="sk_l") as caught:
        asked.json()
    assert SECRET[5:] not in str(caught.value)


def test_first_bytes_that_are_a_request_are_shown_without_its_secret() -> None:
    first = f"GET /?key={SECRET} HTTP/1.1".encode()
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": "unrouted"}
    entry = TcpConnection(**about, host="api.test", port=443, address="", first_bytes=first)
    assert SECRET[5:] not in str(entry)


# Long URLs.


def test_a_long_url_is_cut_in_the_middle() -> None:
    host = "a-rather-long-name-of-a-host-that-is-never-cut.example.test"
    path, query = "/begin/" + "x" * 5000, "q=" + "y" * 5000 + "&end=1"
    line = str(exchange(request(f"https://{host}:8443{path}?{query}")))
    assert line.startswith(f"GET https://{host}:8443/begin/xxx")
    assert line.endswith("yyy&end=1")
    assert "xxx...yyy" in line
    assert len(line) <= len(f"GET https://{host}:8443") + SHOWN_TARGET


@pytest.mark.parametrize(
    "path",
    [
        "/short",
        "/{id}/{}{a:b}{|}",
        "/begin/" + "x" * 5000 + "/end",
        "/'\"" + "%20" * 90,
        "/*" * 90,
        "/\\" * 90,
    ],
)
def test_the_line_that_would_answer_a_long_path_does(path: str) -> None:
    asked = request(f"https://api.test{path}")
    calls: list[dict[str, Any]] = []

    class Egress:
        def intercept_https(self, address: str, **match: Any) -> None:
            assert address == "api.test"
            calls.append(match)

    line = remedy(exchange(asked))
    eval(line, {"egress": Egress()})
    assert Match(**calls[0]).differences(asked) == []
    assert len(line) < 2 * SHOWN_TARGET + 100


def test_a_verdict_with_a_long_url_has_no_long_line() -> None:
    asked = request("https://api.test/" + "x" * 5000 + "?" + "y" * 5000)
    entry = exchange(asked)
    assert max(map(len, unrouted_text([entry]).splitlines())) < 200
    assert max(map(len, unrouted_body(entry).splitlines())) < 200
