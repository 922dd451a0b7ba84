"""`pytest-egress record`: the text of its test, and what it says. Its runs are in `tests/engine`."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from pytest_egress.commands.order import Order
from pytest_egress.commands.record import recorded_test, secrets_lines, write_test
from pytest_egress.commands.trial import Trial
from pytest_egress.traffic.entries import Entry
from tests.support.entries import dns_query, http_exchange, tcp


def text_of(*entries: Entry, exit_code: int = 0) -> str:
    order = Order(image="shop")
    text = recorded_test(order, Trial(entries=entries, exit_code=exit_code), order.redactor)
    ast.parse(text)
    return text


def recorded(*args: str, **fields: Any) -> Entry:
    return http_exchange(*args, outcome="routed", **fields)


def test_a_route_for_each_host_that_was_recorded_and_a_block_of_what_was_refused() -> None:
    upgrade = http_exchange(path="/live", outcome="blocked")
    assert text_of(dns_query(), recorded(), recorded("POST"), tcp(outcome="blocked"), upgrade) == (
        '"""What shop asks, answered as it was when `pytest-egress record` ran it."""\n'
        """
from pytest_egress import cassette


def test_shop(egress):
    egress.intercept_https("api.test", cassette())
    egress.block("api.test:5432")
    # egress.intercept_https("api.test", method="GET", path="/live")

    egress.run("shop")

    egress.assert_only("api.test:443", "api.test:5432")
"""
    )


def test_the_exit_code_is_that_of_the_recorded_run() -> None:
    text = text_of(exit_code=3)
    assert '    result = egress.run("shop", check=False)\n' in text
    assert "    assert result.exit_code == 3\n" in text
    assert "    egress.assert_no_egress()\n" in text


def test_each_secret_is_told_of_with_how_often_it_was_taken_out() -> None:
    assert [*secrets_lines("a <API_KEY> <API_KEY#2> <API_KEY> < no >")] == [
        "  without the secret API_KEY, 2 times",
        "  without the secret API_KEY#2, 1 time",
    ]


def test_a_test_that_cannot_be_written_leaves_no_cassette(tmp_path: Path) -> None:
    there, tape = tmp_path / "test_shop.py", tmp_path / "tape.yaml"
    there.write_text("mine")
    tape.write_text("recorded")
    with pytest.raises(FileExistsError):
        write_test(there, "text", beside=tape)
    assert there.read_text() == "mine"
    assert not tape.exists()
