"""The topics of a broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pytest_egress.routes.raw import kafka_log
from pytest_egress.routes.raw.kafka_log import KafkaLog
from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError
from pytest_egress.traffic.kafka.records import StoredRecord


def record(value: bytes, timestamp: int = 0) -> StoredRecord:
    return StoredRecord(key=None, value=value, headers=(), timestamp=timestamp)


def test_a_partition_is_read_from_an_offset_on_and_to_a_size() -> None:
    log, stored = KafkaLog(2), [record(bytes(1000)) for _ in range(5)]
    assert log.append("a", 1, stored) == 0
    assert log.append("a", 1, stored) == 5
    assert log.read("a", 1, 3, 1 << 20) == (([*stored, *stored][3:]), 0, 10)
    assert log.read("a", 1, 3, 3000).records == stored[:2]
    assert log.read("a", 1, 3, 1).records == stored[:1]
    assert log.read("a", 1, 10, 1 << 20) == ([], 0, 10)
    assert log.read("a", 1, 11, 1 << 20) == (None, 0, 10)
    assert log.read("a", 0, 0, 1 << 20) == ([], 0, 0)
    assert log.read("nothing", 0, 0, 1 << 20) == ([], 0, 0)


class CountedLog(list[StoredRecord]):
    """Counts the records that are looked at."""

    looks = 0

    def __iter__(self) -> Iterator[StoredRecord]:
        for each in super().__iter__():
            self.looks += 1
            yield each

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        self.looks += len(found) if isinstance(at, slice) else 1
        return found


def test_a_read_looks_at_no_record_before_its_offset_nor_far_behind_its_last_one() -> None:
    log, records = KafkaLog(1), CountedLog(record(bytes(100)) for _ in range(1000))
    log.append("a", 0, [])
    log._topics["a"][0].records = records
    size = records[0].size
    records.looks = 0
    assert log.read("a", 0, 990, 1 << 20).records == [record(bytes(100))] * 10
    assert log.read("a", 0, 5, size * 3).records == [record(bytes(100))] * 3
    assert log.read("a", 0, 1000, 1 << 20).records == []
    assert records.looks == 10 + 4


def test_what_is_dropped_does_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_log, "MAX_LOG_BYTES", 30_000)
    log = KafkaLog(1)
    for number in range(1000):
        assert log.append("a", 0, [record(b"%d" % number + bytes(1000))]) == number
        assert len(log._topics["a"][0].records) <= 50
    told = log.read("a", 0, 980, 1 << 20)
    assert [each.value[:3] for each in told.records or () if each.value] == [
        b"%d" % number for number in range(980, 1000)
    ]


def test_the_oldest_records_are_dropped_where_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_log, "MAX_LOG_BYTES", 3000)
    log = KafkaLog(1)
    for number in range(5):
        log.append("a", 0, [record(bytes([number]) * 1000)])
    told = log.read("a", 0, 3, 1 << 20)
    assert (told.start, told.end) == (3, 5)
    assert log.read("a", 0, 2, 1 << 20).records is None


def test_an_offset_is_found_by_its_time() -> None:
    log = KafkaLog(1)
    log.append("a", 0, [record(b"", 10), record(b"", 20)])
    assert log.offset_at("a", 0, 11) == (1, 20)
    assert log.offset_at("a", 0, 21) == (-1, -1)


def test_a_broker_keeps_so_many_topics_and_producers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_log, "MAX_TOPICS", 1)
    monkeypatch.setattr(kafka_log, "MAX_PRODUCERS", 1)
    log = KafkaLog(1)
    log.append("a", 0, [])
    with pytest.raises(KafkaError, match="keeps 1 topics, and more are written"):
        log.append("b", 0, [])
    log.remember((1, 0, "a", 0), 0, b"x", 7)
    assert log.offset_of((1, 0, "a", 0), 0, b"x") == 7
    log.remember((2, 0, "a", 0), 0, b"x", 8)
    assert log.offset_of((1, 0, "a", 0), 0, b"x") is None


def test_the_last_five_batches_of_a_producer_are_known_by_their_numbers_and_their_records() -> None:
    log, producer = KafkaLog(1), (1, 0, "a", 0)
    for number in range(6):
        log.remember(producer, number, b"%d" % number, 100 + number)
    found = [log.offset_of(producer, number, b"%d" % number) for number in range(6)]
    assert found == [None, 101, 102, 103, 104, 105]
    said = r"of producer 1 .* sequence number 3, as another one had, and has other records"
    with pytest.raises(KafkaError, match=said) as raised:
        log.offset_of(producer, 3, b"other")
    assert raised.value.code == KafkaCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_no_two_brokers_of_a_process_give_a_producer_the_same_id() -> None:
    ids = [log.new_producer() for log in (KafkaLog(1), KafkaLog(1), KafkaLog(2))]
    assert len({*ids}) == 3
