"""The report of an audit."""

from __future__ import annotations

from pathlib import Path

from pytest_egress.commands.order import Order
from pytest_egress.commands.pages import write_report
from pytest_egress.commands.trial import Trial
from pytest_egress.ledger.windows import Window
from tests.support.entries import http_exchange


def test_a_page_for_each_run_in_place_of_an_earlier_report(tmp_path: Path) -> None:
    entry = http_exchange(outcome="blocked")
    run = Trial(entries=(entry,), exit_code=0, window=Window(entries=[entry]))
    order = Order(image="shop:latest")
    write_report(tmp_path, order, {"expired": run}, order.redactor)
    index = write_report(tmp_path, order, {"as it is": run, "expired": run}, order.redactor)
    assert index == tmp_path / "index.html"
    assert "shop:latest: expired" in index.read_text()
    pages = [*tmp_path.glob("*/timeline.html")]
    assert len(pages) == 2
    assert all("https://api.test" in page.read_text() for page in pages)


def test_a_run_without_a_window_has_no_page(tmp_path: Path) -> None:
    order = Order(image="shop")
    write_report(tmp_path, order, {"as it is": Trial(entries=())}, order.redactor)
    assert not [*tmp_path.glob("*/timeline.html")]
