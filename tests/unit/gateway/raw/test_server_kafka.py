"""Records produced to `kafka()`: each is a call of its route, in the window that is open then."""

from __future__ import annotations

import pytest

from pytest_egress.base import account
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.faults import reset
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.raw.kafka import kafka
from pytest_egress.traffic.entries import KafkaRecord, TcpConnection
from pytest_egress.traffic.kafka import batches
from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError
from pytest_egress.traffic.kafka.wire import request_class, response_class
from tests.support.kafka_client import (
    KafkaClient,
    batch_of,
    compressed,
    produce_fields,
    request_bytes,
    with_checksum,
)
from tests.support.stage import Stage, end_of, eventually

ORDER = (b"k", b'{"id": 1}', [("trace", b"t"), ("none", None)])


@pytest.fixture
def orders(stage: Stage) -> InnerRoute:
    return stage.tcp("kafka.test:5432", kafka())


def connected(stage: Stage) -> KafkaClient:
    return KafkaClient(stage.dial(stage.resolve("kafka.test"), 5432))


def test_a_client_is_told_the_host_and_port_that_it_dialled(
    stage: Stage, orders: InnerRoute
) -> None:
    client = connected(stage)
    told = client.ask("ApiVersions")
    assert told.error_code == 0
    assert {key.api_key for key in told.api_keys} >= {0, 1, 3, 18}
    topics = [client_topic("orders")]
    told = client.ask("Metadata", topics=topics, allow_auto_topic_creation=True)
    assert [(b.host, b.port) for b in told.brokers] == [("kafka.test", 5432)]
    assert [(t.name, len(t.partitions)) for t in told.topics] == [("orders", 1)]
    told = client.ask("FindCoordinator", key="group", key_type=0)
    assert (told.host, told.port) == ("kafka.test", 5432)


def client_topic(name: str) -> object:
    return request_class("Metadata").MetadataRequestTopic(version=9, name=name)


def test_each_record_is_a_call_with_all_that_it_has(stage: Stage, orders: InnerRoute) -> None:
    client = connected(stage)
    told = client.produce("orders", batch_of([ORDER, (None, None, [])]))
    assert (told.error_code, told.base_offset) == (0, 0)
    first, second = orders.calls
    assert isinstance(first, KafkaRecord)
    assert (first.topic, first.key, first.partition, first.offset) == ("orders", b"k", 0, 0)
    assert first.headers == (("trace", b"t"), ("none", None))
    assert first.json() == {"id": 1}
    assert (first.timestamp, first.client_id, first.user) == (1_700_000_000_000, "test", None)
    assert (second.key, second.value, second.text, second.offset) == (None, None, "", 1)
    assert client.produce("orders", batch_of([ORDER])).base_offset == 2


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_batch_may_be_compressed(stage: Stage, orders: InnerRoute, codec: int) -> None:
    assert connected(stage).produce("orders", compressed(b"x" * 100_000, codec)).error_code == 0
    assert orders.assert_called_once().value == b"x" * 100_000


def test_a_record_belongs_to_the_test_in_which_it_came(stage: Stage, orders: InnerRoute) -> None:
    client = connected(stage)
    client.produce("orders", batch_of([ORDER]))
    first, second = stage.window, stage.next_window()
    client.produce("orders", batch_of([ORDER, ORDER]))
    for window, count in ((first, 1), (second, 2)):
        assert sum(isinstance(entry, KafkaRecord) for entry in window.entries) == count


def test_a_producer_that_waits_for_no_response_gets_none(stage: Stage, orders: InnerRoute) -> None:
    client = connected(stage)
    client.produce("orders", batch_of([ORDER]), acks=0)
    assert client.produce("orders", batch_of([ORDER])).base_offset == 1
    assert orders.call_count == 2


def test_a_batch_that_an_idempotent_producer_sends_again_is_no_second_call(
    stage: Stage, orders: InnerRoute
) -> None:
    client = connected(stage)
    told = client.ask("InitProducerId", transactional_id=None, transaction_timeout_ms=1)
    producer = told.producer_id
    assert client.produce("orders", batch_of([ORDER], producer=(producer, 0))).base_offset == 0
    again = connected(stage)
    assert again.produce("orders", batch_of([ORDER], producer=(producer, 0))).base_offset == 0
    assert again.produce("orders", batch_of([ORDER], producer=(producer, 1))).base_offset == 1
    assert orders.call_count == 2


def test_another_batch_with_the_numbers_of_an_earlier_one_is_refused_and_fails_the_test(
    stage: Stage, orders: InnerRoute
) -> None:
    client = connected(stage)
    assert client.produce("orders", batch_of([ORDER], producer=(1, 0))).error_code == 0
    told = client.produce("orders", batch_of([(None, b"other", [])], producer=(1, 0)))
    assert told.error_code == KafkaCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert orders.call_count == 1
    assert "a batch of producer 1 has the sequence number 0, as another one had" in failure(stage)


def test_a_client_that_is_kept_from_an_earlier_broker_loses_no_record(stage: Stage) -> None:
    sent = []
    for host in ("earlier.test", "kafka.test"):
        route = stage.tcp(f"{host}:5432", kafka())
        client = KafkaClient(stage.dial(stage.resolve(host), 5432))
        told = client.ask("InitProducerId", transactional_id=None, transaction_timeout_ms=1)
        sent.append(batch_of([(None, host.encode(), [])], producer=(told.producer_id, 0)))
    for batch in sent:
        assert client.produce("orders", batch).error_code == 0
    assert [record.value for record in route.calls] == [b"earlier.test", b"kafka.test"]


def test_a_record_for_a_partition_that_is_not_there_is_refused_and_fails_the_test(
    stage: Stage, orders: InnerRoute
) -> None:
    client = connected(stage)
    told = client.produce("orders", batch_of([ORDER]), partition=2)
    assert told.error_code == KafkaCode.UNKNOWN_TOPIC_OR_PARTITION
    assert client.ask("ApiVersions").error_code == 0
    assert failure(stage) == (
        "records for partition 2 of 'orders' came, and each topic has 1: kafka(partitions=3) has it"
    )


@pytest.mark.parametrize("partition", [0, 9])
def test_a_long_name_of_a_topic_is_cut_in_a_failure(
    stage: Stage, orders: InnerRoute, partition: int
) -> None:
    connected(stage).produce("x" * 5000, b"\0" * 30, partition=partition)
    assert len(failure(stage)) < 200


def test_times_counts_records_and_the_next_one_is_refused_and_fails_the_test(stage: Stage) -> None:
    route = stage.tcp("kafka.test:5432", kafka(), times=2)
    told = connected(stage).produce("orders", batch_of([ORDER, ORDER, ORDER]))
    assert told.error_code == KafkaCode.POLICY_VIOLATION
    assert told.error_message == "the route for records has answered as often as it may"
    assert route.call_count == 2
    verdict = str(judge(stage.window, stage.table.routes))
    assert "Kafka record of 'orders', key b'k', value b'{\"id\": 1}' at kafka.test:5432" in verdict
    assert "its route has no turn left for it" in verdict


def test_of_a_sequence_the_next_answer_is_for_the_next_connection(stage: Stage) -> None:
    route = stage.tcp("kafka.test:5432", sequence(kafka(), reset(), kafka()))
    client = connected(stage)
    assert client.produce("orders", batch_of([ORDER])).error_code == 0
    client.send("Produce", **produce_fields("orders", batch_of([ORDER])))
    assert end_of(client.sock) == "closed"
    assert end_of(connected(stage).sock) == "reset"
    assert connected(stage).produce("orders", batch_of([ORDER])).error_code == 0
    assert [isinstance(call, KafkaRecord) for call in route.calls] == [True, False, True]


def test_a_batch_that_ends_elsewhere_says_that_it_is_sent_again_whole(stage: Stage) -> None:
    route = stage.tcp("kafka.test:5432", sequence(kafka(), reset(), kafka()))
    client = connected(stage)
    client.send("Produce", **produce_fields("orders", batch_of([ORDER, ORDER, ORDER])))
    assert end_of(client.sock) == "closed"
    (connection,) = raw_connections(stage)
    assert eventually(lambda: connection.duration is not None)
    assert connection.note == (
        "the next answer was due at record 2 of a request: its client sends all of them again, "
        "and those before it are calls already"
    )
    assert connection.unread == BEHIND
    assert route.call_count == 1


def test_a_request_that_ends_elsewhere_at_its_second_topic_says_so_too(stage: Stage) -> None:
    stage.tcp("kafka.test:5432", sequence(kafka(), reset(), kafka()))
    client = connected(stage)
    fields = produce_fields("orders", batch_of([ORDER]))
    fields["topic_data"] += produce_fields("more", batch_of([ORDER]))["topic_data"]
    client.send("Produce", **fields)
    assert end_of(client.sock) == "closed"
    (connection,) = raw_connections(stage)
    assert eventually(lambda: connection.duration is not None)
    assert connection.note.startswith("the next answer was due at record 2 of a request: ")
    assert connection.unread == BEHIND


BEHIND = "are in part in records behind one that was not taken"


def test_of_a_batch_that_is_elsewhere_as_a_whole_nothing_is_a_call_twice(stage: Stage) -> None:
    stage.tcp("kafka.test:5432", sequence(kafka(), reset(), kafka()))
    client = connected(stage)
    client.produce("orders", batch_of([ORDER]))
    client.send("Produce", **produce_fields("orders", batch_of([ORDER])))
    assert end_of(client.sock) == "closed"
    (connection,) = raw_connections(stage)
    assert eventually(lambda: connection.duration is not None)
    assert (connection.note, connection.unread) == ("", "")


def test_a_login_is_told_by_its_records_and_its_password_by_nothing(
    stage: Stage, orders: InnerRoute
) -> None:
    client = connected(stage)
    assert client.ask("SaslHandshake", mechanism="PLAIN").error_code == 0
    assert client.ask("SaslAuthenticate", auth_bytes=b"\0ann\0s3cr3t-word").error_code == 0
    client.produce("orders", batch_of([ORDER]))
    assert orders.assert_called_once().user == "ann"
    assert "s3cr3t-word" not in repr(stage.window.entries)


def test_a_secret_in_a_record_is_masked_where_the_record_is_shown(
    stage: Stage, orders: InnerRoute
) -> None:
    value = b'{"password": "correct-horse", "a": "\x1b[31m"}'
    connected(stage).produce("orders", batch_of([(None, value, [("auth", b"correct-horse")])]))
    record = orders.assert_called_once()
    assert "correct-horse" not in str(record) + repr(record)
    assert "\x1b" not in str(record) + repr(record)


def test_a_login_of_old_is_no_request(stage: Stage, orders: InnerRoute) -> None:
    client = connected(stage)
    assert client.ask("SaslHandshake", version=0, mechanism="PLAIN").error_code == 0
    said = b"\0ann\0secret"
    client.sock.sendall(len(said).to_bytes(4, "big") + said)
    assert client.read() == b""
    client.produce("orders", batch_of([ORDER]))
    assert orders.assert_called_once().user == "ann"


def test_a_client_that_speaks_a_newer_version_is_told_which_there_are(
    stage: Stage, orders: InnerRoute
) -> None:
    client = connected(stage)
    data = bytearray(request_bytes("ApiVersions", 3, client_software_name="x"))
    data[6:8] = (9).to_bytes(2, "big")
    client.sock.sendall(data)
    told = response_class("ApiVersions").decode(client.read(), version=0, header=True)
    assert told.error_code == KafkaCode.UNSUPPORTED_VERSION
    assert client.produce("orders", batch_of([ORDER])).error_code == 0


# What cannot be answered fails the test, in a sentence.


def failure(stage: Stage) -> str:
    assert eventually(lambda: any(e.error for e in raw_connections(stage)))
    (error,) = (e.error for e in raw_connections(stage) if e.error)
    assert isinstance(error, KafkaError)
    verdict = str(judge(stage.window, []))
    assert str(error) in verdict
    return str(error)


def raw_connections(stage: Stage) -> list[TcpConnection]:
    return [entry for entry in stage.window.entries if isinstance(entry, TcpConnection)]


def test_a_request_that_is_not_answered_is_named(stage: Stage, orders: InnerRoute) -> None:
    client = connected(stage)
    client.sock.sendall(bytes.fromhex("0000000a 0020 0001 00000001 0000"))
    assert end_of(client.sock) == "closed"
    assert failure(stage).startswith(
        "a request of DescribeConfigs, version 1, came, which kafka() does not answer. It answers producers"
    )


def test_a_request_that_cannot_be_read_is_named(stage: Stage, orders: InnerRoute) -> None:
    client = connected(stage)
    client.sock.sendall(bytes.fromhex("0000000c 0000 0009 00000001 0000 ffff"))
    assert end_of(client.sock) == "closed"
    assert failure(stage).startswith("a request of Produce, version 9, cannot be read: ")


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\0\0\0\0"])
def test_a_length_that_no_request_has_is_refused(
    stage: Stage, orders: InnerRoute, begin: bytes
) -> None:
    client = connected(stage)
    client.sock.sendall(begin)
    assert end_of(client.sock) == "closed"
    assert "the client does not speak Kafka's protocol" in failure(stage)


def test_a_tls_client_of_a_route_in_the_clear_is_answered_within_tls_by_another(
    stage: Stage,
) -> None:
    route = stage.tls_route("kafka.test:5432", kafka())
    sock = stage.tls("kafka.test", stage.resolve("kafka.test"), 5432)
    assert KafkaClient(sock).produce("orders", batch_of([ORDER])).error_code == 0
    assert route.assert_called_once().tls.version == "TLSv1.3"


@pytest.mark.parametrize(
    ("batch", "code", "said"),
    [
        (b"", KafkaCode.NONE, ""),
        (b"\0" * 30, KafkaCode.CORRUPT_MESSAGE, "a batch of records is cut off after 30 bytes"),
        (batch_of([ORDER])[:-1], KafkaCode.CORRUPT_MESSAGE, "a batch of records says that it has "),
        (
            batch_of([ORDER])[:-1] + b"!",
            KafkaCode.CORRUPT_MESSAGE,
            "the checksum of a batch is wrong",
        ),
        (
            batch_of([ORDER], is_transactional=True, producer=(1, 0)),
            KafkaCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "a batch is of a transaction, which kafka() does not have",
        ),
        (
            b"\0" * 16 + b"\1" + b"\0" * 60,
            KafkaCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
            "a batch is in a message format from before Kafka 0.11",
        ),
    ],
)
def test_a_batch_that_cannot_be_taken_is_refused_and_fails_the_test(
    stage: Stage, orders: InnerRoute, batch: bytes, code: KafkaCode, said: str
) -> None:
    client = connected(stage)
    assert client.produce("orders", batch).error_code == code
    assert client.ask("ApiVersions").error_code == 0
    if said:
        assert said in failure(stage)
        assert "(Produce, 'orders')" in failure(stage)


def test_a_batch_that_becomes_too_large_is_refused(
    stage: Stage, orders: InnerRoute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_BATCH_BYTES", 1_000_000)
    for codec in (1, 2, 3, 4):
        told = connected(stage).produce("orders", compressed(bytes(2_000_000), codec))
        assert told.error_code == KafkaCode.MESSAGE_TOO_LARGE
    assert orders.call_count == 0


def test_a_batch_with_too_many_records_is_refused_before_they_are_read(
    stage: Stage, orders: InnerRoute
) -> None:
    data = batch_of([(None, None, [])])
    data = with_checksum(data[:57] + (200_001).to_bytes(4, "big") + data[61:], 0)
    assert connected(stage).produce("orders", data).error_code == KafkaCode.MESSAGE_TOO_LARGE
    assert "a batch has 200001 records, and kafka() takes 200000" in failure(stage)


def test_a_broker_reads_one_batch_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, gzip, seen = kafka(), batches.CODECS[1], []

    def watched(data: bytes) -> bytes | bytearray:
        seen.append(broker._log.appending.locked())
        return gzip(data)

    monkeypatch.setitem(batches.CODECS, 1, watched)
    stage.tcp("kafka.test:5432", broker)
    assert connected(stage).produce("orders", compressed(b"x", 1)).error_code == 0
    assert seen == [True]


def test_a_question_about_too_many_topics_is_refused(stage: Stage, orders: InnerRoute) -> None:
    topics = [client_topic("")] * 100_001
    client = connected(stage)
    client.send("Metadata", topics=topics, allow_auto_topic_creation=True)
    assert end_of(client.sock) == "closed"
    assert "a request of Metadata asks for 100001 topics, which are too many" in failure(stage)


def test_a_transaction_is_refused(stage: Stage, orders: InnerRoute) -> None:
    told = connected(stage).ask("InitProducerId", transactional_id="t", transaction_timeout_ms=1)
    assert told.error_code == KafkaCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert failure(stage) == (
        "kafka() has no transactions; a real broker has: forward(container, 9092). Its client begins 't'"
    )


def test_a_mechanism_that_takes_a_password_is_refused(stage: Stage, orders: InnerRoute) -> None:
    told = connected(stage).ask("SaslHandshake", mechanism="SCRAM-SHA-256")
    assert told.error_code == KafkaCode.UNSUPPORTED_SASL_MECHANISM
    assert failure(stage) == (
        "its client logs in by 'SCRAM-SHA-256'; kafka() takes logins by PLAIN and OAUTHBEARER"
    )


def test_what_is_over_the_account_of_the_test_is_refused(
    stage: Stage, orders: InnerRoute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "MAX_HELD_BYTES", 10_000)
    client = connected(stage)
    told = client.produce("orders", compressed(b"x" * 50_000, 1))
    assert told.error_code == KafkaCode.POLICY_VIOLATION
    assert told.error_message == "no room for more records in this test"
    assert stage.window.account.lost.keys() == {"Kafka records"}


def test_a_connection_without_a_record_says_so(stage: Stage, orders: InnerRoute) -> None:
    client = connected(stage)
    client.ask("ApiVersions")
    client.sock.close()
    (connection,) = raw_connections(stage)
    assert eventually(lambda: connection.note == "it produced no record")
    assert not orders.calls
