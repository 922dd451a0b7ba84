"""Known values in every part of every kind of entry, in every form and at every cut, are in nothing that is shown."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from pytest_egress.base.account import Accounts
from pytest_egress.ledger.refusals import unrouted_body
from pytest_egress.ledger.timeline import ledger_lines
from pytest_egress.ledger.verdict import judge
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import (
    DnsQuery,
    Entry,
    Exchange,
    KafkaRecord,
    Mail,
    PacketAttempt,
    ProxyCall,
    TcpConnection,
    TlsFailure,
)
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.search.needles import checked
from pytest_egress.traffic.search.verdict import search
from pytest_egress.traffic.websocket import WebSocketMessage

KEY = "Kx7/hQ2v+R9xLm4Zp8Wd3&Ns6"
TENANT = "Tenant4711x9q"
HOST = f"{TENANT.lower()}.api.test"
FORMS = {
    "plain": KEY,
    "percent-encoded": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of more": base64.b64encode(f"a{KEY}zz".encode()).decode(),
    "hex": KEY.encode().hex(),
    "JSON": json.dumps(KEY),
}
ABOUT: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": "unrouted", "port": 443}


def pieces(text: str) -> set[str]:
    return {text[at : at + 7] for at in range(len(text) - 6)}


SECRET = {piece for text in (TENANT, TENANT.lower()) for piece in pieces(text)} | {
    piece for text in FORMS.values() for piece in pieces(text.strip('"')[3:-4])
}


def exchange_with(form: str, pad: int, **fields: Any) -> Exchange:
    in_url = quote(form, safe="%")
    request = Request(
        method="POST",
        scheme="https",
        host=HOST,
        port=443,
        path=f"/{'p' * pad}{in_url}/x",
        query_string=f"a={'q' * pad}&k={in_url}&b=1",
        headers=Headers(
            [
                ("x-a", f"{'v' * pad}{form}{'w' * pad}"),
                ("authorization", f"Basic {base64.b64encode(f'joe:{KEY}'.encode()).decode()}"),
                ("cookie", f"s={form}; t=1"),
                (f"x-{TENANT}", "1"),
            ]
        ),
        raw_content=f"{'b' * pad}{json.dumps({'a': form, 'b': [form]})}".encode(),
        **fields,
    )
    response = Response(200, json={"a": form})
    entry = Exchange(host=HOST, request=request, response=response, **ABOUT)
    for content in (f"{'m' * pad}{form}{'n' * pad}", b"\xff" * pad + form.encode()):
        entry.messages.append(WebSocketMessage(content=content, from_client=True, at=2.0))
    return entry


def entries_with(form: str, pad: int) -> list[Entry]:
    begun, address = ("f" * pad + form).encode()[:64], "192.0.2.7"
    in_url = quote(form, safe="%")
    return [
        TcpConnection(host="db.test", address=address, first_bytes=begun, **ABOUT),
        PacketAttempt(
            host="db.test", protocol="UDP", address=address, size=70, first_bytes=begun, **ABOUT
        ),
        Mail(
            host="m.test",
            address=address,
            sender=f"a@{'d' * pad}{form}",
            recipients=(f"{form}@x",),
            content=f"Subject: {'s' * pad}{form}\r\n\r\n{form}".encode(),
            **ABOUT,
        ),
        KafkaRecord(
            host="k.test",
            address=address,
            topic="t" * pad + form,
            key=("k" * pad + form).encode(),
            value=("v" * pad + form).encode(),
            **ABOUT,
        ),
        ProxyCall(
            host="p.test",
            address=address,
            method="GET",
            target=f"http://joe:{in_url}@{TENANT}.test/{'p' * pad}{in_url}?q={in_url}",
            headers=Headers([]),
            user=form,
            **ABOUT,
        ),
        DnsQuery(host=HOST, type="TXT", answer=("x" * pad + form,), **ABOUT),
        TlsFailure(host=HOST, address=address, note=f"bad name {HOST}. More", **ABOUT),
    ]


@pytest.mark.parametrize("pad", [0, 13, 29, 37, 44, 51, 58, 66, 90, 180])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_nothing_of_a_known_value_is_shown_of_any_entry(form: str, pad: int) -> None:
    accounts = Accounts()
    redactor = accounts.redactor = Redactor().knowing({"SHOP_KEY": KEY, "TENANT_TOKEN": TENANT})
    account = accounts.open()
    exchange = exchange_with(form, pad, _account=account)
    shown = [unrouted_body(exchange), repr(exchange.request)]
    for entry in (exchange, *entries_with(form, pad)):
        entry._account = account
        error = judge(Window(account=account, entries=[entry]), [])
        assert error is not None
        found = search([entry], checked([form, KEY, "nowhere"]))
        timeline = redactor.known("\n".join(ledger_lines([entry], in_full=True)))
        shown += [str(error), error.headline, str(entry), timeline]
        shown += [str(found), found.headline] if found else []
    assert not [(piece, text) for text in shown for piece in SECRET if piece in text]
