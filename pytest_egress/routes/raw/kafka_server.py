"""`KafkaConnection`: answers the requests of one connection to `kafka()`, in their order.

What cannot be answered fails the test: by an error in the response where there is one, else by the connection's end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final, TypeVar

import pytest_egress.routes.raw.kafka_consumers as kafka_consumers
from pytest_egress.base.clock import LOOK_SECONDS, monotonic
from pytest_egress.base.polling import ENDED
from pytest_egress.base.sockets import READ_BYTES, await_ready
from pytest_egress.routes.answers import Desk, Receipt
from pytest_egress.routes.raw.kafka_groups import Groups
from pytest_egress.routes.raw.kafka_log import MAX_PARTITIONS, KafkaLog
from pytest_egress.traffic.kafka.batches import BatchHead, read_batches
from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError
from pytest_egress.traffic.kafka.records import ProducedRecord, StoredRecord
from pytest_egress.traffic.kafka.wire import (
    HEAD,
    KafkaFrames,
    KafkaRequest,
    api_versions,
    parse,
    response_class,
    serialized,
)
from pytest_egress.traffic.shown import shown

T = TypeVar("T")

NODE: Final = 1  # the ID of the one broker
MAX_TOLD: Final = 100_000  # partitions that a response describes
CORRELATED_BYTES: Final = HEAD.size  # the head of a request, which is a new one each time
NOT_KEPT: Final = frozenset({"Produce", "SaslAuthenticate"})
MECHANISMS: Final = ("PLAIN", "OAUTHBEARER")

REFUSALS: Final[Mapping[Receipt, str]] = {
    "used up": "the route for records has answered as often as it may",
    "no room": "no room for more records in this test",
}


class ElsewhereError(Exception):
    """The next record is for another connection, on which its client sends it again."""


class KafkaConnection:
    """`name` and `port` are those that the client dialled, and those of the broker, as clients are told."""

    def __init__(
        self, sock: Any, name: str, port: int, desk: Desk, log: KafkaLog, groups: Groups
    ) -> None:
        self.sock, self.name, self.port, self.desk = sock, name, port, desk
        self.log, self.groups = log, groups
        self.frames = KafkaFrames()
        self.user: str | None = None
        self.mechanism: str | None = None
        self.is_raw_login = False  # what follows SaslHandshake v0 is no request (KIP-152)
        self.members: set[tuple[str, str]] = set()  # the group and ID of those that joined here
        self.taken = 0  # records of the request that is answered
        self.fetched: dict[str, int] = {}  # how many records, by topic
        self.asked: dict[str, bytes] = {}  # the digest of the last request of each kind

    def serve(self) -> None:
        try:
            self.converse()
        except ElsewhereError:
            pass
        except KafkaError as error:
            self.desk.fail(error)
        finally:
            self.desk.has_room(0)
            for group, member in self.members:
                self.groups.leave(group, member)
            if self.frames.size:
                self.desk.note("", "end within a request, and are not kept")
            told = [f"{count} of {shown(topic)}" for topic, count in self.fetched.items()]
            if told:
                self.desk.note(f"it fetched {', '.join(told)}")

    def converse(self) -> None:
        while data := self.sock.recv(READ_BYTES):
            self.frames.feed(data)
            if not self.desk.has_room(self.frames.size):
                raise KafkaError("no room for more requests in this test")
            while (frame := self.frames.next()) is not None:
                response = self.answer(frame)
                self.desk.has_room(self.frames.size)
                if response:
                    self.sock.sendall(response)

    def answer(self, frame: bytes) -> bytes:
        """The bytes of the response; none where the client waits for none (`acks=0`)."""
        if self.is_raw_login:
            self.is_raw_login = False
            self.login(frame)
            return bytes(4)  # an empty message
        request = parse(frame)
        self.keep(request.api, frame)
        response = ANSWERS[request.api](self, request)
        return b"" if response is None else serialized(request, response)

    def keep(self, api: str, frame: bytes) -> None:
        """Keep a request, so that it is searched for what may not be sent; records are calls, and logins secret.

        One that is asked again and again, such as a heartbeat, is kept once.
        """
        if api in NOT_KEPT:
            return
        asked = sha256(memoryview(frame)[CORRELATED_BYTES:]).digest()
        if self.asked.get(api) != asked:
            self.asked[api] = asked
            self.desk.keep(frame)

    # Who the broker is, and who the client.

    def versions(self, request: KafkaRequest) -> Any:
        return api_versions(request)

    def metadata(self, request: KafkaRequest) -> Any:
        kind = response_class(request.api)
        asked = request.body.topics
        is_all = asked is None or (request.version == 0 and not asked)
        names = self.log.topics if is_all else [topic.name for topic in asked]
        if len(names) * self.log.partitions > MAX_TOLD:
            raise KafkaError(
                f"a request of Metadata asks for {len(names)} topics, which are too many"
            )
        broker = kind.MetadataResponseBroker(
            version=request.version, node_id=NODE, host=self.name, port=self.port, rack=None
        )
        return request.response(
            brokers=[broker],
            cluster_id="pytest-egress",
            controller_id=NODE,
            topics=[self.topic(kind, request.version, name) for name in names],
        )

    def topic(self, kind: Any, version: int, name: str) -> Any:
        make = kind.MetadataResponseTopic
        partitions = [
            make.MetadataResponsePartition(
                version=version,
                error_code=KafkaCode.NONE,
                partition_index=index,
                leader_id=NODE,
                replica_nodes=[NODE],
                isr_nodes=[NODE],
                offline_replicas=[],
            )
            for index in range(self.log.partitions)
        ]
        return make(version=version, error_code=KafkaCode.NONE, name=name, partitions=partitions)

    def coordinator(self, request: KafkaRequest) -> Any:
        if getattr(request.body, "key_type", 0) != 0:
            self.desk.fail(
                KafkaError(f"{NO_TRANSACTIONS} FindCoordinator asks for one's coordinator")
            )
        return request.response(
            error_code=KafkaCode.NONE, node_id=NODE, host=self.name, port=self.port
        )

    def sasl_handshake(self, request: KafkaRequest) -> Any:
        self.mechanism = request.body.mechanism
        code = KafkaCode.NONE
        if self.mechanism not in MECHANISMS:
            code = KafkaCode.UNSUPPORTED_SASL_MECHANISM
            self.desk.fail(
                KafkaError(
                    f"its client logs in by {shown(self.mechanism)}; kafka() takes logins by {' and '.join(MECHANISMS)}"
                )
            )
        self.is_raw_login = request.version == 0 and code == KafkaCode.NONE
        return request.response(error_code=code, mechanisms=list(MECHANISMS))

    def sasl_authenticate(self, request: KafkaRequest) -> Any:
        self.login(request.body.auth_bytes or b"")
        return request.response(error_code=KafkaCode.NONE, error_message=None, auth_bytes=b"")

    def login(self, said: bytes) -> None:
        """PLAIN is `authzid NUL name NUL password` (RFC 4616); of a token the name is not told."""
        if self.mechanism == "PLAIN" and said.count(b"\0") == 2:
            self.user = said.split(b"\0")[1].decode(errors="replace")

    def wait(self, look: Callable[[], T | None], seconds: float) -> T | None:
        """Return what `look` returns once that is not None; None after so many seconds, or when the client leaves."""
        until = monotonic() + seconds
        while (found := look()) is None and (left := until - monotonic()) > 0:
            if await_ready(self.sock, ENDED, min(left, LOOK_SECONDS)):
                break
        return found

    # Producers.

    def producer_id(self, request: KafkaRequest) -> Any:
        code, producer = KafkaCode.NONE, -1
        if request.body.transactional_id is not None:
            code = KafkaCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            self.desk.fail(
                KafkaError(
                    f"{NO_TRANSACTIONS} Its client begins {shown(request.body.transactional_id)}"
                )
            )
        else:
            producer = self.log.new_producer()
        return request.response(error_code=code, producer_id=producer, producer_epoch=0)

    def produce(self, request: KafkaRequest) -> Any:
        kind = response_class(request.api)
        self.taken, topics = 0, request.body.topic_data
        if request.body.transactional_id is not None or not all(
            topic.partition_data and all(part.records for part in topic.partition_data)
            for topic in topics
        ):
            self.desk.note("", BESIDE)
        make = kind.TopicProduceResponse
        responses = []
        for topic in topics:
            parts = []
            for part in topic.partition_data:
                code, offset, why = self.take(request, topic.name, part.index, part.records)
                parts.append(
                    make.PartitionProduceResponse(
                        version=request.version,
                        index=part.index,
                        error_code=code,
                        base_offset=offset,
                        log_start_offset=0,
                        record_errors=[],
                        error_message=why,
                    )
                )
            responses.append(
                make(version=request.version, name=topic.name, partition_responses=parts)
            )
        return request.response(responses=responses) if request.body.acks else None

    def take(
        self, request: KafkaRequest, topic: str, partition: int, data: bytes | None
    ) -> tuple[KafkaCode, int, str | None]:
        """The error, the offset of the first record, and why it is refused."""
        if not self.log.has(partition):
            self.desk.fail(KafkaError(self.absent(topic, partition)))
            return KafkaCode.UNKNOWN_TOPIC_OR_PARTITION, -1, None
        offsets = []
        try:
            with self.log.appending:
                for batch, records in read_batches(data or b""):
                    offsets.append(self.append(request, topic, partition, batch, records))
        except KafkaError as error:
            if error.code != KafkaCode.POLICY_VIOLATION:
                self.desk.fail(KafkaError(f"{error} (Produce, {shown(topic)})"))
            return error.code, -1, str(error)
        return KafkaCode.NONE, offsets[0] if offsets else -1, None

    def tell_rest(self, request: KafkaRequest, receipt: Receipt, behind: int) -> None:
        """Note what becomes of a request one record of which was not taken; so many are behind it in its batch."""
        is_elsewhere = receipt == "elsewhere"
        if is_elsewhere and self.taken:
            self.desk.note(
                f"the next answer was due at record {self.taken + 1} of a request: its client sends all of them "
                "again, and those before it are calls already"
            )
        parts = sum(len(topic.partition_data) for topic in request.body.topic_data)
        if behind or (is_elsewhere and parts > 1):
            self.desk.note("", "are in part in records behind one that was not taken")

    def absent(self, topic: str, partition: int) -> str:
        text = f"records for partition {partition} of {shown(topic)} came, and each topic has {self.log.partitions}"
        has_way = 0 <= partition < MAX_PARTITIONS
        return f"{text}: kafka(partitions={partition + 1}) has it" if has_way else text

    def append(
        self,
        request: KafkaRequest,
        topic: str,
        partition: int,
        batch: BatchHead,
        records: list[StoredRecord],
    ) -> int:
        producer = (batch.producer_id, batch.producer_epoch, topic, partition)
        is_numbered = batch.producer_id >= 0
        sent = batch.base_sequence, batch.digest
        if is_numbered and (known := self.log.offset_of(producer, *sent)) is not None:
            return known
        first = self.log.end(topic, partition)
        for offset, record in enumerate(records, first):
            receipt = self.desk.take(
                ProducedRecord(
                    topic=topic,
                    partition=partition,
                    offset=offset,
                    record=record,
                    client_id=request.client_id,
                    user=self.user,
                )
            )
            if receipt != "taken":
                self.tell_rest(request, receipt, first + len(records) - 1 - offset)
            if receipt == "elsewhere":
                raise ElsewhereError
            if receipt != "taken":
                raise KafkaError(REFUSALS[receipt], KafkaCode.POLICY_VIOLATION)
            self.taken += 1
        self.log.append(topic, partition, records)
        if is_numbered:
            self.log.remember(producer, *sent, first)
        return first


BESIDE: Final = "are in part in a request of Produce beside its records"
"""Why the records of a connection do not have all that it has sent."""

NO_TRANSACTIONS: Final = "kafka() has no transactions; a real broker has: forward(container, 9092)."

ANSWERS: Final[Mapping[str, Callable[[KafkaConnection, KafkaRequest], Any]]] = {
    "ApiVersions": KafkaConnection.versions,
    "Metadata": KafkaConnection.metadata,
    "FindCoordinator": KafkaConnection.coordinator,
    "SaslHandshake": KafkaConnection.sasl_handshake,
    "SaslAuthenticate": KafkaConnection.sasl_authenticate,
    "InitProducerId": KafkaConnection.producer_id,
    "Produce": KafkaConnection.produce,
    "Fetch": kafka_consumers.fetch,
    "ListOffsets": kafka_consumers.list_offsets,
    "JoinGroup": kafka_consumers.join_group,
    "SyncGroup": kafka_consumers.sync_group,
    "Heartbeat": kafka_consumers.heartbeat,
    "LeaveGroup": kafka_consumers.leave_group,
    "OffsetCommit": kafka_consumers.commit_offsets,
    "OffsetFetch": kafka_consumers.fetch_offsets,
}
