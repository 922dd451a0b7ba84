"""What was sent is found wherever it is, its place is told, and what cannot be searched passes for nothing."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import re
import zlib
from typing import Any

import pytest

from pytest_egress.errors import CallError
from pytest_egress.traffic.entries import Entry, Exchange, Mail
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.search.needles import checked
from pytest_egress.traffic.search.verdict import search
from tests.support.entries import about, dns_query, packet, tcp, tls
from tests.support.traffic import quic_initial

ANN = "ann@example.com"
JSON = {"Content-Type": "application/json"}


def sent(
    content: bytes = b"",
    headers: dict[str, str] | None = None,
    path: str = "/",
    query: str = "",
    **fields: Any,
) -> Exchange:
    request = Request(
        method="POST",
        scheme="https",
        host="api.test",
        port=443,
        path=path,
        query_string=query,
        headers=Headers(headers or {}),
        raw_content=content,
        **fields,
    )
    return Exchange(**about(outcome="routed", port=443), request=request)


def mail(content: bytes, **fields: Any) -> Mail:
    common = {"address": "198.18.0.1", "sender": "shop@x.test", "recipients": ("b@x.test",)}
    return Mail(**about(outcome="routed", port=25) | common | fields, content=content)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def token(claims: dict[str, str]) -> str:
    parts = (b'{"alg":"none"}', json.dumps(claims).encode(), b"signature")
    return ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts)


def failure(entry: Entry | list[Entry], *needles: Any) -> CallError:
    entries = entry if isinstance(entry, list) else [entry]
    error = search(entries, checked(needles or (ANN,)))
    assert error is not None
    return error


def places(entry: Entry, *needles: Any) -> list[str]:
    """The lines about the only entry of an error."""
    lines = str(failure(entry, *needles)).splitlines()
    return [line.strip() for line in lines if line.startswith("      ")]


def is_clean(entry: Entry, *needles: Any) -> bool:
    return search([entry], checked(needles or (ANN,))) is None


# Where it is.

EVENT = {"exception": {"values": [{"frames": [{}, {"vars": {"email": ANN}}]}]}}
ENVELOPE = b"\n".join(
    [
        b'{"dsn": "https://key@sentry.test/1"}',
        b'{"type": "attachment", "length": 8}',
        b"ab\ncdefg",
        b'{"type": "event"}',
        json.dumps(EVENT).encode().replace(b"@", b"\\u0040"),
        b"",
    ]
)
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="to"\r\n\r\nann@example.com\r\n'
    b'--B\r\nContent-Disposition: form-data; name="upload"; filename="ann@example.com.json"\r\n'
    b'Content-Type: application/json\r\n\r\n{"a": ["ann\\u0040example.com"]}\r\n--B--\r\n'
)
RELATED = (
    b'--B\r\nContent-Type: application/json\r\n\r\n{"e": "ann\\u0040example.com"}\r\n--B\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\nYW5uQGV4YW1wbGUuY29t\r\n--B--\r\n"
)
LONG = json.dumps({"x": "x" * 100, "e": ANN}).encode()
PARTS = {"Content-Type": "multipart/form-data; boundary=B"}


def in_lines(data: bytes) -> str:
    """As MIME has it."""
    return base64.encodebytes(data).decode().replace("\n", "\r\n")


def part(content: bytes, content_type: bytes = b"") -> bytes:
    head = b'Content-Disposition: form-data; name="to"'
    head += b"\r\nContent-Type: " + content_type if content_type else b""
    return b"--B\r\n" + head + b"\r\n\r\n" + content + b"\r\n--B--\r\n"


PLACES: dict[str, tuple[Exchange, list[str]]] = {
    "the path": (sent(path=f"/of/{ANN}"), ["url path: '/of/ann@example.com'"]),
    "the path, encoded": (
        sent(path="/ann%40example.com"), ["url path, percent-decoded: '/ann@example.com'"]
    ),
    "the query": (sent(query="to=ann%40example.com"), ["url query 'to'"]),
    "a name in the query": (sent(query="ann%40example.com=1"), ["url query (a name)"]),
    "a URL in the query": (
        sent(query="next=https%3A%2F%2Fx%2F%3Fto%3Dann%2540example.com"),
        ["url query 'next', percent-decoded: 'https://x/?to=ann@example.com'"],
    ),
    "a field": (sent(headers={"X-User": f"of {ANN}."}), ["header X-User: 'of ann@example.com.'"]),
    "a field, encoded": (
        sent(headers={"Baggage": "user=ann%40example.com"}),
        ["header Baggage, percent-decoded: 'user=ann@example.com'"],
    ),
    "Basic credentials": (
        sent(headers={"Authorization": f"Basic {base64_of(b'ann@example.com:x')}"}),
        ["header Authorization, base64-decoded"],
    ),
    "a token": (
        sent(headers={"Authorization": f"Bearer {token({'email': ANN})}"}),
        ["header Authorization, base64-decoded json: email"],
    ),
    "a cookie": (
        sent(headers={"Cookie": "a=b; user=ann%40example.com"}),
        ["header Cookie 'user', percent-decoded"],
    ),
    "a trailer": (sent(trailers={"X-Sum": ANN}), ["trailer X-Sum"]),
    "the body": (sent(b"\x0a\x0f" + ANN.encode()), [f"body: {chr(10) + chr(15) + ANN!r}"]),
    "a body in a charset": (
        sent(ANN.encode("utf-16"), {"Content-Type": "text/plain; charset=utf-16"}), ["body"]
    ),
    "JSON": (sent(json.dumps({"a": [{"b c": ANN}]}).encode(), JSON), ["body json: a[0]['b c']"]),
    "JSON that no field tells of": (sent(b' {"a": "ann\\u0040example.com"}'), ["body json: a"]),
    "a name in JSON": (sent(b'{"a": {"ann\\u0040example.com": 1}}', JSON), ["body json: a (a name)"]),
    "a value that a later one of its name replaces": (
        sent(b'{"a": "ann\\u0040example.com", "a": "x"}', JSON), ["body json: a"]
    ),
    "JSON within JSON": (
        sent(json.dumps({"q": json.dumps({"e": ANN})}).encode(), JSON), ["body json: q json: e"]
    ),
    "base64 within JSON": (
        sent(json.dumps({"data": base64_of(b'{"e": "ann@example.com"}')}).encode(), JSON),
        ["body json: data, base64-decoded json: e"],
    ),
    "gzip within base64": (
        sent(json.dumps({"data": base64_of(gzip.compress(ANN.encode()))}).encode(), JSON),
        ["body json: data, base64-decoded, unzipped"],
    ),
    "lines of JSON": (
        sent(b'{"index": {}}\n{"e": "ann\\u0040example.com"}\n{"f": 1}\n',
             {"Content-Type": "application/x-ndjson"}),
        ["body json 2: e"],
    ),
    "several documents on a line": (
        sent(b'{"e": 1}{"e": "ann\\u0040example.com"}'), ["body json 2: e"]
    ),
    "an envelope": (
        sent(ENVELOPE, path="/api/1/envelope/"),
        ["body envelope item 1: exception.values[0].frames[1].vars.email"],
    ),
    "a compressed envelope": (
        sent(gzip.compress(ENVELOPE), {"Content-Encoding": "gzip"}, "/api/1/envelope/"),
        ["body envelope item 1: exception.values[0].frames[1].vars.email"],
    ),
    "compression that no field tells of": (
        sent(zlib.compress(json.dumps({"e": ANN}).encode())), ["body, unzipped json: e"]
    ),
    "a form": (
        sent(b"a=1&to=ann%40example.com", {"Content-Type": "application/x-www-form-urlencoded"}),
        ["body form 'to'"],
    ),
    "JSON that is said to be a form": (
        sent(b'{"a": "ann\\u0040example.com"}', {"Content-Type": "application/x-www-form-urlencoded"}),
        ["body json: a"],
    ),
    "a form without a type": (sent(b"a=1&to=ann%40example.com"), ["body form 'to'"]),
    "a form in parts": (
        sent(FORM, {"Content-Type": "multipart/form-data; boundary=B"}),
        [
            "body form 'to'",
            "body file 'upload' header Content-Disposition (filename): 'ann@example.com.json'",
            "body file 'upload' json: a[0]",
        ],
    ),
    "other parts": (
        sent(RELATED, {"Content-Type": "multipart/related; boundary=B"}),
        ["body part 1 json: e", "body part 2"],
    ),
    "XML": (
        sent(b"<to>ann&#64;example.com</to>", {"Content-Type": "application/xml"}),
        ["body, entities decoded: '<to>ann@example.com</to>'"],
    ),
    "base64 as a whole": (sent(base64_of(ANN.encode()).encode()), ["body, base64-decoded"]),
    "base64 in lines": (sent(base64.encodebytes(LONG)), ["body, base64-decoded json: e"]),
    "base64 in lines within JSON": (
        sent(json.dumps({"a": in_lines(LONG)}).encode(), JSON), ["body json: a, base64-decoded json: e"]
    ),
    "a token as a whole": (
        sent(token({"email": ANN}).encode()), ["body, base64-decoded json: email"]
    ),
    "a part that is compressed": (
        sent(part(gzip.compress(ANN.encode())), PARTS), ["body form 'to', unzipped"]
    ),
    "a part with a type": (
        sent(part(b'{"e": "ann\\u0040example.com"}', b"application/json"), PARTS),
        ["body form 'to' json: e"],
    ),
    "a part in a charset": (
        sent(part(ANN.encode("utf-16"), b"text/plain; charset=utf-16"), PARTS), ["body form 'to'"]
    ),
    "a token in a part": (
        sent(part(token({"email": ANN}).encode()), PARTS),
        ["body form 'to', base64-decoded json: email"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("exchange", "told"), PLACES.values(), ids=PLACES)
def test_the_place_of_what_was_sent_is_told(exchange: Exchange, told: list[str]) -> None:
    assert places(exchange) == [f"'{ANN}' in {each}" for each in told]
    assert places(exchange, re.compile(r"ann@\w+\.com"))
    assert places(exchange, ANN.encode())
    assert is_clean(exchange, "bob@example.com", b"bob@", re.compile(r"bob@"))


def test_the_error_has_each_attempt_once_and_each_place() -> None:
    twice = sent(json.dumps({"a": ANN, "b": [ANN]}).encode(), JSON)
    error = failure([twice, sent(b"nothing"), sent(path=f"/{ANN}", query="x=bob")], ANN, "bob")
    assert str(error) == (
        "this must not be sent, and was:\n"
        "\n"
        "  POST https://api.test/\n"
        "      'ann@example.com' in body json: a\n"
        "      'ann@example.com' in body json: b[0]\n"
        "\n"
        "  POST https://api.test/ann@example.com?x=bob\n"
        "      'ann@example.com' in url path: '/ann@example.com'\n"
        "      'bob' in url query 'x'"
    )
    assert error.headline == "POST https://api.test/: it sent 'ann@example.com' in body json: a"


def test_many_finds_are_cut() -> None:
    many = sent(json.dumps([ANN] * 1000).encode(), JSON)
    text = str(failure([many] * 30))
    assert text.count(ANN) == 20 * 5
    assert "      and more\n" in text
    assert text.endswith("\n  and 10 more")


# Secrets around it.


def test_what_is_around_a_find_is_shown_without_secrets() -> None:
    secret = sent(
        f"token=sk_live_4242424242&of={ANN}&password=hunter22".encode(),
        {"Authorization": f"Basic {base64_of(b'ann@example.com:hunter22')}"},
        query=f"api_key={ANN}-4242",
    )
    text = str(failure(secret, ANN, re.compile(r"of=")))
    assert "hunter22" not in text
    assert "4242" not in text
    nested = sent(json.dumps({"password": json.dumps([f"{ANN} hunter22"])}).encode(), JSON)
    assert "hunter22" not in str(failure(nested))


def test_a_secret_that_begins_far_before_a_find_is_not_shown() -> None:
    long = sent(b"password=" + b"hunter22" * 1000 + ANN.encode())
    assert "hunter22" not in str(failure(long))


@pytest.mark.parametrize("between", ["\u00e9".encode(), b"\xff", "\u20ac".encode() * 700])
def test_bytes_that_are_no_ascii_before_a_find_show_no_secret(between: bytes) -> None:
    long = sent(b"password=" + b"hunter22" * 1000 + between + b"hunter22" + ANN.encode())
    assert "hunter22" not in str(failure(long))


def test_what_a_target_has_sent_is_shown_escaped_and_cut() -> None:
    text = str(failure(sent(f"\x1b[2J{ANN}\u202e".encode(), {f"{'n' * 300}": ANN})))
    assert "\x1b" not in text
    assert "\u202e" not in text


# Other attempts.


def test_names_of_hosts_are_compared_without_case() -> None:
    assert places(dns_query(host="ann.example.com"), "ANN.Example") == [
        "'ANN.Example' in the name of its host: 'ann.example.com'"
    ]
    assert (
        "DNS ann.example.com A: it sent"
        in failure(dns_query(host="ann.example.com"), re.compile("Ann")).headline
    )
    assert places(tls(sni="ann.test"), b"ANN") == [
        "b'ANN' in the server name of its TLS: 'ann.test'"
    ]
    assert is_clean(sent(b"ann"), "ANN")


def test_the_bytes_of_connections_and_packets_are_searched() -> None:
    assert places(tcp(kept=bytearray(ANN.encode()))) == [f"'{ANN}' in its bytes"]
    assert places(tcp(first_bytes=ANN.encode())) == [f"'{ANN}' in its bytes"]
    assert places(packet(first_bytes=ANN.encode())) == [f"'{ANN}' in its bytes"]


TEXT = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
MAILS = {
    "a field": (b"Subject: =?utf-8?b?" + base64_of(ANN.encode()).encode() + b"?=\r\n\r\nhi\r\n",
                "mail header Subject"),
    "base64": (TEXT + b"base64\r\n\r\n" + base64_of(ANN.encode()).encode(), "mail body"),
    "quoted-printable": (TEXT + b"quoted-printable\r\n\r\nann=40exa=\r\nmple.com",
                         "mail body: 'ann@example.com\\n'"),
    "an attachment": (
        b"Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: text/plain\r\n\r\nhi\r\n--B\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=a.gz\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(gzip.compress(ANN.encode()))
        + b"--B--\r\n",
        "mail part 2, unzipped",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "place"), MAILS.values(), ids=MAILS)
def test_mails_are_searched_as_they_are_read(content: bytes, place: str) -> None:
    (line,) = places(mail(content))
    assert line.removesuffix(r": 'ann@example.com\n'") == (
        f"'{ANN}' in {place}".removesuffix(r": 'ann@example.com\n'")
    )


def test_who_a_mail_is_from_and_to_is_searched() -> None:
    assert places(mail(b"\r\nhi\r\n", sender=ANN)) == [f"'{ANN}' in MAIL FROM"]
    assert places(mail(b"\r\nhi\r\n", recipients=("b@x.test", ANN))) == [f"'{ANN}' in RCPT TO"]
    assert places(mail(b"\r\nhi\r\n", user=ANN)) == [f"'{ANN}' in the name of its login"]


def within_json(value: str, times: int) -> Exchange:
    for _ in range(times):
        value = json.dumps({"a": value})
    return sent(value.encode(), JSON)


@pytest.mark.parametrize("times", range(1, 7))
@pytest.mark.parametrize("word", ["password", "customers", "user_identifier", "ab" * 32])
def test_a_word_that_passes_for_base64_is_not_encoded_too_often(word: str, times: int) -> None:
    assert is_clean(within_json(word, times), "nowhere")


@pytest.mark.parametrize("times", range(1, 7))
def test_base64_at_any_depth_is_searched_and_what_is_within_it_said(times: int) -> None:
    assert places(within_json(base64_of(b"\x00\xff" + ANN.encode()), times))
    for more in (gzip.compress(ANN.encode()), b'{"e": "ann\\u0040example.com"}', b"PK\x03\x04..."):
        assert not is_clean(within_json(base64_of(more), times))


# What cannot be searched.

UNSEARCHABLE: dict[str, tuple[Entry, str]] = {
    "a coding that is unknown": (
        sent(b"x", {"Content-Encoding": "snappy"}), "body cannot be decoded: the body has the content"
    ),
    "a coding that is not so": (
        sent(b"x", {"Content-Encoding": "gzip"}), "body cannot be decoded: the body breaks off"
    ),
    "a body that broke off": (
        sent(b"abc", {"Content-Length": "9"}), "body has come in part: 3 of 9 bytes"
    ),
    "JSON that is none": (sent(b'{"a": ', JSON), "body json is no JSON that can be decoded: "),
    "JSON that is nested too deep": (sent(b"[" * 100_000), "body json is no JSON that can be decoded: "),
    "a form that is none": (
        sent(b"x", {"Content-Type": "multipart/form-data; boundary=B"}), "body cannot be decoded: "
    ),
    "a zip archive": (sent(b"PK\x03\x04..."), "body is a zip archive"),
    "bzip2": (sent(bz2.compress(b"x")), "body is compressed by bzip2"),
    "no bytes in bzip2": (sent(bz2.compress(b"")), "body is compressed by bzip2"),
    "lz4": (sent(b"\x04\x22\x4d\x18d@"), "body is compressed by lz4"),
    "snappy": (sent(b"\xff\x06\x00\x00sNaPpY\x00"), "body is compressed by snappy"),
    "xz in a part of a form": (
        sent(part(b"\xfd7zXZ\x00..."), PARTS), "body form 'to' is compressed by xz"
    ),
    "zlib that becomes too much": (
        sent(zlib.compress(bytes(65 << 20))), "body begins as deflate: the body is too large"
    ),
    "a PDF": (sent(b"%PDF-1.7"), "body is a PDF, whose texts are compressed"),
    "a zip archive in JSON": (
        sent(json.dumps({"a": base64_of(b"PK\x03\x04......")}).encode()),
        "body json: a, base64-decoded is a zip archive",
    ),
    "a bomb": (
        sent(gzip.compress(gzip.compress(bytes(65 << 20)))), "body, unzipped begins as gzip: the body is too large"
    ),
    "what is encoded too often": (
        sent(query="a=%" + "25" * 30 + "40"), "is encoded more than 6 times over"
    ),
    "bytes that were passed on": (tcp(unread="were passed on"), "its bytes were passed on"),
    "a packet of which the beginning was kept": (
        packet(first_bytes=b"x" * 64, size=308), "its bytes are kept in part: the first 64 of 300"
    ),
    "a mail that was too large": (mail(b""), "mail has no content that was kept"),
}  # fmt: skip


@pytest.mark.parametrize(("entry", "why"), UNSEARCHABLE.values(), ids=UNSEARCHABLE)
def test_what_cannot_be_searched_fails_and_is_named(entry: Entry, why: str) -> None:
    error = failure(entry, "nowhere")
    assert str(error).startswith(
        "this could not be searched, so that it may have been sent there:\n"
    )
    assert why in str(error)
    assert str(error).endswith("ask the routes that matter: route.assert_not_sent(...)")
    assert ": it cannot be searched, " in error.headline


def test_the_advice_is_the_one_that_was_given_or_none() -> None:
    for advice in ("", "Ask another."):
        text = str(search([tcp(unread="were passed on")], checked([ANN]), advice=advice))
        assert "ask the routes" not in text
        assert text.endswith(advice or "its bytes were passed on")


def test_what_was_found_comes_before_what_cannot_be_searched() -> None:
    text = str(failure([tcp(unread="were passed on"), sent(path=f"/{ANN}")]))
    found, _, unread = text.partition("and this could not be searched")
    assert ANN in found
    assert "were passed on" in unread


@pytest.mark.parametrize(
    "entry",
    [
        tls(),
        tcp(),
        dns_query(),
        packet(),
        packet(first_bytes=quic_initial()[:64], size=1208, port=443),
        packet(first_bytes=b"x" * 64, size=72),
        sent(),
        sent(b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
        sent(b"x\x9c no zlib", {"Content-Type": "application/octet-stream"}),
        sent(b"{ not json", {"Content-Type": "text/plain"}),
        sent(b"100% sure", {"X": "100%"}),
        sent(json.dumps({"sha": "ab" * 32, "id": "password"}).encode(), JSON),
        mail(b"\r\nhello\r\n"),
    ],
    ids=str,
)
def test_what_has_nothing_of_it_passes(entry: Entry) -> None:
    assert is_clean(entry, "nowhere", b"nowhere", re.compile("nowhere"), re.compile(b"nowhere"))


def test_a_text_is_searched_among_bytes_as_utf_8_and_is_no_other_normal_form() -> None:
    assert places(sent("caf\u00e9".encode()), "caf\u00e9") == ["'caf\u00e9' in body"]
    assert is_clean(sent("cafe\u0301".encode()), "caf\u00e9")
    wire = "caf\u00e9".encode().decode("latin-1")  # as a field in UTF-8 comes
    assert places(sent(headers={"X": wire}), "caf\u00e9") == ["'caf\u00e9' in header X"]


def test_half_of_a_surrogate_pair_is_searched_and_searched_for() -> None:
    assert is_clean(sent(b'{"a": "\\ud800"}', JSON), ANN, ANN.encode(), "\ud801")
    assert places(sent(b'{"a": "\\ud800"}', JSON), "\ud800")
    assert places(sent(b"%ff%fe", query="a=%ff"), b"\xff")
