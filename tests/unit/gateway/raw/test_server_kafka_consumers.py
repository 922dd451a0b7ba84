"""What consumers of `kafka()` get, request by request."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pytest_egress.routes.raw.kafka import kafka
from pytest_egress.traffic.entries import TcpConnection
from pytest_egress.traffic.kafka.batches import read_batches
from pytest_egress.traffic.kafka.codes import KafkaCode
from pytest_egress.traffic.kafka.wire import request_class
from tests.support.kafka_client import KafkaClient, batch_of
from tests.support.stage import Stage, eventually

ORDERS = {"orders": [b"one", b"two", b"three"]}


@pytest.fixture
def client(stage: Stage) -> KafkaClient:
    stage.tcp("kafka.test:5432", kafka(ORDERS), optional=True)
    return connected(stage)


def connected(stage: Stage) -> KafkaClient:
    return KafkaClient(stage.dial(stage.resolve("kafka.test"), 5432))


def values(part: Any) -> list[bytes | None]:
    return [record.value for _, read in read_batches(bytes(part.records or b"")) for record in read]


def test_records_are_read_from_an_offset_on(client: KafkaClient) -> None:
    part = client.fetch("orders", 1)
    assert (part.error_code, part.high_watermark, values(part)) == (0, 3, [b"two", b"three"])
    assert client.fetch("orders", 4).error_code == KafkaCode.OFFSET_OUT_OF_RANGE
    assert client.fetch("orders", 0, partition=1).error_code == KafkaCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_fetch_waits_for_what_another_connection_produces(
    stage: Stage, client: KafkaClient
) -> None:
    told: list[Any] = []
    waiting = threading.Thread(target=lambda: told.append(client.fetch("orders", 3, wait=9000)))
    waiting.start()
    connected(stage).produce("orders", batch_of([(None, b"four", [])]))
    waiting.join(10)
    assert [values(part) for part in told] == [[b"four"]]


def test_a_fetch_that_waits_holds_no_end_of_a_test(stage: Stage, client: KafkaClient) -> None:
    kind = request_class("Fetch").FetchTopic
    part = kind.FetchPartition(version=11, partition=0, fetch_offset=3, partition_max_bytes=9)
    topics = [kind(version=11, topic="orders", partitions=[part])]
    client.send("Fetch", replica_id=-1, max_wait_ms=2**31 - 1, min_bytes=1, topics=topics)
    client.sock.close()
    assert eventually(
        lambda: all(
            e.duration is not None for e in stage.window.entries if isinstance(e, TcpConnection)
        )
    )


@pytest.mark.parametrize(("timestamp", "offset"), [(-2, 0), (-1, 3), (2**50, -1), (0, 0)])
def test_offsets_are_listed(client: KafkaClient, timestamp: int, offset: int) -> None:
    kind = request_class("ListOffsets").ListOffsetsTopic
    part = kind.ListOffsetsPartition(version=6, partition_index=0, timestamp=timestamp)
    topics = [kind(version=6, name="orders", partitions=[part])]
    told = client.ask("ListOffsets", replica_id=-1, isolation_level=0, topics=topics)
    assert told.topics[0].partitions[0].offset == offset


def test_a_member_whose_connection_ends_has_left(stage: Stage, client: KafkaClient) -> None:
    assert joined(client).leader.startswith("test-")
    client.sock.close()
    told = joined(connected(stage))
    assert told.member_id == told.leader
    assert len(told.members) == 1


def joined(client: KafkaClient) -> Any:
    protocol = request_class("JoinGroup").JoinGroupRequestProtocol(
        version=7, name="range", metadata=b"m"
    )
    return client.ask(
        "JoinGroup",
        group_id="g",
        session_timeout_ms=9000,
        rebalance_timeout_ms=9000,
        member_id="",
        protocol_type="consumer",
        protocols=[protocol],
    )


def test_a_connection_says_what_was_fetched(stage: Stage, client: KafkaClient) -> None:
    client.fetch("orders", 1)
    client.sock.close()
    (entry,) = (e for e in stage.window.entries if isinstance(e, TcpConnection))
    assert eventually(lambda: entry.note == "it produced no record; it fetched 2 of 'orders'")
