"""The images of the examples; `make images` builds them."""

import pytest

CLIENTS = "pytest-egress-test/clients:latest"
SHOP = "pytest-egress-test/shop:latest"
SDKS = "pytest-egress-test/sdks:latest"
SERVICES = "pytest-egress-test/services:latest"
RUNTIMES = "pytest-egress-test/runtimes:latest"
BROWSERS = "pytest-egress-test/browsers:latest"
GRPC = "pytest-egress-test/grpc:latest"
KAFKA = "pytest-egress-test/kafka:latest"
QUEUES = "pytest-egress-test/queues:latest"
WEBSOCKET = "pytest-egress-test/websocket:latest"


@pytest.fixture(scope="session")
def clients() -> str:
    """An image with curl, Python and Node.js, unchanged."""
    return CLIENTS


@pytest.fixture(scope="session")
def shop_image() -> str:
    """A small service that charges at api.stripe.com and tells hooks.slack.com."""
    return SHOP


@pytest.fixture(scope="session")
def sdks() -> str:
    """An image with SDKs of PyPI and npm, installed as their users install them."""
    return SDKS


@pytest.fixture(scope="session")
def services() -> str:
    """An image with the servers of PostgreSQL and Redis, and Python's clients of both."""
    return SERVICES


@pytest.fixture(scope="session")
def kafka_clients() -> str:
    """An image with clients of Kafka: kafka-python, aiokafka and confluent-kafka."""
    return KAFKA


@pytest.fixture(scope="session")
def queues() -> str:
    """An image with clients of queues: pika, Celery and Google Pub/Sub's."""
    return QUEUES


@pytest.fixture(scope="session")
def runtimes() -> str:
    """An image with pip and npm."""
    return RUNTIMES


@pytest.fixture(scope="session")
def grpc_clients() -> str:
    """An image with clients of gRPC, and OpenTelemetry's exporter by it."""
    return GRPC


@pytest.fixture(scope="session")
def browsers() -> str:
    """An image with Chromium."""
    return BROWSERS


@pytest.fixture(scope="session")
def websocket_clients() -> str:
    """An image with the WebSocket clients of Python and Node.js."""
    return WEBSOCKET
