"""Batches of records; gateway/raw/test_server_kafka.py has what a client is told about one that is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.kafka import batches
from pytest_egress.traffic.kafka.batches import CODECS, make_batch, read_batches
from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError
from pytest_egress.traffic.kafka.records import StoredRecord
from tests.support.kafka_client import batch_of, compressed, with_checksum

octets = st.none() | st.binary(max_size=20)
records = st.builds(
    StoredRecord,
    key=octets,
    value=octets,
    headers=st.lists(st.tuples(st.text(max_size=5), octets), max_size=3).map(tuple),
    timestamp=st.integers(min_value=0, max_value=2**40),
)


@given(st.lists(records, min_size=1, max_size=10), st.integers(min_value=0, max_value=2**40))
def test_a_batch_that_is_made_is_read_again(stored: list[StoredRecord], offset: int) -> None:
    ((batch, read),) = read_batches(make_batch(offset, stored))
    assert (batch.base_offset, read) == (offset, stored)


def test_a_producer_may_send_several_batches_at_once() -> None:
    one, two = batch_of([(None, b"1", [])]), compressed(b"2", 3)
    assert [[r.value for r in read] for _, read in read_batches(one + two)] == [[b"1"], [b"2"]]


def test_a_batch_has_so_many_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_RECORDS", 10)
    five: list[tuple[str, bytes | None]] = [("a", b"b")] * 5
    ((_, read),) = read_batches(batch_of([(b"k", None, five), (None, b"v", five)]))
    assert [len(each.headers) for each in read] == [5, 5]
    with pytest.raises(KafkaError, match="a batch has more than 10 headers") as raised:
        list(read_batches(batch_of([(b"k", None, five), (None, b"v", [*five, ("a", None)])])))
    assert raised.value.code == KafkaCode.MESSAGE_TOO_LARGE


def test_headers_are_counted_before_they_are_read() -> None:
    """The record says that it has 2**20 headers, and has none: to read them would be an error of its own."""
    record = bytes.fromhex("00 00 00 01 01") + b"\x80\x80\x80\x01"
    data = batch_of([(None, None, [])])[:61] + bytes([len(record) * 2]) + record
    with pytest.raises(KafkaError, match="a batch has more than 200000 headers"):
        list(read_batches(with_checksum(data, 0)))


@given(st.binary(max_size=300))
def test_any_bytes_are_batches_or_a_kafka_error(data: bytes) -> None:
    read_or_refused(data)


@given(st.binary(max_size=300), st.sampled_from([0, *CODECS, 7]), st.integers(0, 2**31 - 1))
def test_a_batch_with_any_records_is_read_or_a_kafka_error(
    body: bytes, codec: int, count: int
) -> None:
    """Its checksum is right, so that the records are looked at."""
    read_or_refused(
        with_checksum(batch_of([(None, b"", [])])[:57] + count.to_bytes(4, "big") + body, codec)
    )


def read_or_refused(data: bytes) -> None:
    with suppress(KafkaError):
        for _, read in read_batches(data):
            assert read


@pytest.mark.parametrize("codec", CODECS)
def test_a_compressed_batch_that_is_cut_off_is_refused(codec: int) -> None:
    data = compressed(bytes(range(256)) * 9, codec)
    with pytest.raises(KafkaError, match="a batch of records cannot be read: "):
        list(read_batches(with_checksum(data[:-3], codec)))
