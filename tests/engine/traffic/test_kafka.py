"""`kafka()` asked by real clients in containers: kafka-python, aiokafka, and librdkafka by confluent-kafka."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from pytest_egress import Egress, kafka, log_line
from pytest_egress.session import Session
from tests.support.stage import eventually

KAFKA_PYTHON = """
import sys
from kafka import KafkaProducer
producer = KafkaProducer(bootstrap_servers="kafka.test:9092", compression_type=sys.argv[1] or None)
sent = producer.send("orders", key=b"k", value=b'{"id": 1}', headers=[("trace", b"t")])
print(sent.get(30).offset)
producer.send("orders", value=b"x" * 5000)
producer.flush()
producer.close()
"""
LIBRDKAFKA = """
import sys
from confluent_kafka import Producer
codec, acks, idempotence = sys.argv[1:]
producer = Producer({
    "bootstrap.servers": "kafka.test:9092",
    "compression.type": codec,
    "acks": acks,
    "enable.idempotence": idempotence,
})
producer.produce("orders", key=b"k", value=b'{"id": 1}', headers=[("trace", b"t")])
producer.produce("orders", value=b"x" * 5000)
print(producer.flush(30))
"""
AIOKAFKA = """
import asyncio, sys
from aiokafka import AIOKafkaProducer
async def main():
    producer = AIOKafkaProducer(bootstrap_servers="kafka.test:9092", compression_type=sys.argv[1] or None)
    async with producer:
        await producer.send_and_wait("orders", key=b"k", value=b'{"id": 1}', headers=[("trace", b"t")])
        await producer.send_and_wait("orders", value=b"x" * 5000)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "arguments",
    [
        *([KAFKA_PYTHON, codec] for codec in ("", "gzip", "snappy", "lz4", "zstd")),
        [LIBRDKAFKA, "none", "1", "false"],
        [LIBRDKAFKA, "gzip", "all", "true"],
        [LIBRDKAFKA, "snappy", "0", "false"],
        [LIBRDKAFKA, "lz4", "all", "true"],
        [LIBRDKAFKA, "zstd", "1", "false"],
        [AIOKAFKA, ""],
        [AIOKAFKA, "lz4"],
    ],
    ids=lambda arguments: "-".join(
        [arguments[0].split("import ")[2].split("(")[0], *arguments[1:]]
    ),
)
def test_a_producer_of_each_library_is_recorded(
    egress: Egress, kafka_image: str, arguments: list[str]
) -> None:
    route = egress.intercept_tcp("kafka.test:9092", kafka())
    egress.run(kafka_image, ["python3", "-c", *arguments], timeout=120)
    first, second = route.calls
    assert (first.topic, first.key, first.headers) == ("orders", b"k", (("trace", b"t"),))
    assert first.json() == {"id": 1}
    assert (second.key, second.value, second.offset) == (None, b"x" * 5000, 1)
    egress.assert_not_sent("ann@example.com")


SASL = """
from confluent_kafka import Producer
producer = Producer({
    "bootstrap.servers": "kafka.test:9093",
    "security.protocol": "SASL_SSL",
    "sasl.mechanisms": "PLAIN",
    "sasl.username": "shop",
    "sasl.password": "correct horse",
})
producer.produce("orders", value=b"hello")
print(producer.flush(30))
"""


@pytest.fixture(params=["descriptor", "stream"])
def either(request: pytest.FixtureRequest) -> Iterator[Egress]:
    """An egress of a session of its own, over either link."""
    session = Session(link=request.param)
    with contextlib.closing(session), Egress(session=session) as egress:
        yield egress


def test_a_producer_within_tls_logs_in(either: Egress, kafka_image: str) -> None:
    route = either.intercept_tls("kafka.test:9093", kafka())
    either.run(kafka_image, ["python3", "-c", SASL], timeout=120)
    record = route.assert_called_once()
    assert (record.value, record.user) == (b"hello", "shop")
    assert record.tls is not None
    assert "correct horse" not in repr(either.ledger)


# Consumers.

GROUP = {
    "kafka-python": """
from kafka import KafkaConsumer
consumer = KafkaConsumer(
    "orders", bootstrap_servers="kafka.test:9092", group_id="shop", auto_offset_reset="earliest",
    consumer_timeout_ms=20000,
)
for _, record in zip(range(3), consumer):
    print(record.offset, record.key, record.value, record.headers, flush=True)
consumer.commit()
consumer.close()
""",
    "librdkafka": """
from confluent_kafka import Consumer
consumer = Consumer({
    "bootstrap.servers": "kafka.test:9092", "group.id": "shop", "auto.offset.reset": "earliest",
})
consumer.subscribe(["orders"])
for _ in range(3):
    record = consumer.poll(20)
    print(record.offset(), record.key(), record.value(), record.headers() or [], flush=True)
consumer.commit(asynchronous=False)
consumer.close()
""",
    "aiokafka": """
import asyncio
from aiokafka import AIOKafkaConsumer
async def main():
    consumer = AIOKafkaConsumer(
        "orders", bootstrap_servers="kafka.test:9092", group_id="shop", auto_offset_reset="earliest"
    )
    async with consumer:
        for _ in range(3):
            record = await asyncio.wait_for(consumer.getone(), 20)
            print(record.offset, record.key, record.value, list(record.headers), flush=True)
        await consumer.commit()
asyncio.run(main())
""",
}
ORDERS = {"orders": [{"id": 1}, ("k", "two", {"trace": b"t"}), b"three", b"four", b"five", b"six"]}


@pytest.mark.parametrize("library", GROUP)
def test_a_group_of_each_library_goes_on_where_it_has_committed(
    egress: Egress, kafka_image: str, library: str
) -> None:
    egress.intercept_tcp("kafka.test:9092", kafka(ORDERS), optional=True)
    first = egress.run(kafka_image, ["python3", "-c", GROUP[library]], timeout=120)
    assert first.stdout.splitlines() == [
        """0 None b'{"id": 1}' []""",
        "1 b'k' b'two' [('trace', b't')]",
        "2 None b'three' []",
    ]
    second = egress.run(kafka_image, ["python3", "-c", GROUP[library]], timeout=120)
    assert [line.split()[:3:2] for line in second.stdout.splitlines()] == [
        ["3", "b'four'"],
        ["4", "b'five'"],
        ["5", "b'six'"],
    ]
    egress.assert_not_sent("ann@example.com")  # all that was asked can be searched
    with pytest.raises(AssertionError, match="shop"):
        egress.assert_not_sent("shop")  # the name of the group


ASSIGNED = """
import sys
from kafka import KafkaConsumer, TopicPartition
consumer = KafkaConsumer(bootstrap_servers="kafka.test:9092", consumer_timeout_ms=3000)
part = TopicPartition("orders", 0)
consumer.assign([part])
print(consumer.beginning_offsets([part])[part], consumer.end_offsets([part])[part])
consumer.seek(part, 4)
print([record.value for record in consumer])
"""


def test_a_consumer_without_a_group_seeks(egress: Egress, kafka_image: str) -> None:
    egress.intercept_tcp("kafka.test:9092", kafka(ORDERS), optional=True)
    result = egress.run(kafka_image, ["python3", "-c", ASSIGNED], timeout=120)
    assert result.stdout == "0 6\n[b'five', b'six']\n"


PIPE = """
from confluent_kafka import Consumer, Producer
consumer = Consumer({
    "bootstrap.servers": "kafka.test:9092", "group.id": "pipe", "auto.offset.reset": "earliest",
})
consumer.subscribe(["in"])
record = consumer.poll(20)
producer = Producer({"bootstrap.servers": "kafka.test:9092"})
producer.produce("out", value=record.value().upper())
producer.flush(20)
consumer.subscribe(["out"])
print(consumer.poll(20).value())
consumer.close()
"""


def test_what_is_produced_is_consumed(egress: Egress, kafka_image: str) -> None:
    route = egress.intercept_tcp("kafka.test:9092", kafka({"in": [b"hello"]}))
    result = egress.run(kafka_image, ["python3", "-c", PIPE], timeout=120)
    assert result.stdout == "b'HELLO'\n"
    record = route.assert_called_once()
    assert (record.topic, record.value) == ("out", b"HELLO")


TWO = """
import sys, time
from confluent_kafka import Consumer
consumer = Consumer({
    "bootstrap.servers": "kafka.test:9092", "group.id": "two", "auto.offset.reset": "earliest",
    "heartbeat.interval.ms": 300, "session.timeout.ms": 6000,
})
def assigned(consumer, parts):
    print("assigned", sorted(part.partition for part in parts), flush=True)
consumer.subscribe(["orders"], on_assign=assigned)
while True:
    consumer.poll(0.2)
"""


def test_two_members_of_a_group_share_its_partitions(egress: Egress, kafka_image: str) -> None:
    broker = kafka({"orders": [b"a", b"b"]}, partitions=2)
    egress.intercept_tcp("kafka.test:9092", broker, optional=True)
    first = egress.start(kafka_image, ["python3", "-c", TWO], wait=log_line(r"assigned \[0, 1\]"))
    second = egress.start(kafka_image, ["python3", "-c", TWO], wait=log_line(r"assigned \[[01]\]"))
    assert eventually(lambda: re.search(r"assigned \[[01]\]", first.logs()))
    second.stop(timeout=0)
    assert eventually(lambda: first.logs().count("assigned [0, 1]") == 2)
