"""Requests of Kafka as bytes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.kafka.codes import KafkaError
from pytest_egress.traffic.kafka.wire import (
    HEAD,
    MAX_QUESTION_BYTES,
    VERSIONS,
    KafkaFrames,
    name_of,
    parse,
    request_class,
    response_class,
    serialized,
)
from tests.support.kafka_client import produce_fields, request_bytes


def test_requests_may_come_in_any_pieces() -> None:
    data = request_bytes("ApiVersions", 3) + request_bytes("ApiVersions", 0)
    whole = KafkaFrames()
    whole.feed(data)
    expected = [whole.next(), whole.next(), whole.next()]
    frames, found = KafkaFrames(), []
    for position in range(len(data)):
        frames.feed(data[position : position + 1])
        found += [frame] if (frame := frames.next()) is not None else []
    assert [*found, None] == expected
    assert frames.size == 0


@given(st.binary(max_size=100))
def test_any_bytes_are_a_request_or_ask_for_more_or_are_a_kafka_error(data: bytes) -> None:
    frames = KafkaFrames()
    frames.feed(data)
    with suppress(KafkaError):
        while (frame := frames.next()) is not None:
            parse(frame)


@given(st.sampled_from(sorted(VERSIONS)), st.integers(0, 9), st.binary(max_size=100))
def test_a_request_with_any_body_is_read_or_is_a_kafka_error(
    api: str, version: int, body: bytes
) -> None:
    head = HEAD.pack(request_class(api).API_KEY, version, 1)
    with suppress(KafkaError):
        assert parse(head + b"\0\1c" + b"\0" * (version > 2) + body).api == api


@pytest.mark.parametrize(
    ("api", "version"),
    [(api, v) for api, (low, high) in VERSIONS.items() for v in range(low, high + 1)],
)
def test_each_version_that_is_offered_can_be_read_and_answered(api: str, version: int) -> None:
    fields = produce_fields("t", None) if api == "Produce" else {}
    request = parse(request_bytes(api, version, **fields)[4:])
    assert (request.api, request.version, request.client_id) == (api, version, "test")
    sent = serialized(request, request.response())
    told = response_class(api).decode(sent[4:], version=version, header=True)
    assert told.header.correlation_id == 7


def test_a_question_that_is_too_long_is_refused() -> None:
    frame = HEAD.pack(3, 9, 1) + bytes(MAX_QUESTION_BYTES)
    with pytest.raises(KafkaError, match=r"a request of Metadata, version 9, has \d+ bytes"):
        parse(frame)


def test_a_request_of_more_than_16_mib_is_refused_by_its_length() -> None:
    frames = KafkaFrames()
    frames.feed((16 << 20).to_bytes(4, "big"))
    assert frames.next() is None
    frames = KafkaFrames()
    frames.feed(((16 << 20) + 1).to_bytes(4, "big"))
    with pytest.raises(
        KafkaError, match=r"a request of 16777217 bytes begins, and kafka\(\) takes 16777216"
    ):
        frames.next()


def test_a_request_is_told_by_its_name_or_its_number() -> None:
    assert (name_of(0), name_of(999)) == ("Produce", "key 999")
