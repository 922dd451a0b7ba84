"""A client of Kafka that sends one request at a time, as kafka-python's classes have it, and reads the response."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import cramjam
from kafka.record.util import calc_crc32c

from pytest_egress.traffic.kafka.library import DefaultRecordBatchBuilder
from pytest_egress.traffic.kafka.wire import VERSIONS, request_class, response_class
from tests.support.stage import SECONDS

Record = tuple["bytes | None", "bytes | None", "list[tuple[str, bytes | None]]"]


class KafkaClient:
    """`sock` is connected to a broker."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(SECONDS)

    def send(self, api: str, *, version: int | None = None, **fields: Any) -> int:
        """The version that was sent."""
        version = VERSIONS[api][1] if version is None else version
        self.sock.sendall(request_bytes(api, version, **fields))
        return version

    def ask(self, api: str, *, version: int | None = None, **fields: Any) -> Any:
        version = self.send(api, version=version, **fields)
        return response_class(api).decode(self.read(), version=version, header=True)

    def read(self) -> bytes:
        return self.exactly(struct.unpack(">i", self.exactly(4))[0])

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            assert piece, f"closed after {data!r}"
            data += piece
        return data

    def produce(self, topic: str, batch: bytes, *, partition: int = 0, acks: int = -1) -> Any:
        """The response for the partition; None where `acks` is 0."""
        fields = produce_fields(topic, batch, partition=partition, acks=acks)
        if acks == 0:
            self.send("Produce", **fields)
            return None
        return self.ask("Produce", **fields).responses[0].partition_responses[0]

    def fetch(self, topic: str, offset: int, *, partition: int = 0, wait: int = 0) -> Any:
        """The response for the partition."""
        kind = request_class("Fetch").FetchTopic
        part = kind.FetchPartition(
            version=11, partition=partition, fetch_offset=offset, partition_max_bytes=1 << 20
        )
        topics = [kind(version=11, topic=topic, partitions=[part])]
        told = self.ask(
            "Fetch",
            replica_id=-1,
            max_wait_ms=wait,
            min_bytes=1,
            topics=topics,
            forgotten_topics_data=[],
        )
        return told.responses[0].partitions[0]


def request_bytes(api: str, version: int, **fields: Any) -> bytes:
    request = request_class(api)(version=version, **fields)
    request.with_header(correlation_id=7, client_id="test")
    return bytes(request.encode(version=version, header=True, framed=True))


def produce_fields(
    topic: str, batch: bytes | None, *, partition: int = 0, acks: int = -1
) -> dict[str, Any]:
    kind = request_class("Produce").TopicProduceData
    part = kind.PartitionProduceData(version=9, index=partition, records=batch)
    data = [kind(version=9, name=topic, partition_data=[part])]
    return {"transactional_id": None, "acks": acks, "timeout_ms": 1000, "topic_data": data}


def batch_of(
    records: Sequence[Record], *, codec: int = 0, producer: tuple[int, int] = (-1, -1), **more: Any
) -> bytes:
    """A batch as a producer makes it; `producer` is its ID and the sequence number of the first record."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=more.get("is_transactional", False),
        producer_id=producer[0],
        producer_epoch=0,
        base_sequence=producer[1],
        batch_size=1 << 24,
    )
    for index, (key, value, headers) in enumerate(records):
        builder.append(index, 1_700_000_000_000 + index, key, value, headers)
    return bytes(builder.build())


def compressed(value: bytes, codec: int) -> bytes:
    """A batch with one record, compressed as Java's clients do."""
    plain = batch_of([(None, value, [])])
    head, body = plain[:61], plain[61:]
    codecs: dict[int, Callable[[bytes], Any]] = {
        1: cramjam.gzip.compress,
        2: lambda data: xerial(bytes(data)),
        3: cramjam.lz4.compress,
        4: cramjam.zstd.compress,
    }
    packed = codecs[codec](body)
    return with_checksum(head + bytes(packed), codec)


def with_checksum(data: bytes, codec: int) -> bytes:
    """A batch whose length, codec and checksum are right."""
    head = bytearray(data)
    head[8:12] = (len(data) - 12).to_bytes(4, "big")
    head[22] = head[22] & ~7 | codec
    head[17:21] = calc_crc32c(head[21:]).to_bytes(4, "big")
    return bytes(head)


def xerial(data: bytes) -> bytes:
    """Blocks of snappy behind their lengths."""
    blocks = [data[start : start + 32768] for start in range(0, len(data), 32768)]
    packed = (bytes(cramjam.snappy.compress_raw(block)) for block in blocks)
    sized = b"".join(len(each).to_bytes(4, "big") + each for each in packed)
    return b"\x82SNAPPY\0\0\0\0\1\0\0\0\1" + sized
