"""Secrets that are known by their form."""

from __future__ import annotations

import pytest

from pytest_egress.traffic.redaction.redactor import BY_NAMES
from pytest_egress.traffic.redaction.shapes import without_shapes

SLACK = (
    "/services/T024BE7LD/B0LD0F9AA/" + "xWnWqZ3dV8gQ2mJ7uYt5RkPs"
)  # in two, for what searches sources
SHOWN = {
    f"https://hooks.slack.com{SLACK}": "https://hooks.slack.com/services/<>",
    "/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/sendMessage": "/bot<>/sendMessage",
    "/file/bot123:abc/documents/1": "/file/bot<>/documents/1",
    "/bot110201543%3AAAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw?x=1": "/bot<>?x=1",
    "/api/webhooks/123456789012345678/" + "a-B_" * 17: "/api/webhooks/<>",
    "key sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc.": "key <>.",
    "ghp_" + "a1B2" * 9: "<>",
    "xoxb-" + "123456789012-123456789012-abc": "<>",
    "> Authorization: Basic am9lOmh1bnRlcjIyaHVudGVy\n>": "> Authorization: Basic <>\n>",
    "at tcp://joe:hunter22hunter@host:2375": "at tcp://joe:<>@host:2375",
    "redis://:hunter22@cache/0, amqp://a:b@c": "redis://:<>@cache/0, amqp://a:<>@c",
    "got bearer 4f9aB7c2D8e1a4f9aB7c2D8": "got bearer <>",
    "a eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U b": "a <> b",
}


@pytest.mark.parametrize(("text", "shown"), SHOWN.items())
def test_a_secret_is_known_by_its_form(text: str, shown: str) -> None:
    assert without_shapes(text, lambda secret: "<>") == shown
    assert without_shapes(f"{'-' * 300} {text}", lambda secret: "<>") == f"{'-' * 300} {shown}"


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_masked_is_not_masked_again(text: str) -> None:
    once = BY_NAMES.hidden(text)
    assert BY_NAMES.hidden(once) == once != text


@pytest.mark.parametrize(
    "text",
    [
        "/services/Tools/Brushes/A",
        "http://db.test:5432/a@b",
        "https://joe@api.test/x:y@z",
        "/services/TOOLS/BRUSHES/short",
        "/bots/123:abc/x",
        "/bot/123",
        "/bot2024:final.html/x.txt",
        "/webhooks/12/ab",
        "task_live_4eC39HqLyjWDarjtT1zdp7dc",
        "ask-projector-a-question-about-something",
        "eyJhbGciOiJIUzI1NiJ9",
        "Basic authentication of the bearer of a token failed",
        "a" * 5000,
    ],
)
def test_what_only_looks_like_it_is_shown(text: str) -> None:
    assert BY_NAMES.hidden(text) == text
