"""Draw the pictures of docs/evidence.md from a real run: `python scripts/report_pictures.py docs/assets`.

A failing test with two containers is run with `--egress-report`, and Chromium, in its container, draws its pages. It
needs the images clients, websocket and browsers of `make images`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import docker

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.browsers import Chromium, chromium

IMAGES: Final = "pytest-egress-test"
NAMES: Final = {"acme/shop": "clients", "acme/feed": "websocket"}
"""The images by the names that the pictures show."""

SHOP: Final = """
import os, smtplib, sys, time
from email.message import EmailMessage
import httpx, requests

say = lambda *words: print(*words, flush=True)
key = {"Authorization": f"Bearer {os.environ['STRIPE_KEY']}"}
say("order 4711: 2 items, EUR 42.00")
for attempt in range(3):
    try:
        charge = requests.post("https://api.stripe.com/v1/charges", headers=key, data={"amount": 4200})
        break
    except requests.ConnectionError as error:
        print("stripe failed, again:", type(error).__name__, file=sys.stderr, flush=True)
        time.sleep(0.2)
say("charged:", charge.json()["id"])
with httpx.Client() as rates:
    for sku in ("A-100", "B-205", "C-330"):
        say("price", sku, rates.get("https://rates.internal/v2/prices", params={"sku": sku}).json())
with requests.get("https://api.openai.com/v1/responses", stream=True) as words:
    say("model:", sum(1 for line in words.iter_lines() if line), "pieces")
mail = EmailMessage()
mail["From"], mail["To"], mail["Subject"] = "shop@shop.test", "ada@example.test", "Your order 4711"
mail.set_content("Thank you!")
with smtplib.SMTP("smtp.mail.test", 587) as server:
    server.send_message(mail)
time.sleep(1.2)
requests.post("https://api.stripe.com/v1/refunds", headers=key, data={"charge": charge.json()["id"]})
requests.post("https://telemetry.vendor.test/v1/events", json={"event": "order", "order": 4711})
say("done")
"""
FEED: Final = """
import json
from websockets.sync.client import connect

with connect("wss://feed.exchange.test/prices") as feed:
    feed.send(json.dumps({"subscribe": ["EURUSD"]}))
    print("ticks:", sum(1 for tick in feed), flush=True)
"""
TESTS: Final = f"""
import time
import pytest
from pytest_egress import Event, Response, reset, sequence, smtp, websocket

SHOP, FEED = {SHOP!r}, {FEED!r}
KEY = "live_key_0123456789abcdefXYZ"


@pytest.fixture
def world(egress):
    def charge(request):
        time.sleep(0.03)
        return {{"id": "ch_1", "object": "charge", "amount": int(request.form["amount"]), "paid": True}}

    def ticks(ws):
        ws.recv()
        for n in range(8):
            time.sleep(0.04)
            ws.send({{"pair": "EURUSD", "bid": 1.08 + n / 1000}})

    def words():
        for word in "Thank you for your order".split():
            time.sleep(0.02)
            yield Event(data={{"delta": word}})

    egress.intercept_https("api.stripe.com", sequence(reset(), charge), method="POST", path="/v1/charges")
    egress.intercept_https("rates.internal", {{"price": 12.5, "currency": "EUR"}})
    egress.intercept_https("api.openai.com", lambda request: Response(events=words()))
    egress.intercept_tcp("smtp.mail.test:587", smtp())
    egress.intercept_https("feed.exchange.test", websocket(ticks))
    return egress


def test_an_order_is_paid(world):
    world.run("acme/shop", ["python3", "-c", SHOP], env={{"STRIPE_KEY": KEY}})
    world.run("acme/feed", ["python3", "-c", FEED])


def test_prices_are_followed(egress):
    egress.intercept_https("feed.exchange.test", websocket(lambda ws: ws.recv() and ws.send("1.08")))
    egress.run("acme/feed", ["python3", "-c", FEED])


def test_the_rates_are_asked_for(egress):
    egress.intercept_https("rates.internal", Response(503))
    egress.run("acme/shop", ["curl", "-sS", "https://rates.internal/v2/prices"])


def test_telemetry_is_off(egress):
    egress.run("acme/shop", ["curl", "-sS", "https://telemetry.vendor.test/v1/events"])
"""


@contextlib.contextmanager
def named(client: docker.DockerClient) -> Iterator[None]:
    """The images have the names of `NAMES` meanwhile."""
    for name, image in NAMES.items():
        assert client.images.get(f"{IMAGES}/{image}").tag(name)
    try:
        yield
    finally:
        for name in NAMES:
            client.images.remove(name, noprune=True)


def report(folder: Path) -> Path:
    """Run the tests, and return the folder of their report."""
    (folder / "pytest.ini").touch()
    (folder / "test_checkout.py").write_text(TESTS)
    options = ["-q", "-p", "no:asyncio", "--egress-report=report", "--egress-report-all"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_checkout.py"], cwd=folder, check=False
    )
    return folder / "report"


def draw(
    browser: Chromium, page: str, picture: Path, *, dark: bool = False, height: int = 900
) -> None:
    browser.media(prefers_color_scheme="dark" if dark else "light")
    browser.sized(1440, height)
    browser.open(page)
    browser.evaluate("document.fonts.ready")
    browser.screenshot(picture)
    assert browser.errors == [], browser.errors


def main(folder: Path) -> None:
    client = docker.from_env()
    with tempfile.TemporaryDirectory() as temporary:
        with named(client):
            pages = report(Path(temporary))
        (timeline,) = (path.parent.name for path in pages.glob("*order_is_paid*/timeline.html"))
        with chromium(client, f"{IMAGES}/browsers:latest") as browser:
            browser.put(pages)
            draw(browser, f"{timeline}/timeline.html", folder / "report-test.webp")
            link = browser.evaluate("entries.find(isBad).n")
            draw(
                browser,
                f"{timeline}/timeline.html#entry-{link}",
                folder / "report-entry.webp",
                dark=True,
            )
            draw(browser, "index.html", folder / "report-index.webp", height=720)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
