"""What a service does while what it depends on fails: retries, time-outs, pools, a circuit breaker, a late database."""

import pytest

from pytest_egress import (
    Container,
    Egress,
    Response,
    delayed,
    forward,
    log_line,
    port_open,
    refuse,
    reset,
    sequence,
    silence,
)

BACKOFF = """
import sys, time, urllib.request

request = urllib.request.Request("https://api.stripe.com/v1/charges", b"{}", {"Idempotency-Key": "order-7"})
for pause in (0.2, 0.8, None):
    try:
        sys.exit(print(urllib.request.urlopen(request, timeout=1).read().decode()))
    except OSError as error:
        print("charging failed:", error)
        if pause is None:
            sys.exit(1)
        time.sleep(pause)
"""
BREAKER = """
import time, requests

failures, opened = 0, None
for line in range(20):
    if opened and time.monotonic() < opened + 3600:
        print("price from the cache")
        continue
    try:
        requests.get("https://prices.example.test/", timeout=2).raise_for_status()
        failures = 0
    except requests.RequestException:
        failures += 1
        opened = time.monotonic() if failures == 3 else None
"""
MIGRATE = """
import time, psycopg

for attempt in range(1, 20):
    try:
        with psycopg.connect("postgresql://postgres@db.internal/postgres", connect_timeout=5) as db:
            db.execute("CREATE TABLE IF NOT EXISTS orders (id serial, sku text)")
        break
    except psycopg.OperationalError as error:
        print("refused" if "Connection refused" in str(error) else error)
        time.sleep(0.1)
print("migrated by attempt", attempt)
"""
COUNTER = """
import time, redis

# With the client's own retries nothing would be seen of an outage that falls between two of them.
cache = redis.Redis("cache.internal", socket_timeout=2, socket_connect_timeout=2, retry=None)
was_down = False
while True:
    try:
        print("visit", cache.incr("visits"), flush=True)
        if was_down:
            break
    except redis.ConnectionError:
        was_down = True
    time.sleep(0.1)
"""
GIVES_UP = "curl --silent --show-error --max-time 2 https://api.stripe.com/v1/charges"


def test_a_charge_is_tried_again_with_the_same_key(egress: Egress, clients: str) -> None:
    charges = egress.intercept_https("api.stripe.com", sequence(reset(), 503, {"id": "ch_1"}))

    result = egress.run(clients, ["python3", "-c", BACKOFF])

    assert result.stdout.endswith('{"id": "ch_1"}\n')
    assert {call.request.headers["idempotency-key"] for call in charges.calls} == {"order-7"}
    first, second = charges.intervals
    assert first >= 0.2
    assert second >= 0.8  # it waits longer each time


@pytest.mark.intercept_https("api.stripe.com", silence())
def test_a_client_gives_up_in_time(egress: Egress, clients: str) -> None:
    result = egress.run(clients, GIVES_UP, check=False)

    assert result.exit_code == 28  # curl's number for a time-out
    assert "timed out" in result.stderr


@pytest.mark.intercept_https("api.stripe.com", delayed({"id": "ch_1"}, 0.5))
def test_a_client_waits_for_a_slow_answer(egress: Egress, clients: str) -> None:
    assert '"ch_1"' in egress.run(clients, GIVES_UP).stdout


def test_a_breaker_opens_after_three_failures(egress: Egress, clients: str) -> None:
    prices = egress.intercept_https("prices.example.test", Response(503))

    result = egress.run(clients, ["python3", "-c", BREAKER])

    assert prices.call_count == 3
    assert result.stdout.count("price from the cache") == 17


@pytest.fixture(scope="module")
def db(module_egress: Egress, services: str) -> Container:
    start = """sh -c '
        export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
        initdb --pgdata /tmp/data --auth trust --no-sync
        exec postgres -D /tmp/data -k /tmp
    '"""
    return module_egress.start(services, start, user="postgres", wait=port_open(5432))


def test_a_migration_waits_for_the_database(egress: Egress, db: Container, services: str) -> None:
    egress.intercept_tcp("db.internal:5432", sequence(refuse(), refuse(), forward(db, 5432)))

    result = egress.run(services, ["python3", "-c", MIGRATE])

    assert result.stdout == "refused\nrefused\nmigrated by attempt 3\n"
    assert (
        db.exec("psql --host localhost --username postgres --command 'TABLE orders'").exit_code == 0
    )


def test_a_pool_connects_again_after_an_outage(egress: Egress, services: str) -> None:
    cache = egress.start(services, "redis-server --save ''", wait=port_open(6379))
    route = egress.intercept_tcp("cache.internal:6379", forward(cache, 6379))
    counter = egress.start(services, ["python3", "-c", COUNTER], wait=log_line("visit 3"))

    route.respond(refuse())  # cuts what is open, too
    route.wait_for_call(2)  # the connection that was cut, and one that is refused
    route.respond(forward(cache, 6379))

    assert counter.wait(timeout=30).exit_code == 0
