"""A service that consumes orders from Kafka and produces events: clients of Python and librdkafka, and no broker."""

import pytest

from pytest_egress import Egress, kafka, log_line

CHARGE = """
import json
from kafka import KafkaConsumer, KafkaProducer

consumer = KafkaConsumer(
    "orders", bootstrap_servers="kafka.internal:9092", group_id="shop", auto_offset_reset="earliest"
)
producer = KafkaProducer(bootstrap_servers="kafka.internal:9092", compression_type="gzip")
print("connected", flush=True)
order = json.loads(next(consumer).value)
event = json.dumps({"order": order["id"], "status": "charged"}).encode()
producer.send("charges", key=b"ann", value=event, headers=[("trace", b"4711")])
producer.flush()
consumer.commit()
consumer.close()
"""
WELCOME = """
from confluent_kafka import Producer

producer = Producer({
    "bootstrap.servers": "kafka.internal:9093",
    "security.protocol": "SASL_SSL",
    "sasl.mechanisms": "PLAIN",
    "sasl.username": "shop",
    "sasl.password": "hunter2",
    "enable.idempotence": True,
})
for name in ("ann", "bob"):
    producer.produce("welcomes", key=name, value=f"Hello {name}")
producer.flush()
"""


def test_an_order_is_charged(egress: Egress, kafka_clients: str) -> None:
    broker = egress.intercept_tcp("kafka.internal:9092", kafka({"orders": [{"id": 7}]}))

    egress.run(kafka_clients, ["python3", "-c", CHARGE])

    record = broker.assert_called_once()
    assert (record.topic, record.key) == ("charges", b"ann")
    assert record.json() == {"order": 7, "status": "charged"}
    assert dict(record.headers) == {"trace": b"4711"}


def test_customers_are_welcomed_over_tls_with_a_login(egress: Egress, kafka_clients: str) -> None:
    broker = egress.intercept_tls("kafka.internal:9093", kafka())

    egress.run(kafka_clients, ["python3", "-c", WELCOME])

    assert [record.text for record in broker.calls] == ["Hello ann", "Hello bob"]
    assert {record.user for record in broker.calls} == {"shop"}


@pytest.mark.intercept_tcp("kafka.internal:9092", kafka({"orders": []}), optional=True)
def test_nothing_is_charged_without_an_order(egress: Egress, kafka_clients: str) -> None:
    egress.start(kafka_clients, ["python3", "-c", CHARGE], wait=log_line("connected"))

    egress.wait_until_quiet(1)
    egress["kafka.internal:9092"].assert_not_called()
