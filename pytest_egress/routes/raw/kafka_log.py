"""`KafkaLog`: the topics of a broker, with their records.

Threads: the connections of a broker share its log. The lock guards everything, and is the innermost one.
Who appends what clients produce holds `appending`, outside of the ledger's lock, so that a record has its offset before
it is a call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from pytest_egress.traffic.kafka.codes import KafkaError
from pytest_egress.traffic.kafka.records import StoredRecord

MAX_LOG_BYTES: Final = 64 << 20
"""The most that a partition keeps for consumers. Its oldest records are dropped then, as a broker does in time."""

MAX_TOPICS: Final = 10_000  # of one broker
MAX_PRODUCERS: Final = 10_000  # whose last batches are remembered, each for a partition


@dataclass(kw_only=True)
class Partition:
    """Its records begin at the offset `start`."""

    records: deque[StoredRecord] = field(default_factory=deque)
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
        self._appended: dict[tuple[int, int, str, int], tuple[int, int]] = {}
        self._producers = 0

    @property
    def topics(self) -> list[str]:
        with self._lock:
            return list(self._topics)

    def has(self, partition: int) -> bool:
        return 0 <= partition < self.partitions

    def new_producer(self) -> int:
        with self._lock:
            self._producers += 1
            return self._producers

    def append(self, topic: str, partition: int, records: Sequence[StoredRecord]) -> int:
        """Add records, and return the offset of the first."""
        with self._lock:
            to = self._of(topic)[partition]
            offset = to.end
            to.records.extend(records)
            to.size += sum(record.size for record in records)
            while to.size > MAX_LOG_BYTES and len(to.records) > 1:
                to.size -= to.records.popleft().size
                to.start += 1
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
            for record in islice(of.records, offset - of.start, None):
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

    def offset_of(self, producer: tuple[int, int, str, int], sequence: int) -> int | None:
        """The offset that the last batch of a producer has got, where it began with this sequence number."""
        with self._lock:
            last = self._appended.get(producer)
            return last[1] if last is not None and last[0] == sequence else None

    def remember(self, producer: tuple[int, int, str, int], sequence: int, offset: int) -> None:
        with self._lock:
            self._appended[producer] = (sequence, offset)
            while len(self._appended) > MAX_PRODUCERS:
                del self._appended[next(iter(self._appended))]

    def _of(self, topic: str) -> list[Partition]:
        if topic not in self._topics:
            if len(self._topics) >= MAX_TOPICS:
                raise KafkaError(f"kafka() keeps {MAX_TOPICS} topics, and more are written")
            self._topics[topic] = [Partition() for _ in range(self.partitions)]
        return self._topics[topic]
