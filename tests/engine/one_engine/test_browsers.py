"""Chromium and Firefox in a container, headless and told of no CA: a policy leads them to it."""

from __future__ import annotations

import pytest

from pytest_egress import Egress, Response

pytestmark = pytest.mark.runtimes

HOST = "shop.example.test"
PAGE = Response(
    text="<!doctype html><title>Shop</title><h1>from the test</h1>",
    headers={"Content-Type": "text/html"},
)
CHROMIUM = "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom"
FIREFOX = "export HOME=$(mktemp -d); timeout 100 firefox-esr --headless --screenshot /tmp/page.png"


# What else a browser sends at its start, to its vendor, is blocked.
@pytest.mark.egress(unrouted="block")
def test_chromium_shows_a_page_of_the_test(egress: Egress, browsers_image: str) -> None:
    page = egress.intercept_https(HOST, PAGE)  # its /favicon.ico too
    result = egress.run(
        browsers_image, ["sh", "-c", f"{CHROMIUM} https://{HOST}/cart"], timeout=120
    )
    assert "<h1>from the test</h1>" in result.stdout
    page.assert_any_call(path="/cart")


@pytest.mark.egress(unrouted="block")
def test_firefox_shows_a_page_of_the_test(egress: Egress, browsers_image: str) -> None:
    page = egress.intercept_https(HOST, PAGE)
    script = f"{FIREFOX} https://{HOST}/cart && test -s /tmp/page.png"
    egress.run(browsers_image, ["sh", "-c", script], timeout=120)
    page.assert_any_call(path="/cart")
