"""The images of the examples; `make images` builds them."""

import pytest

CLIENTS = "pytest-egress-test/clients:latest"
SHOP = "pytest-egress-test/shop:latest"


@pytest.fixture(scope="session")
def clients() -> str:
    """An image with curl, Python and Node.js, unchanged."""
    return CLIENTS


@pytest.fixture(scope="session")
def shop_image() -> str:
    """A small service that charges at api.stripe.com and tells hooks.slack.com."""
    return SHOP
