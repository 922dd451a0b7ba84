"""A service in its own image: a static answer, a handler with a memory, and a server that is shared by a module."""

import httpx
import pytest

from pytest_egress import Container, Egress, Request, Response, http_ok


@pytest.mark.intercept_https("api.stripe.com", {"id": "ch_1"})
def test_checkout(egress: Egress, shop_image: str) -> None:
    result = egress.run(shop_image, ["python", "-m", "shop.charge"])

    assert result.exit_code == 0
    call = egress["api.stripe.com"].assert_called_once()
    assert call.request.json()["amount"] == 4200


def test_retries_once_on_503(egress: Egress, shop_image: str) -> None:
    @egress.intercept_https("api.stripe.com", method="POST", path="/v1/charges")
    def charges(request: Request) -> Response | dict[str, str]:
        return Response(503) if charges.call_count == 0 else {"id": "ch_1"}

    egress.run(shop_image, ["python", "-m", "shop.charge"])

    assert charges.call_count == 2


@pytest.fixture(scope="module")
def shop(module_egress: Egress, shop_image: str) -> Container:
    return module_egress.start(shop_image, wait=http_ok(8080, "/health"))


def test_an_order_is_told_to_the_chat(egress: Egress, shop: Container) -> None:
    hook = egress.intercept_https("hooks.slack.com")

    httpx.post(shop.url(8080, "/orders"), json={"sku": 1})

    assert hook.wait_for_call(timeout=5).request.json()["text"] == "order 1"


def test_an_order_is_taken_while_the_chat_is_down(egress: Egress, shop: Container) -> None:
    egress.intercept_https("hooks.slack.com", 503)

    assert httpx.post(shop.url(8080, "/orders"), json={"sku": 2}).status_code == 201
