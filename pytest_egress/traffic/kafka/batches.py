"""Batches of records (Kafka's message format 2): read from what a client produces, and made for what it fetches.

kafka-python reads and writes the records. It would decompress a batch to any size, so each batch is decompressed here
first, into at most `MAX_BATCH_BYTES`, by cramjam, which has the four codecs in one wheel; kafka-python then gets it as
one that is not compressed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import cramjam

from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError
from pytest_egress.traffic.kafka.library import (
    DefaultRecordBatch,
    DefaultRecordBatchBuilder,
    MemoryRecords,
    decode_varint,
)
from pytest_egress.traffic.kafka.records import StoredRecord

MAX_BATCH_BYTES: Final = (
    64 << 20
)  # of one batch without compression: 64 times what a broker takes by default
MAX_RECORDS: Final = (
    200_000  # of one batch, and of its headers: the smallest have 7 bytes, and compress to nothing
)
FIRST_GUESS: Final = 8  # times a compressed batch, for its size without compression

HEADER: Final = DefaultRecordBatch.HEADER_STRUCT
PREFIX: Final = struct.Struct(">qi")  # the offset and the length, of every format
MAGIC_AT: Final = 16
ATTRIBUTES_AT: Final = 21
TIMES_AT: Final = 27  # timestamps, the producer's numbers and the records, up to the end

XERIAL: Final = b"\x82SNAPPY\0"
"""Begins what Java's clients compress by snappy: 8 more bytes, and then blocks, each behind its length."""
XERIAL_HEADER_BYTES: Final = 16


class BatchHead(NamedTuple):
    """What is told of a batch beside its records; `digest` is of these, with their producer and its numbers."""

    base_offset: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    digest: bytes


Codec = Callable[[bytes], "bytes | bytearray"]


def read_batches(data: bytes) -> Iterator[tuple[BatchHead, list[StoredRecord]]]:
    """Yield each batch, with its producer's ID and sequence, and its records.

    Raises:
        KafkaError: A batch cannot be read, or is of a transaction; its `code` is for the client.
    """
    position = 0
    while position < len(data):
        batch = data[position : position + batch_size(data, position)]
        position += len(batch)
        yield read_batch(batch)


def batch_size(data: bytes, position: int) -> int:
    if len(data) - position < HEADER.size:
        raise KafkaError(
            f"a batch of records is cut off after {len(data) - position} bytes",
            KafkaCode.CORRUPT_MESSAGE,
        )
    size = PREFIX.size + int(PREFIX.unpack_from(data, position)[1])
    if data[position + MAGIC_AT] < 2:
        raise KafkaError(
            "a batch is in a message format from before Kafka 0.11, which kafka() does not read",
            KafkaCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        )
    if not HEADER.size <= size <= len(data) - position:
        raise KafkaError(
            f"a batch of records says that it has {size} bytes, and {len(data) - position} came",
            KafkaCode.CORRUPT_MESSAGE,
        )
    return size


def read_batch(data: bytes) -> tuple[BatchHead, list[StoredRecord]]:
    try:
        batch = MemoryRecords(data).next_batch()
        if not batch.validate_crc():
            raise KafkaError("the checksum of a batch is wrong", KafkaCode.CORRUPT_MESSAGE)
        if batch.is_transactional or batch.is_control_batch:
            raise KafkaError(
                "a batch is of a transaction, which kafka() does not have",
                KafkaCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            )
        if batch.records_count > MAX_RECORDS:
            raise KafkaError(
                f"a batch has {batch.records_count} records, and kafka() takes {MAX_RECORDS}",
                KafkaCode.MESSAGE_TOO_LARGE,
            )
        if batch.compression_type:
            data = uncompressed(data, batch.compression_type)
            batch = DefaultRecordBatch(data)
        check_headers(data, batch.records_count)
        records = [stored(record) for record in batch]
    except KafkaError:
        raise
    except Exception as error:  # the library raises what it likes for malformed records
        raise KafkaError(
            f"a batch of records cannot be read: {error}", KafkaCode.CORRUPT_MESSAGE
        ) from error
    if not records:
        raise KafkaError("a batch has no records", KafkaCode.CORRUPT_MESSAGE)
    return head_of(batch, data), records


def head_of(batch: Any, data: bytes) -> BatchHead:
    """`data` is the batch without compression, so that it has the same digest however its client compresses it."""
    has_id = batch.producer_id >= 0
    return BatchHead(
        base_offset=batch.base_offset,
        producer_id=batch.producer_id,
        producer_epoch=batch.producer_epoch,
        base_sequence=batch.base_sequence,
        digest=hashlib.sha256(memoryview(data)[TIMES_AT:]).digest() if has_id else b"",
    )


def check_headers(data: bytes, records: int) -> None:
    """Count the headers of a batch that is not compressed, since the library makes objects of any number of them."""
    position, headers = HEADER.size, 0
    for _ in range(records):
        size, start = decode_varint(data, position)
        position = start + size
        for _ in ("attributes", "time", "offset"):
            _, start = decode_varint(data, start)
        for _ in ("key", "value"):
            size, start = decode_varint(data, start)
            start += max(size, 0)
        headers += max(decode_varint(data, start)[0], 0)
        if headers > MAX_RECORDS:
            raise KafkaError(
                f"a batch has more than {MAX_RECORDS} headers", KafkaCode.MESSAGE_TOO_LARGE
            )


def stored(record: Any) -> StoredRecord:
    return StoredRecord(
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        timestamp=record.timestamp,
    )


def uncompressed(data: bytes, codec: int) -> bytes:
    """The batch as its client would have sent it without compression; only its checksum is not adapted."""
    if codec not in CODECS:
        raise KafkaError(
            f"a batch has compression {codec}, and Kafka has 1 to 4",
            KafkaCode.UNSUPPORTED_COMPRESSION_TYPE,
        )
    head = bytearray(data[: HEADER.size])
    head[ATTRIBUTES_AT + 1] &= ~DefaultRecordBatch.CODEC_MASK & 0xFF
    return bytes(head) + CODECS[codec](data[HEADER.size :])


def bounded(decompress_into: Callable[[bytes, bytearray], int]) -> Codec:
    """Decompress into a buffer that grows up to the limit."""

    def decompress(data: bytes) -> bytes:
        size = min(max(len(data) * FIRST_GUESS, 4096), MAX_BATCH_BYTES)
        while True:
            buffer = bytearray(size)
            try:
                return bytes(memoryview(buffer)[: decompress_into(data, buffer)])
            except cramjam.DecompressionError as error:
                if "whole buffer" not in str(error):
                    raise
            if size == MAX_BATCH_BYTES:
                raise KafkaError(TOO_LARGE, KafkaCode.MESSAGE_TOO_LARGE)
            size = min(size * FIRST_GUESS, MAX_BATCH_BYTES)

    return decompress


TOO_LARGE: Final = f"a batch has more than {MAX_BATCH_BYTES} bytes without its compression"


def decompress_snappy(data: bytes) -> bytes:
    if not data.startswith(XERIAL):
        return decompress_block(data)
    blocks, position = bytearray(), XERIAL_HEADER_BYTES
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        blocks += decompress_block(data[position + 4 : position + 4 + size], len(blocks))
        position += 4 + size
    return bytes(blocks)


def decompress_block(block: bytes, already: int = 0) -> bytes:
    if cramjam.snappy.decompress_raw_len(block) > MAX_BATCH_BYTES - already:
        raise KafkaError(TOO_LARGE, KafkaCode.MESSAGE_TOO_LARGE)
    return bytes(cramjam.snappy.decompress_raw(block))


CODECS: Final[dict[int, Codec]] = {
    1: bounded(cramjam.gzip.decompress_into),
    2: decompress_snappy,
    3: bounded(cramjam.lz4.decompress_into),
    4: bounded(cramjam.zstd.decompress_into),
}
"""What decompresses a batch, by the last three bits of its attributes."""


def make_batch(offset: int, records: Sequence[StoredRecord]) -> bytes:
    """A batch of records, not compressed, whose first one has this offset."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=MAX_BATCH_BYTES,
    )
    for index, record in enumerate(records):
        builder.append(index, record.timestamp, record.key, record.value, list(record.headers))
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, offset)  # which the checksum does not cover
    return bytes(batch)
