"""What reports show of secrets, and of URLs that are long."""

from __future__ import annotations

import base64
import html
import json
import re
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress import partial
from pytest_egress.base.account import Accounts
from pytest_egress.ledger.refusals import unrouted_body
from pytest_egress.ledger.remedies import remedy
from pytest_egress.ledger.report import unrouted_text
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.routes.matching import Match
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.declared import Redaction
from pytest_egress.traffic.redaction.redactor import BY_NAMES, Redactor, mask
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


# Known values.


KEY = "tk_7hQ2vR9xLm4Zp8Wd3Ns6"  # of no form, in nothing whose name tells
HIDING = Redactor().knowing({"SHOP_KEY": KEY})


def sent(url: str = "https://api.test/", **fields: Any) -> Exchange:
    """An exchange of a run that knows the key."""
    accounts = Accounts()
    accounts.redactor = HIDING
    return exchange(request(url, _account=accounts.open(), **fields))


def test_a_known_value_has_its_name_in_its_place() -> None:
    assert HIDING.hidden(f"x {KEY} y") == "x <SHOP_KEY> y"
    assert HIDING.path(f"/v1/{KEY}/a") == "/v1/<SHOP_KEY>/a"
    assert HIDING.url(f"https://joe:{KEY}@x.test/{KEY}?k={KEY}") == (
        "https://j...(4)<SHOP_KEY>@x.test/<SHOP_KEY>?k=<SHOP_KEY>"
    )
    assert HIDING.content(b"\xff" + KEY.encode() + b"\xff") == b"\xff<SHOP_KEY>\xff"
    assert HIDING.json({KEY: [KEY, 5]}) == {"<SHOP_KEY>": ["<SHOP_KEY>", 5]}
    assert HIDING.shown({"a": KEY}) == "{'a': '<SHOP_KEY>'}"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", f"Bearer {KEY}", "Bearer <SHOP_KEY>"),
        ("X-Api-Key", KEY, "<SHOP_KEY>"),
        ("X-Api-Key", f"{KEY};{SECRET}", "<SHOP_KEY>;sk_... (33 characters)"),
        ("Cookie", f"a={KEY}; b=1", "a=<SHOP_KEY>; b=... (1 character)"),
        ("X-Debug", f"the key is {KEY}", "the key is <SHOP_KEY>"),
        ("Idempotency-Key", "order-4711-attempt-2", "order-4711-attempt-2"),
        ("Idempotency-Key", KEY, "<SHOP_KEY>"),
        ("X-Api-Key", "<OTHER_KEY>", "<O... (11 characters)"),  # of no placeholder of ours
    ],
)
def test_a_placeholder_is_never_masked_again(name: str, value: str, shown: str) -> None:
    assert HIDING.field(name, value) == shown
    assert HIDING.field(name, HIDING.field(name, value)) == HIDING.field(name, shown)


def test_a_known_value_in_the_credentials_of_basic_is_masked_with_what_is_around_it() -> None:
    credentials = b64encode(f"joe:{KEY}".encode()).decode()
    shown = HIDING.field("Authorization", f"Basic {credentials}")
    assert shown == "Basic a... (6 characters)<SHOP_KEY>"


def test_parameters_of_a_query_have_the_placeholder_whatever_they_are_called() -> None:
    assert HIDING.query(f"k={KEY}&api_key={KEY}&next=https%3A%2F%2Fx%2F%3Fa%3D{KEY}%26b%3Dc") == (
        "k=<SHOP_KEY>&api_key=<SHOP_KEY>&next=https%3A%2F%2Fx%2F%3Fa%3D<SHOP_KEY>%26b%3Dc"
    )


def test_a_field_that_continues_on_the_next_line_is_masked_to_its_end() -> None:
    text = f"Authorization: Bearer\r\n {SECRET}\r\nHost: x"
    assert SECRET[4:] not in BY_NAMES.text(text)
    assert BY_NAMES.text(text).endswith("\r\nHost: x")


def test_nothing_of_a_known_value_is_left_by_a_cut() -> None:
    for before in range(0, 120, 4):
        for after in (0, 9, 17, 40, 61, 99):
            entry = sent(f"https://api.test/{'a' * before}?k={KEY}&x={'b' * after}")
            told = "\n".join([str(entry), unrouted_text([entry]), unrouted_body(entry)])
            assert not [at for at in range(len(KEY) - 5) if KEY[at : at + 6] in told]


@pytest.mark.parametrize("size", [4096 - len(KEY), 4090, 4095, 4096, 4097, 8192])
def test_nothing_of_a_known_value_is_left_where_a_text_is_not_read_on(size: int) -> None:
    for step in range(len(KEY)):
        shown = HIDING.text("x" * (size - step) + KEY + "y" * 20)
        assert KEY[:6] not in shown
    assert KEY[:6] not in HIDING.shown("x" * 9000 + KEY + "y" * 40)


def test_what_was_kept_in_part_shows_no_beginning_of_a_known_value() -> None:
    first = f"GET /{'a' * 40} {KEY}".encode()[:64]
    assert HIDING.first_bytes(first).endswith(b"<SHOP_KEY>")


def test_the_line_to_type_has_a_star_in_place_of_a_secret_and_answers_the_request() -> None:
    asked = sent(f"https://t-{KEY.lower().replace('_', '-')}.api.test/v1/{KEY}/bot123:abcdef/x")
    assert remedy(asked).endswith(', method="GET", path="/v1/*/bot*/x")')
    entry = sent(f"https://api.test/v1/{KEY}/x")
    assert remedy(entry) == 'egress.intercept_https("api.test", method="GET", path="/v1/*/x")'
    assert Match(path="/v1/*/x").differences(entry.request) == []


def test_a_host_has_a_star_in_the_line_to_type() -> None:
    redactor = Redactor().knowing({"TENANT_TOKEN": "Tenant4711"})
    accounts = Accounts()
    accounts.redactor = redactor
    entry = exchange(request("https://tenant4711.api.test/x", _account=accounts.open()))
    assert str(entry) == "GET https://<TENANT_TOKEN>.api.test/x"
    assert remedy(entry) == 'egress.intercept_https("*.api.test", method="GET", path="/x")'


def test_differences_hide_known_values_and_say_where_they_are() -> None:
    asked = sent(
        f"https://api.test/v1/{KEY}?q={KEY}",
        headers=Headers({"x-shop": KEY}),
        content=f'{{"{KEY}": 1, "a": "{KEY}"}}'.encode(),
    ).request
    other = f"{KEY[:-1]}X"
    found = Match(
        path=f"/v1/{quote_all(KEY)}", query={"q": other}, headers={"X-Shop": "*"}, json={"a": "b"}
    ).differences(asked)
    assert found == [
        "path: '/v1/<SHOP_KEY>' is not '/v1/<SHOP_KEY>': they differ from character 5 on",
        f"query['q']: '<SHOP_KEY>' is not {other!r}",
        "json.a: '<SHOP_KEY>' is not 'b'",
        "json['<SHOP_KEY>']: 1 was not expected",
    ]


def quote_all(text: str) -> str:
    return "".join(f"%{ord(each):02X}" for each in text)


def test_two_values_of_one_name_are_told_apart() -> None:
    redactor = HIDING.knowing({"SHOP_KEY": "another-key-1"}).knowing({"SHOP_KEY": "a-third-key-1"})
    text = redactor.hidden(f"{KEY} another-key-1 a-third-key-1")
    assert text == "<SHOP_KEY> <SHOP_KEY#2> <SHOP_KEY#3>"
    assert redactor.knowing({"SHOP_KEY": KEY, "OTHER_TOKEN": KEY}) is redactor
    assert redactor.field("X-Key", "another-key-1") == "<SHOP_KEY#2>"


def test_a_placeholder_has_no_character_that_does_anything() -> None:
    redactor = Redactor().knowing({"A KEY\x1b[31m<x>\n": KEY, "é" * 200 + "_KEY": "Other-secret-1"})
    assert redactor.hidden(KEY) == "<A_KEY__31m_x__>"
    assert len(redactor.hidden("Other-secret-1")) == 66
    assert redactor.field("X-Key", KEY) == "<A_KEY__31m_x__>"


@pytest.mark.parametrize(
    "variables",
    [
        {"POSTGRES_PASSWORD": "postgres"},
        {"SHOP_NAME": KEY},
        {"A_KEY": "abc123!"},
        {"TOKEN_URL": f"https://idp.test/{KEY}"},
    ],
)
def test_what_is_not_worth_it_is_not_hidden(variables: dict[str, str]) -> None:
    assert Redactor().knowing(variables).secrets == ()


def test_a_request_without_a_run_is_masked_by_names() -> None:
    assert str(exchange(request(f"https://api.test/{KEY}?token={SECRET}"))) == (
        f"GET https://api.test/{KEY}?token=sk_l...(32)"
    )


# What a suite declares.


def test_names_that_a_suite_declares_are_secrets_where_they_stand() -> None:
    rules = Redaction(headers=["X-Tenant"], query=["t"], json=["iban"])
    redactor = Redactor.declared(rules)
    assert redactor.field("x-tenant", "acme-corp") == "ac... (9 characters)"
    assert redactor.query("t=acme-corp&a=1") == "t=ac...(9)&a=1"
    assert redactor.json({"IBAN": "DE89370400440532013000"}) == {"IBAN": "DE89... (22 characters)"}
    assert (
        redactor.text('{"iban": "DE89370400440532013000"}') == '{"iban": "DE89... (22 characters)"}'
    )
    assert BY_NAMES.field("x-tenant", "acme-corp") == "acme-corp"


def test_names_that_are_kept_are_no_secrets() -> None:
    redactor = Redactor.declared(
        Redaction(keep=["session_id", "X-Signature", "PUBLIC_KEY", "theme"])
    )
    assert redactor.field("X-Signature", "abcdefgh") == "abcdefgh"
    assert redactor.query("SESSION_ID=abcdefgh") == "SESSION_ID=abcdefgh"
    assert redactor.json({"session_id": "abcdefgh"}) == {"session_id": "abcdefgh"}
    assert redactor.knowing({"PUBLIC_KEY": KEY}).secrets == ()
    assert (
        redactor.field("Cookie", "theme=dark; s=abcdefgh") == "theme=dark; s=ab... (8 characters)"
    )


def test_values_that_a_suite_lists_are_hidden_whatever_they_are() -> None:
    redactor = Redactor.declared(Redaction(values=["swordfish", "marzipan"]))
    assert redactor.hidden("swordfish, marzipan") == "<SECRET>, <SECRET#2>"


def test_what_match_finds_is_hidden() -> None:
    redactor = Redactor.declared(Redaction(match=re.compile("cus_[a-z0-9]+").findall))
    assert redactor.path("/v1/cus_47abc/cards") == "/v1/<SECRET>/cards"
    assert redactor.glob("/v1/cus_47abc/cards") == "/v1/*/cards"
    assert redactor.field("X-Key", "cus_47abc") == "<SECRET>"


def test_where_match_raises_nothing_is_shown() -> None:
    def broken(text: str) -> list[str]:
        if text:
            raise KeyError(text)
        return []

    redactor = Redactor.declared(Redaction(match=broken))
    assert redactor.hidden(KEY) == "<match= of egress_redaction raised KeyError>"


def test_what_match_finds_is_replaced_once_and_in_no_placeholder() -> None:
    redactor = Redactor.declared(Redaction(match=re.compile(r"\b[A-Z]{6}\b").findall))
    once = redactor.known("PNR QWERTY, ASDFGH")
    assert once == redactor.known(redactor.known(once)) == "PNR <SECRET>, <SECRET>"
    assert redactor.host_glob("a-QWERTY.test") == "a-*.test"


def test_names_that_are_percent_encoded_are_secrets_and_nest_nothing() -> None:
    assert "hunter22hunter22" not in BY_NAMES.text("%74oken=hunter22hunter22&a=1")
    assert BY_NAMES.content(b"%6bey=" * 700)
    assert BY_NAMES.field("x", "%6bey=" * 700)


def test_a_long_field_is_read_at_its_beginning() -> None:
    assert len(BY_NAMES.field("x-list", "a=1; " * 20_000)) < 5_000


def test_short_plain_words_are_no_secret_within_a_longer_word() -> None:
    redactor = Redactor().knowing({"API_KEY": "test_key", "DB_PASSWORD": "correct-horse"})
    assert (
        redactor.known("tests/test_keys.py:12: my_test_key") == "tests/test_keys.py:12: my_test_key"
    )
    assert redactor.known("?k=test_key&p=correct-horse") == "?k=<API_KEY>&p=<DB_PASSWORD>"


def test_a_host_that_is_a_secret_as_a_whole_is_no_line_that_answers_any_host() -> None:
    redactor = Redactor().knowing({"A_TOKEN": KEY})
    assert redactor.host_glob(KEY.lower()) == "<A_TOKEN>"
    assert redactor.host_glob(f"x-{KEY}.test") == "x-*.test"


def test_a_value_with_marks_is_hidden_in_the_repr_of_json_and_as_a_pattern() -> None:
    value = "pa'ss\\w0rd\"X/9-long"
    redactor = Redactor().knowing({"DB_PASSWORD": value})
    for said in (
        repr(json.dumps({"p": value})),
        json.dumps({"body": json.dumps({"p": value})}),
        repr(re.escape(value)),
        f"<b>{html.escape(value)}</b>",
    ):
        assert "<DB_PASSWORD>" in redactor.known(said)
        assert "w0rd" not in redactor.known(said)


def test_lines_that_have_nothing_to_do_with_a_wrapped_secret_keep_their_breaks() -> None:
    redactor = Redactor().knowing({"A_TOKEN": KEY * 4})
    body = base64.encodebytes(f"before {KEY * 4} after".encode()).decode()
    digests = "\n".join(["0123456789abcdef" * 3] * 3)
    shown = redactor.known(f"{digests}\n{'=' * 40}\nConfig\n\n{body}")
    assert shown.startswith(f"{digests}\n{'=' * 40}\nConfig\n\n")
    assert "<A_TOKEN>" in shown


def test_keys_that_look_alike_without_their_secrets_are_all_shown() -> None:
    redactor = Redactor.declared(Redaction(match=re.compile("cus_[a-z0-9]+").findall))
    sent = {"cus_a1": 1, "cus_b2": 2, "cus_c3": 3}
    assert redactor.json(sent) == {"<SECRET>": 1, "<SECRET>#2": 2, "<SECRET>#3": 3}


def test_a_line_to_type_has_its_path_as_it_was_sent_around_a_secret_that_is_escaped_anyhow() -> (
    None
):
    redactor = Redactor().knowing({"STRIPE_KEY": "live-4eC39HqLyjWD"})
    assert redactor.glob("/a%2Fb/%6Cive-4eC39HqLyjWD/c%20d") == "/a%2Fb/*/c%20d"


def test_of_what_a_message_has_cut_before_it_was_redacted_no_piece_of_a_secret_is_shown() -> None:
    """Notes of gRPC, replies of SMTP and messages of WebSockets quote values that are cut in the middle."""
    key = "live-4eC39HqLyjWDarjtT1zdp7dc"
    redactor = Redactor().knowing({"API_KEY": key})
    pieces = {key[at : at + 5] for at in range(len(key) - 4)}
    for before in range(100):
        said = redactor.hidden(shown("a" * before + key + "b" * (120 - before)))
        assert not [piece for piece in pieces if piece in said], said


def test_a_field_with_a_host_is_redacted_as_one() -> None:
    redactor = Redactor().hiding([("KEY", "whsec-4f9aB7c2D8e1")])
    labels = b"whsec-4f9aB7c2D8e1".hex()
    name = f"{labels[:20]}.{labels[20:]}.evil.test"
    assert redactor.field("Host", name) == redactor.host(name) == "<KEY>.evil.test"
    assert redactor.field("Host", "api.test:8443") == "api.test:8443"
