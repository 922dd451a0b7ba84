"""A service with PostgreSQL and Redis, each in a container of its own, at the names that it has in production.

With the official images: `start("postgres:17", env={"POSTGRES_PASSWORD": "x"}, wait=port_open(5432))`, and `"redis:8"`.
"""

import pytest

from pytest_egress import Container, Egress, forward, port_open

POSTGRES = """sh -c '
    export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
    initdb --pgdata /tmp/data --auth trust --no-sync
    exec postgres -D /tmp/data -k /tmp
'"""
ORDER = """
import psycopg, redis

with psycopg.connect("postgresql://postgres@db.internal/postgres") as db:
    db.execute("CREATE TABLE IF NOT EXISTS orders (id serial, sku text)")
    number, = db.execute("INSERT INTO orders (sku) VALUES ('chair') RETURNING id").fetchone()
redis.Redis("cache.internal").set(f"order:{number}", "chair")
print("order", number)
"""


@pytest.fixture(scope="module")
def db(module_egress: Egress, services: str) -> Container:
    db = module_egress.start(services, POSTGRES, user="postgres", wait=port_open(5432))
    module_egress.intercept_tcp("db.internal:5432", forward(db, 5432))
    return db


@pytest.fixture(scope="module")
def cache(module_egress: Egress, services: str) -> Container:
    cache = module_egress.start(services, "redis-server --save ''", wait=port_open(6379))
    module_egress.intercept_tcp("cache.internal:6379", forward(cache, 6379))
    return cache


@pytest.mark.usefixtures("db")
def test_an_order_is_a_row_and_a_key(egress: Egress, cache: Container, services: str) -> None:
    result = egress.run(services, ["python3", "-c", ORDER])

    number = result.stdout.split()[-1]
    assert cache.exec(f"redis-cli GET order:{number}").stdout == "chair\n"
    egress.assert_only("db.internal:5432", "cache.internal:6379")


def test_an_order_is_kept_while_the_cache_is_down(
    egress: Egress, db: Container, services: str
) -> None:
    egress.block("cache.internal:6379")

    result = egress.run(services, ["python3", "-c", ORDER], check=False)

    assert "redis.exceptions.ConnectionError" in result.stderr
    rows = db.exec("psql --host localhost --username postgres --csv --command 'TABLE orders'")
    assert rows.stdout.endswith(",chair\n")
