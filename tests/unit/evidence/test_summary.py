"""The summary below a job: what it says, that no text in it is markup, and its limit."""

from __future__ import annotations

from typing import Any

from pytest_egress.evidence.summary import MAX_BYTES, cell, fenced, summary


def row(**fields: Any) -> dict[str, Any]:
    common = {
        "id": "test_shop.py::test_charge",
        "outcome": "failed",
        "headline": "POST https://api.test/: no route claims it",
        "images": ["shop:latest"],
        "attempts": 3,
        "hosts": {"https api.test:443": {}},
        "paste": ['egress.intercept_https("api.test")'],
        "unrouted": [["POST https://api.test/", "shop", 2, "no route claims it", 1]],
        "failing": 1,
    }
    return common | fields


def test_nothing_is_said_where_all_have_passed() -> None:
    assert summary([row(outcome="passed")]) == ""
    assert summary([]) == ""


def test_each_attempt_is_a_row_and_its_test_is_named_once() -> None:
    two = [
        ["POST https://api.test/", "shop", 2, "no route claims it", 1],
        ["DNS x.test A", "shop", 4, "no", 3],
    ]
    text = summary([row(unrouted=two, failing=4), row(outcome="passed", id="fine")])
    assert text.count("test_shop.py") == 1
    assert text.startswith("### Egress: 1 of 2 tests failed\n")
    assert "| <code>POST https&#58;//api.test/</code> | no route claims it |" in text
    assert "\n|  | shop | <code>DNS x.test A</code> (3 times) | no |\n" in text
    assert "more: see" not in text
    assert '```python\negress.intercept_https("api.test")\n```' in text


def test_a_test_that_failed_by_itself_has_its_headline() -> None:
    text = summary([row(unrouted=[], failing=0, paste=[], headline="assert 1 == 2")])
    assert "| shop:latest |  | assert 1 == 2 |" in text
    assert "To declare" not in text


def test_no_text_is_markup() -> None:
    hostile = (
        "a|b `c` <img src=x> [l](http://x.test) @all #12 **b** _i_ ~s~ www.x.test :tada: $x$ &amp;"
    )
    hostile += "\n\n# h\u202e\x1b[2J"
    shown = cell(hostile, 999)
    assert not {*"|`<>[]@*~$"} & {*shown.replace("&#", "")}
    assert "://" not in shown
    assert "www." not in shown
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    assert "snake_case" in cell("snake_case")
    text = summary(
        [row(id=hostile, unrouted=[[hostile, hostile, 1, hostile, 1]], headline=hostile)]
    )
    assert "<img" not in text
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 3


def test_a_fence_is_longer_than_any_in_it() -> None:
    assert fenced(["a ```` b", "c\n```"])[0] == "`````python"
    assert fenced(["x\u202e"])[1] == r"x\u202e"


def test_it_stays_below_its_limit_and_its_fence_is_closed() -> None:
    attempts = [["<" * 500, "|" * 500, n, "`" * 500, 1] for n in range(60)]
    lines = [f'egress.block("{"`" * 300}{n}")' for n in range(200)]
    rows = [
        row(id=f"{'*' * 500}{n}", unrouted=attempts, failing=999, paste=lines) for n in range(99)
    ]
    text = summary(rows, {f"https {'<' * 300}{n}.test" for n in range(500)}, accepting="pytest")
    assert len(text.encode()) <= MAX_BYTES
    assert "more: see the report" in text
    fences = [line for line in text.splitlines() if line.startswith("```")]
    assert len(fences) == 2
    assert text.rstrip().endswith("index.html.</sub>")


def test_new_destinations_are_listed_with_the_command_that_accepts_them() -> None:
    text = summary(
        [row()], {"https b.test:443", "tcp a.test:1"}, accepting="pytest --egress-lock=update"
    )
    assert (
        "**2 new destinations**: <code>https b.test:443</code>, <code>tcp a.test:1</code>." in text
    )
    assert "<code>pytest --egress-lock=update</code>" in text
