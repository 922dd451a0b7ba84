"""`kafka()`: a broker that records what is produced and serves what a test declares, as the answer of a raw route.

The rule: each produced record is a call of the route, and takes one of its turns; a connection is none, and takes none.
The libraries of the extra are imported when `kafka()` is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_egress.base.clock import wall
from pytest_egress.routes.answers import Desk, Service
from pytest_egress.routes.raw.kafka_groups import Groups
from pytest_egress.routes.raw.kafka_log import MAX_PARTITIONS, KafkaLog
from pytest_egress.traffic.entries import KafkaRecord
from pytest_egress.traffic.kafka.records import ProducedRecord, declared

INSTALL: Final = "pip install 'pytest-egress[kafka]'"


def kafka(
    records: Mapping[str, Sequence[Any]] | None = None, *, partitions: int = 1
) -> KafkaBroker:
    """Be a Kafka broker, as the answer of `intercept_tcp`, or of `intercept_tls`.

    Each record that is produced is a call of the route, a `KafkaRecord`: its topic, key, value and headers. So `times=`
    and `sequence()` count records, however many come in one batch; a connection without one is no call.

    Every topic exists. It has what `records` declares, and then what is produced, which consumers get, alone and in
    groups. The broker tells clients the host and port that they dialled as its own. Any login (SASL PLAIN,
    OAUTHBEARER) is accepted. Compression is gzip, snappy, lz4 or zstd. There are no transactions, and no requests of
    administration: one that is sent fails the test. It needs `pip install 'pytest-egress[kafka]'`.

    Args:
        records: The records of topics, by topic. Each is a value, `(key, value)` or `(key, value, headers)`; a value
            and a key are bytes, a str, a dict or list that is sent as JSON, or None. They are spread over the
            partitions in turn.
        partitions: How many partitions each topic has.

    Raises:
        ImportError: The extra is not installed.
        TypeError, ValueError: An argument is of another shape; the text quotes it.
    """
    try:
        import pytest_egress.traffic.kafka.batches  # noqa: F401
    except ImportError as error:
        raise ImportError(f"kafka() needs kafka-python and cramjam ({error}): {INSTALL}") from error
    if type(partitions) is not int or not 1 <= partitions <= MAX_PARTITIONS:
        raise ValueError(f"kafka(partitions={partitions!r}): it is a number, 1 to {MAX_PARTITIONS}")
    log, now = KafkaLog(partitions), int(wall() * 1000)
    for topic, given in checked({} if records is None else records):
        log.append(topic, 0, [])  # a topic without records is there too
        for index, each in enumerate(given):
            log.append(topic, index % partitions, [declared(each, now)])
    return KafkaBroker(log)


def checked(records: object) -> Iterator[tuple[str, Sequence[Any]]]:
    if not isinstance(records, Mapping):
        raise TypeError(f"kafka({records!r}): it takes records by topic: {EXAMPLE}")
    for topic, given in records.items():
        if not isinstance(topic, str) or not isinstance(given, (list, tuple)):
            raise TypeError(
                f"kafka({{{topic!r}: {given!r}}}): it takes a list of records for each topic: {EXAMPLE}"
            )
        yield topic, given


EXAMPLE: Final = 'kafka({"orders": [{"id": 1}, ("key", b"value")]})'


class KafkaBroker(Service[KafkaRecord]):
    """The broker that `kafka()` returns: its topics are there for all connections of all routes that have it."""

    deliveries = ProducedRecord.kind
    none_came = "it produced no record"

    def __init__(self, log: KafkaLog) -> None:
        self._log, self._groups = log, Groups()

    def serve(self, sock: Any, name: str, port: int, desk: Desk) -> None:
        from pytest_egress.routes.raw.kafka_server import KafkaConnection

        KafkaConnection(sock, name, port, desk, self._log, self._groups).serve()

    def __repr__(self) -> str:
        return "kafka()"
