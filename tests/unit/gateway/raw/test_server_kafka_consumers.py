"""What consumers of `kafka()` get, request by request."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pytest_egress.gateway.raw import hearing
from pytest_egress.routes.raw.kafka import kafka
from pytest_egress.traffic.entries import TcpConnection
from pytest_egress.traffic.kafka.batches import read_batches
from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError
from pytest_egress.traffic.kafka.wire import request_class
from pytest_egress.traffic.search.attempts import pieces_of
from pytest_egress.traffic.search.pieces import Unread
from tests.support.kafka_client import KafkaClient, batch_of, produce_fields
from tests.support.stage import Stage, end_of, eventually

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


# What is asked is searched, as what is produced is.


def connection_of(stage: Stage) -> TcpConnection:
    (entry,) = (entry for entry in stage.window.entries if isinstance(entry, TcpConnection))
    return entry


def commit(client: KafkaClient, text: str) -> int:
    """The error of the response."""
    kind = request_class("OffsetCommit").OffsetCommitRequestTopic
    part = kind.OffsetCommitRequestPartition(
        version=8, partition_index=0, committed_offset=1, committed_metadata=text
    )
    topics = [kind(version=8, name="orders", partitions=[part])]
    told = client.ask("OffsetCommit", group_id="the-group", topics=topics)
    return int(told.topics[0].partitions[0].error_code)


def test_what_is_asked_is_kept_but_no_login_and_no_record(
    stage: Stage, client: KafkaClient
) -> None:
    client.ask("SaslHandshake", mechanism="PLAIN")
    client.ask("SaslAuthenticate", auth_bytes=b"\0ann\0the-password")
    topic = request_class("Metadata").MetadataRequestTopic(version=9, name="the-topic")
    client.ask("Metadata", topics=[topic], allow_auto_topic_creation=True)
    commit(client, "the-metadata")
    client.produce("orders", batch_of([(None, b"the-value", [])]))
    entry = connection_of(stage)
    found = {word for word in (b"topic", b"group", b"metadata") if b"the-" + word in entry.content}
    assert found == {b"topic", b"group", b"metadata"}
    assert b"the-password" not in entry.content
    assert b"the-value" not in entry.content
    assert not [piece for piece in pieces_of(entry) if isinstance(piece, Unread)]


def test_a_login_of_old_is_not_kept(stage: Stage, client: KafkaClient) -> None:
    client.ask("SaslHandshake", version=0, mechanism="PLAIN")
    said = b"\0ann\0the-password"
    client.sock.sendall(len(said).to_bytes(4, "big") + said)
    assert client.read() == b""
    assert b"the-password" not in connection_of(stage).content


def test_a_question_that_is_asked_again_and_again_is_kept_once(
    stage: Stage, client: KafkaClient
) -> None:
    client.fetch("orders", 3)
    once = len(connection_of(stage).content)
    for _ in range(20):
        client.fetch("orders", 3)
    assert len(connection_of(stage).content) == once > 0


def test_what_is_not_kept_of_questions_is_said(
    stage: Stage, client: KafkaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "MAX_KEPT_BYTES", 100)
    commit(client, "x" * 300)
    entry = connection_of(stage)
    assert len(entry.content) == 100
    assert entry.unread == "are kept in part: the first 100 of its requests"


def test_a_text_of_a_producer_that_no_record_has_is_said(stage: Stage, client: KafkaClient) -> None:
    client.send("Produce", **{**produce_fields("orders", None), "transactional_id": "text"})
    assert client.read()
    assert connection_of(stage).unread == "are in part in a request of Produce beside its records"


def test_a_text_of_a_commit_that_is_too_long_is_refused_as_a_broker_does(
    client: KafkaClient,
) -> None:
    assert commit(client, "x" * 4096) == KafkaCode.NONE
    assert commit(client, "x" * 4097) == KafkaCode.OFFSET_METADATA_TOO_LARGE


# A partition is named once, or a short question would have a long answer.


@pytest.mark.parametrize("api", ["Fetch", "ListOffsets", "OffsetFetch"])
def test_a_question_that_names_a_partition_twice_is_refused(
    stage: Stage, client: KafkaClient, api: str
) -> None:
    client.send(api, **twice(api))
    assert end_of(client.sock) == "closed"
    error = connection_of(stage).error
    assert isinstance(error, KafkaError)
    assert str(error) == f"a request of {api} names partition 0 of 'orders' twice"


def twice(api: str) -> dict[str, Any]:
    """The fields of a question that names a partition in two ways: of one topic, and of the same one again."""
    if api == "OffsetFetch":
        of_group = request_class(api).OffsetFetchRequestTopic
        topic = of_group(version=7, name="orders", partition_indexes=[0])
        return {"group_id": "g", "topics": [topic, topic]}
    if api == "Fetch":
        kind = request_class(api).FetchTopic
        part = kind.FetchPartition(version=11, partition=0, fetch_offset=0, partition_max_bytes=9)
        topics = [kind(version=11, topic="orders", partitions=[part, part])]
        more = {"max_wait_ms": 0, "min_bytes": 1, "forgotten_topics_data": []}
        return {"replica_id": -1, "topics": topics, **more}
    kind = request_class(api).ListOffsetsTopic
    one = kind.ListOffsetsPartition(version=6, partition_index=0, timestamp=-1)
    topics = [kind(version=6, name="orders", partitions=[one, one])]
    return {"replica_id": -1, "isolation_level": 0, "topics": topics}
