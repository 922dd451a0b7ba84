"""Requests and responses of Kafka's protocol, by the classes that kafka-python makes of Kafka's own schemas.

The rule: what cannot be read raises `KafkaError`, and nothing else; it names the request.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError
from pytest_egress.traffic.kafka.library import ApiKey, consumer, metadata, producer, sasl
from pytest_egress.traffic.shown import shown

MAX_REQUEST_BYTES: Final = 16 << 20  # 16 times what a producer sends by default
MAX_OF_KAFKA: Final = 100 << 20  # Kafka's socket.request.max.bytes: what is longer is no request
MAX_QUESTION_BYTES: Final = 1 << 20  # of a request without records
HEAD: Final = struct.Struct(">hhi")  # key, version and correlation ID begin every request
SIZE: Final = struct.Struct(">i")
MAX_CLIENT_ID: Final = 100  # characters of it that are kept

VERSIONS: Final[Mapping[str, tuple[int, int]]] = {
    "Produce": (
        0,
        9,
    ),  # from 0: librdkafka takes a broker without it for one that has no compression
    "Fetch": (0, 11),
    "ListOffsets": (1, 6),
    "Metadata": (0, 9),
    "OffsetCommit": (2, 8),
    "OffsetFetch": (1, 7),
    "FindCoordinator": (0, 3),
    "JoinGroup": (0, 7),
    "Heartbeat": (0, 4),
    "LeaveGroup": (0, 4),
    "SyncGroup": (0, 5),
    "SaslHandshake": (0, 1),
    "ApiVersions": (0, 3),
    "InitProducerId": (0, 4),
    "SaslAuthenticate": (0, 2),
}
"""The requests that are answered, and their versions: the newest that name topics, and not their IDs."""


@dataclass(frozen=True, kw_only=True)
class KafkaRequest:
    """A request; `body` is kafka-python's object, with fields of the names in Kafka's schemas, in snake_case."""

    api: str
    version: int
    correlation_id: int
    client_id: str
    body: Any

    def response(self, **fields: Any) -> Any:
        """Kafka-python's object of the response, whose fields have their defaults where they are not given."""
        return response_class(self.api)(version=self.version, **fields)


class KafkaFrames:
    """Cuts the bytes of a connection into requests."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        self._data += data

    @property
    def size(self) -> int:
        return len(self._data)

    def next(self) -> bytes | None:
        """The next request without its length; None where it has not come whole.

        Raises:
            KafkaError: It is too long; or its length is none that Kafka takes, as where the client speaks another
                protocol.
        """
        if len(self._data) < SIZE.size:
            return None
        (size,) = SIZE.unpack_from(self._data)
        if MAX_REQUEST_BYTES < size <= MAX_OF_KAFKA:
            raise KafkaError(
                f"a request of {size} bytes begins, and kafka() takes {MAX_REQUEST_BYTES}"
            )
        if not HEAD.size <= size <= MAX_REQUEST_BYTES:
            raise KafkaError(
                f"the client does not speak Kafka's protocol, or not in the clear: a request begins with "
                f"{shown(bytes(self._data[: SIZE.size]))}, which as its length is {size} bytes"
            )
        if len(self._data) < SIZE.size + size:
            return None
        frame = bytes(self._data[SIZE.size : SIZE.size + size])
        del self._data[: SIZE.size + size]
        return frame


def parse(frame: bytes) -> KafkaRequest:
    """Read a request. One of ApiVersions in a version that is too new has no `body`, and the version 0 to answer in.

    Raises:
        KafkaError: It is none that is answered, or cannot be read.
    """
    key, version, correlation_id = HEAD.unpack_from(frame)
    api = name_of(key)
    low, high = VERSIONS.get(api, (0, -1))
    told = f"a request of {api}, version {version}"
    if api != "Produce" and len(frame) > MAX_QUESTION_BYTES:
        raise KafkaError(f"{told}, has {len(frame)} bytes, and kafka() takes {MAX_QUESTION_BYTES}")
    if api == "ApiVersions" and version > high:
        return KafkaRequest(
            api=api, version=0, correlation_id=correlation_id, client_id="", body=None
        )
    if api not in VERSIONS:
        raise KafkaError(f"{told}, came, which kafka() does not answer. {ANSWERED}")
    if not low <= version <= high:
        raise KafkaError(f"{told}, came, and kafka() answers {api} of versions {low} to {high}")
    try:
        body = request_class(api).decode(frame, version=version, header=True)
        client_id = body.header.client_id or ""
    except Exception as error:  # the library raises what it likes for malformed requests
        raise KafkaError(f"{told}, cannot be read: {error}") from error
    return KafkaRequest(
        api=api,
        version=version,
        correlation_id=correlation_id,
        client_id=client_id[:MAX_CLIENT_ID],
        body=body,
    )


ANSWERED: Final = (
    "It answers producers and consumers; administration and transactions take a real broker: "
    "forward(container, 9092)"
)


def name_of(key: int) -> str:
    return ApiKey(key).name if key in {*ApiKey} else f"key {key}"


def serialized(request: KafkaRequest, response: Any) -> bytes:
    response.with_header(correlation_id=request.correlation_id)
    return bytes(response.encode(header=True, framed=True))


def request_class(api: str) -> Any:
    return class_of(f"{api}Request")


def response_class(api: str) -> Any:
    return class_of(f"{api}Response")


def class_of(name: str) -> Any:
    return next(getattr(m, name) for m in (producer, consumer, metadata, sasl) if hasattr(m, name))


def api_versions(request: KafkaRequest) -> Any:
    """The response to ApiVersions."""
    make = response_class("ApiVersions").ApiVersion
    keys = [
        make(
            version=request.version,
            api_key=ApiKey[api].value,
            min_version=low,
            max_version=high,
        )
        for api, (low, high) in VERSIONS.items()
    ]
    code = KafkaCode.UNSUPPORTED_VERSION if request.body is None else KafkaCode.NONE
    return request.response(error_code=code, api_keys=keys)
