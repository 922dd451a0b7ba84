"""A secret is found wherever it leaves, and is told by its place and form, and never by its value."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
import zlib
from dataclasses import replace
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from pytest_egress.traffic.entries import Entry, Exchange, Mail, ProxyCall
from pytest_egress.traffic.grpc import MAX_MESSAGE_BYTES, deflate, frame
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request, TlsInfo
from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.leaks import leaks, leaks_headline, leaks_text
from pytest_egress.traffic.search.passing import Passing
from pytest_egress.traffic.search.secrets import Secret, secret
from pytest_egress.traffic.websocket import WebSocketMessage
from tests.support.entries import about, datagrams, dns_query, packet, tcp, tls
from tests.support.secrets import forgotten  # noqa: F401

pytestmark = pytest.mark.usefixtures("forgotten")

KEY = "sk/test+42?Zx9&q%"
TLS = TlsInfo(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", alpn=None)


def watched(value: str = KEY, *only: str, name: str = "API_KEY", cleartext: bool = False) -> Secret:
    made = secret(value, only, cleartext=cleartext)
    assert isinstance(made, Secret)
    made.name = name
    return made


def sent(
    content: bytes = b"",
    headers: dict[str, str] | None = None,
    path: str = "/",
    query: str = "",
    *,
    host: str = "evil.test",
    scheme: str = "https",
    **fields: Any,
) -> Exchange:
    request = Request(
        method="POST",
        scheme=scheme,
        host=host,
        port=443,
        path=path,
        query_string=query,
        headers=Headers(headers or {}),
        raw_content=content,
        **fields,
    )
    return Exchange(**about(outcome="routed", port=443) | {"host": host}, request=request)


def found(entry: Entry, *secrets: Secret) -> list[tuple[str, str]]:
    return [(leak.place, leak.how) for leak in leaks([entry], secrets or (watched(),))]


def base64_of(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return base64.b64encode(data).decode()


def zipped(data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.txt", data)
    return made.getvalue()


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("entry", "place", "how"),
    [
        (sent(headers={"X-Debug": KEY}), "header X-Debug", ""),
        (sent(headers={"X-Debug": base64_of(KEY)}), "header X-Debug", "in base64"),
        (sent(headers={"Authorization": f"Basic {base64_of(f'joe:{KEY}')}"}), "header Authorization", "in base64"),
        (sent(headers={"X-Debug": f"a={KEY.encode().hex().upper()}"}), "header X-Debug", "in hex"),
        (sent(query=f"k={quote(KEY, safe='')}"), "url query 'k'", ""),
        (sent(path=f"/a/{quote(KEY, safe='')}/b"), "url path", "percent-encoded"),
        (sent(f"k={quote(KEY, safe='')}".encode(), FORM), "body form 'k'", ""),
        (sent(json.dumps({"a": [{"k": KEY}]}).encode(), JSON), "body json: a[0].k", ""),
        (sent(b"\xff\x00" + KEY.encode()), "body", ""),
        (sent(b"\xff\x00" + base64_of(f"xy{KEY}").encode()), "body", "in base64"),
        (sent(gzip.compress(KEY.encode()), {"Content-Encoding": "gzip"}), "body", ""),
        (sent(gzip.compress(b"a" + KEY.encode())), "body, unzipped", ""),
        (sent(zlib.compress(KEY.encode()), {"Content-Encoding": "deflate"}), "body", ""),
        (sent(zipped(KEY.encode())), "body", ""),
        (sent(trailers=Headers({"X-Sum": KEY})), "trailer X-Sum", ""),
        (tcp(first_bytes=b"AUTH " + KEY.encode()), "its bytes", ""),
        (packet(first_bytes=KEY.encode()), "its bytes", ""),
        (datagrams(b"", b"key=" + KEY.encode()), "datagram 2", ""),
    ],
)  # fmt: skip
def test_a_secret_is_found_in_each_place_and_form(entry: Entry, place: str, how: str) -> None:
    assert (place, how) in found(entry)


@pytest.mark.parametrize(
    "entry",
    [
        dns_query(host="sk-live-4242.evil.test"),
        tls(sni="SK-LIVE-4242.evil.test", reason="rejected"),
        dns_query(host=f"{b'sk-live-4242'.hex()[:10]}.{b'sk-live-4242'.hex()[10:]}.evil.test"),
    ],
)
def test_a_secret_in_a_name_is_a_leak_wherever_it_may_leave_for(entry: Entry) -> None:
    [leak, *_] = leaks([entry], [watched("sk-live-4242", "*", cleartext=True)])
    assert leak.why == "names are asked for in the clear, and of everybody"


def test_a_secret_may_leave_for_its_own_address_in_tls_alone() -> None:
    own = watched(KEY, "api.test", "db.test:5432")
    assert not found(sent(headers={"X-Key": KEY}, host="api.test"), own)
    assert found(sent(headers={"X-Key": KEY}, host="api.test", scheme="http"), own)
    assert found(sent(query=f"k={quote(KEY, safe='')}", host="api.test"), own)
    assert found(sent(headers={"X-Key": KEY}, host="db.test"), own)
    clear = tcp(host="db.test", first_bytes=KEY.encode())
    assert found(clear, own)
    assert not found(clear, watched(KEY, "db.test:5432", cleartext=True))
    assert not found(tcp(host="db.test", first_bytes=KEY.encode(), tls=TLS), own)


def test_a_secret_within_a_longer_one_is_found() -> None:
    longer, shorter = watched(f"{KEY}-more", "evil.test"), watched(KEY)
    assert found(sent(f"{KEY}-more".encode()), longer, shorter) == [("body", "")]


def test_a_proxy_is_asked_in_the_clear() -> None:
    call = ProxyCall(
        **about(host="proxy.test", port=3128),
        address="198.18.0.1",
        method="CONNECT",
        target="api.test:443",
        headers=Headers({"Proxy-Authorization": f"Basic {base64_of(f'joe:{KEY}')}"}),
    )
    own = watched(KEY, "proxy.test")
    assert ("header Proxy-Authorization", "in base64") in found(call, own)
    assert not found(call, replace_cleartext(own))


def replace_cleartext(made: Secret) -> Secret:
    made.cleartext = True
    return made


def test_an_attachment_of_a_mail_is_decoded() -> None:
    message = EmailMessage()
    message["Subject"] = "order"
    message.set_content("see the file")
    message.add_attachment(b"x" * 100 + KEY.encode() + b"y" * 100, "application", "octet-stream")
    mail = Mail(
        **about(outcome="routed", port=587),
        address="198.18.0.1",
        sender="a@x.test",
        recipients=("b@x.test",),
        content=message.as_bytes().replace(b"\n", b"\r\n"),
    )
    assert ("mail part 2", "") in found(mail)


def test_the_text_has_the_place_and_the_form_and_neither_the_value_nor_its_length() -> None:
    own = watched(KEY, "api.stripe.test")
    request = sent(
        json.dumps({KEY: {"k": KEY}}).encode(),
        {**JSON, "X-Debug": base64_of(KEY)},
        host="hooks.slack.test",
    )
    found = leaks([request], [own])
    text = leaks_text(found)
    assert "carries API_KEY in its header X-Debug, in base64" in leaks_headline(found)
    assert "hooks.slack.test:443 is none of its only=: api.stripe.test" in text
    assert f"  API_KEY, by secret(...) at {own.place}" in text
    assert "add it to its only=: 'hooks.slack.test:443'" in text
    assert str(len(KEY)) not in text.replace(own.place, "")


def test_what_was_sent_is_told_without_its_size() -> None:
    entries = [packet(first_bytes=KEY.encode(), size=25), tcp(first_bytes=KEY.encode())]
    first, second = leaks(entries, [watched()])
    assert leaks_headline([first]) == "UDP api.test:123 (198.18.0.1) carries API_KEY in its bytes"
    assert leaks_headline([second]) == "TCP api.test:5432 (198.18.0.1) carries API_KEY in its bytes"


def test_a_bomb_is_decoded_as_far_as_there_is_room() -> None:
    bomb = gzip.compress(bytes(1 << 25))
    entries = [sent(bomb, {"Content-Encoding": "gzip"}) for _ in range(3)]
    entries.append(sent(headers={"X-Debug": KEY}))
    assert [leak.place for leak in leaks(entries, [watched()])] == ["header X-Debug"]


def test_a_body_of_many_values_is_searched_as_it_is() -> None:
    values = json.dumps([*range(200_000), KEY]).replace(" ", "").encode()
    assert found(sent(values, JSON)) == [("body", "")]


def test_of_two_secrets_with_one_value_the_last_counts() -> None:
    entry = sent(headers={"X-Key": KEY}, host="api.test")
    assert not found(entry, watched(KEY), watched(KEY, "api.test"))
    assert found(entry, watched(KEY, "api.test"), watched(KEY))


def test_what_a_request_had_sent_when_it_broke_off_is_searched() -> None:
    class Begun:
        streamed = passing = None
        is_whole = is_cut = False
        so_far = KEY.encode()

    entry = sent()
    entry.request = replace(entry.request, _body=Begun())
    assert found(entry) == [("body", "")]


CALL = {"Content-Type": "application/grpc"}


@pytest.mark.parametrize(
    ("content", "headers", "place"),
    [
        (frame(KEY.encode()), {}, "message 0"),
        (
            frame(b"one") + frame(f"{KEY} more".encode())[:-1],
            {},
            "body",
        ),  # not whole
        (
            frame(deflate(KEY.encode(), "gzip"), compressed=True),
            {"grpc-encoding": "GZIP"},
            "message 0",
        ),
        (frame(b"one") + b"\7" + KEY.encode(), {}, "body"),  # which is no message
        (frame(bytes(MAX_MESSAGE_BYTES) + KEY.encode()), {}, "body"),
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_call_that_was_forwarded_or_replayed_is_searched_as_far_as_it_has_come(
    content: bytes, headers: dict[str, str], place: str, is_whole: bool
) -> None:
    entry = sent(content, CALL | headers)
    if not is_whole:  # as of a call that its server has ended before its client
        body = SimpleNamespace(
            so_far=content, is_whole=False, is_cut=True, streamed=None, passing=None
        )
        entry.request = replace(entry.request, _body=body)
    assert found(entry) == [(place, "")]


def test_a_message_that_has_a_secret_is_told_once() -> None:
    entry = sent(frame(KEY.encode()), CALL)
    passing = Passing.of_grpc(KnownValues((KEY, each) for each in watched().written), "")
    passing.feed(frame(KEY.encode()))
    body = SimpleNamespace(so_far=b"", is_whole=False, is_cut=False, streamed=None, passing=passing)
    entry.request = replace(entry.request, _body=body)
    assert found(entry) == [("body", "")]
    entry.grpc.requests.append(KEY.encode())
    assert found(entry) == [("message 0", "")]


def test_a_secret_in_a_ping_or_in_a_message_that_never_ends_is_told_and_one_in_a_message_once() -> (
    None
):
    passing = Passing(KnownValues((KEY, each) for each in watched().written))
    entry = sent()
    entry.websocket = SimpleNamespace(unkept=0, close_reason="")
    entry.request = replace(entry.request, _body=SimpleNamespace(
        so_far=b"", is_whole=True, is_cut=False, streamed=None, content=b"", passing=passing,
        trailers=Headers(),
    ))  # fmt: skip
    passing.feed(KEY.encode())
    assert found(entry) == [("frames of no message", "")]
    entry.messages.append(WebSocketMessage(content=KEY, from_client=True, at=1.0))
    assert found(entry) == [("message 0", "")]


PEM = "-----BEGIN KEY-----\nabcdefghijk\nlmnopqrst\n-----END KEY-----\n"


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("token-of-a-file\n", b"token-of-a-file"),
        (" token-of-a-file", json.dumps("token-of-a-file").encode()),
        (PEM, PEM.rstrip().replace("\n", "\r\n").encode()),
        (PEM.replace("\n", "\r\n"), PEM.rstrip().encode()),
        (PEM, base64_of(PEM.replace("\n", "\r\n")).encode()),
        (PEM, json.dumps(PEM.replace("\n", "\r\n")).encode()),
    ],
)
def test_blanks_at_the_ends_of_a_secret_and_ends_of_lines_hide_nothing(
    value: str, content: bytes
) -> None:
    assert found(sent(content), watched(value))
