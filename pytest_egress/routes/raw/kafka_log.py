"""`KafkaLog`: the topics of a broker, with their records.

Threads: the connections of a broker share its log. The lock guards everything, and is the innermost one.
Who appends what clients produce holds `appending`, outside of the ledger's lock, from before a batch is read: so a
record has its offset before it is a call, and no two batches are in memory without their compression.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final, NamedTuple

from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError
from pytest_egress.traffic.kafka.records import StoredRecord

MAX_LOG_BYTES: Final = 64 << 20
"""The most that a partition keeps for consumers. Its oldest records are dropped then, as a broker does in time."""

MAX_PARTITIONS: Final = 1000  # of a topic
MAX_TOPICS: Final = 10_000  # of one broker
MAX_PRODUCERS: Final = 10_000  # whose last batches are remembered, each for a partition
MAX_REMEMBERED: Final = 5  # batches of a producer: as many as may wait for their responses

PRODUCERS: Final = count(1)
"""The IDs of producers: a client that is kept from an earlier broker of this process has none that is given again."""

Producer = tuple[int, int, str, int]
"""The ID and the epoch of a producer, with the topic and the partition, for which it numbers its batches."""


class Sent(NamedTuple):
    """A batch that was taken: its sequence number, the digest of its records, and the offset that it has got."""

    sequence: int
    digest: bytes
    offset: int


@dataclass(kw_only=True)
class Partition:
    """Its records begin at the offset `start`."""

    records: list[StoredRecord] = field(default_factory=list)
    start: int = 0
    size: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.records)


class Slice(NamedTuple):
    """Some records of a partition, and where it begins and ends; None for an offset that is not there."""

    records: list[StoredRecord] | None
    start: int
    end: int


class KafkaLog:
    """`partitions` is how many each topic has."""

    def __init__(self, partitions: int) -> None:
        self.partitions: Final = partitions
        self._lock = threading.Lock()
        self.appending: Final = (
            threading.Lock()
        )  # held from the choice of an offset on; outside of `_lock`
        self._topics: dict[str, list[Partition]] = {}
        self._appended: dict[Producer, deque[Sent]] = {}

    @property
    def topics(self) -> list[str]:
        with self._lock:
            return list(self._topics)

    def has(self, partition: int) -> bool:
        return 0 <= partition < self.partitions

    def new_producer(self) -> int:
        return next(PRODUCERS)

    def append(self, topic: str, partition: int, records: Sequence[StoredRecord]) -> int:
        """Add records, and return the offset of the first."""
        with self._lock:
            to = self._of(topic)[partition]
            offset = to.end
            to.records.extend(records)
            to.size += sum(record.size for record in records)
            dropped = 0
            while to.size > MAX_LOG_BYTES and dropped < len(to.records) - 1:
                to.size -= to.records[dropped].size
                dropped += 1
            del to.records[:dropped]
            to.start += dropped
            return offset

    def end(self, topic: str, partition: int) -> int:
        with self._lock:
            return self._of(topic)[partition].end

    def read(self, topic: str, partition: int, offset: int, most: int) -> Slice:
        """Read from an offset on so many bytes, and at least one record where there is one."""
        with self._lock:
            of = self._topics[topic][partition] if topic in self._topics else Partition()
            if not of.start <= offset <= of.end:
                return Slice(None, of.start, of.end)
            found: list[StoredRecord] = []
            for index in range(offset - of.start, len(of.records)):
                record = of.records[index]
                most -= record.size
                if found and most < 0:
                    break
                found.append(record)
            return Slice(found, of.start, of.end)

    def offset_at(self, topic: str, partition: int, timestamp: int) -> tuple[int, int]:
        """The offset and the timestamp of the first record that is not older; -1 for both where there is none."""
        with self._lock:
            of = self._topics[topic][partition] if topic in self._topics else Partition()
            for index, record in enumerate(of.records):
                if record.timestamp >= timestamp:
                    return of.start + index, record.timestamp
            return -1, -1

    # An idempotent producer sends a batch again whose response it has not got.

    def offset_of(self, producer: Producer, sequence: int, digest: bytes) -> int | None:
        """The offset that a batch of a producer has got which is sent again; None for a new one.

        Raises:
            KafkaError: Another batch had its sequence number.
        """
        with self._lock:
            for sent in self._appended.get(producer, ()):
                if sent.sequence == sequence:
                    if sent.digest != digest:
                        raise renumbered(producer, sequence)
                    return sent.offset
            return None

    def remember(self, producer: Producer, sequence: int, digest: bytes, offset: int) -> None:
        with self._lock:
            last = self._appended.pop(producer, None) or deque(maxlen=MAX_REMEMBERED)
            last.append(Sent(sequence, digest, offset))
            self._appended[producer] = last
            while len(self._appended) > MAX_PRODUCERS:
                del self._appended[next(iter(self._appended))]

    def _of(self, topic: str) -> list[Partition]:
        if topic not in self._topics:
            if len(self._topics) >= MAX_TOPICS:
                raise KafkaError(f"kafka() keeps {MAX_TOPICS} topics, and more are written")
            self._topics[topic] = [Partition() for _ in range(self.partitions)]
        return self._topics[topic]


def renumbered(producer: Producer, sequence: int) -> KafkaError:
    return KafkaError(
        f"a batch of producer {producer[0]} has the sequence number {sequence}, as another one had, and has other "
        "records: its client has the producer's ID from another broker, or numbers batches wrongly",
        KafkaCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    )
