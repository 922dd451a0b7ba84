"""The errors of Kafka's protocol, and `KafkaError`, by which a request is refused."""

from __future__ import annotations

from enum import IntEnum


class KafkaCode(IntEnum):
    """The errors that a response tells (https://kafka.apache.org/protocol#protocol_error_codes)."""

    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    OFFSET_METADATA_TOO_LARGE = 12
    ILLEGAL_GENERATION = 22
    UNKNOWN_MEMBER_ID = 25
    REBALANCE_IN_PROGRESS = 27
    UNSUPPORTED_SASL_MECHANISM = 33
    UNSUPPORTED_VERSION = 35
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    POLICY_VIOLATION = 44
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    UNSUPPORTED_COMPRESSION_TYPE = 76
    INVALID_RECORD = 87


class KafkaError(ValueError):
    """A request that cannot be answered; `code` is what its client is told where it gets a response."""

    def __init__(self, text: str, code: KafkaCode = KafkaCode.INVALID_RECORD) -> None:
        super().__init__(text)
        self.code = code
