"""A page in a real Chromium: its script calls an API, and both are in the test."""

import pytest

from pytest_egress import Egress, Request, Response

PAGE = """<!doctype html>
<title>Shop</title>
<p id="status">ordering</p>
<script>
    fetch("https://api.shop.test/orders", {method: "POST", body: JSON.stringify({sku: 1})})
        .then(answer => answer.json())
        .then(order => document.getElementById("status").textContent = "order " + order.id)
</script>
"""
CHROMIUM = "chromium --headless --no-sandbox --disable-dev-shm-usage --virtual-time-budget=20000 --dump-dom"


# What a browser sends to its vendor at its start is refused, and fails nothing.
@pytest.mark.egress(unrouted="block")
def test_a_page_orders(egress: Egress, browsers: str) -> None:
    page = Response(text=PAGE, headers={"Content-Type": "text/html"})
    egress.intercept_https("shop.test", page)

    @egress.intercept_https("api.shop.test", method="POST", path="/orders")
    def orders(request: Request) -> Response:
        origin = {"Access-Control-Allow-Origin": request.headers["Origin"]}
        return Response(201, json={"id": 7}, headers=origin)

    result = egress.run(browsers, f"{CHROMIUM} https://shop.test/")

    assert '<p id="status">order 7</p>' in result.stdout
    assert orders.assert_called_once().request.json() == {"sku": 1}
