"""A service whose Redis is fakeredis, in the test process: the test sees what the service has stored."""

from collections.abc import Iterator

import pytest
from fakeredis import FakeRedis, TcpFakeServer

from pytest_egress import Egress

CART = """
import redis

cache = redis.Redis("cache.internal", decode_responses=True)
with cache.pipeline() as together:
    together.hset("cart:7", mapping={"chair": 2, "lamp": 1}).expire("cart:7", 3600).execute()
print(cache.hgetall("cart:7"))
"""


@pytest.fixture
def redis(egress: Egress) -> Iterator[FakeRedis]:
    """A Redis at the name that it has in production; it need not listen anywhere."""
    server = TcpFakeServer(("127.0.0.1", 0), bind_and_activate=False)
    egress.intercept_tcp("cache.internal:6379", server)
    yield FakeRedis(server=server.fake_server, decode_responses=True)
    server.server_close()


def test_a_cart_is_kept_for_an_hour(egress: Egress, redis: FakeRedis, services: str) -> None:
    result = egress.run(services, ["python3", "-c", CART])

    assert result.stdout == "{'chair': '2', 'lamp': '1'}\n"
    assert redis.hgetall("cart:7") == {"chair": "2", "lamp": "1"}
    assert 3500 < redis.ttl("cart:7") <= 3600


def test_two_workers_share_a_queue(egress: Egress, redis: FakeRedis, services: str) -> None:
    worker = egress.start(services, "redis-cli -h cache.internal BLPOP jobs 30")

    egress.run(services, "redis-cli -h cache.internal RPUSH jobs send-invoice")

    assert worker.wait(timeout=30).exit_code == 0
    assert "send-invoice" in worker.logs()
    assert redis.llen("jobs") == 0
