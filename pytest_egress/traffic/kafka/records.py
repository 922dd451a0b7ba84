"""Records of Kafka as values: those that a test declares, and those that a client produced.

The rule: this module needs no library of Kafka, so that every run can import it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pytest_egress.base.account import OBJECT_BYTES

RecordHeaders = tuple[tuple[str, "bytes | None"], ...]

DECLARED: Final = (
    "a value, (key, value) or (key, value, headers). A value and a key are bytes, a str, a dict or list that is sent "
    "as JSON, or None; headers are a dict of bytes or str"
)
"""What `kafka(records=...)` takes for a record."""


@dataclass(frozen=True, kw_only=True)
class StoredRecord:
    """A record as a topic keeps it; `timestamp` is in milliseconds since the epoch."""

    key: bytes | None
    value: bytes | None
    headers: RecordHeaders
    timestamp: int

    @property
    def size(self) -> int:
        """As an `Account` counts memory."""
        named = sum(len(name) + len(value or b"") + OBJECT_BYTES for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + named + OBJECT_BYTES


@dataclass(frozen=True, kw_only=True)
class ProducedRecord:
    """A record as a client produced it."""

    topic: str
    partition: int
    offset: int
    record: StoredRecord
    client_id: str = ""  # that its producer calls itself
    user: str | None = None  # the name that the client had logged in with, or None
    kind: ClassVar = "Kafka records"

    @property
    def size(self) -> int:
        return self.record.size

    @property
    def fields(self) -> dict[str, Any]:
        """What an entry of the ledger has of it."""
        record = self.record
        own = {"topic": self.topic, "partition": self.partition, "offset": self.offset}
        own |= {"key": record.key, "value": record.value, "headers": record.headers}
        return own | {"timestamp": record.timestamp, "client_id": self.client_id}


def declared(given: object, timestamp: int) -> StoredRecord:
    """A record that a test declares; TypeError for what is none, which quotes it and lists what is accepted."""
    key, value, headers = parts(given)
    try:
        named = tuple((name, as_bytes(each)) for name, each in headers.items())
        return StoredRecord(
            key=as_bytes(key), value=as_bytes(value), headers=named, timestamp=timestamp
        )
    except (TypeError, ValueError) as error:
        raise TypeError(f"kafka(records=...): {given!r}: {error}. A record is {DECLARED}") from None


def parts(given: object) -> tuple[object, object, Mapping[str, object]]:
    if not isinstance(given, tuple):
        return None, given, {}
    if len(given) == 2:
        return given[0], given[1], {}
    headers = given[2] if len(given) == 3 else None
    if isinstance(headers, dict) and all(isinstance(name, str) for name in headers):
        return given[0], given[1], headers
    raise TypeError(f"kafka(records=...): {given!r} is no record: it is {DECLARED}")


def as_bytes(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (dict, list)):
        return json.dumps(value).encode()
    raise TypeError(f"{value!r} is no bytes, str, dict, list or None")
