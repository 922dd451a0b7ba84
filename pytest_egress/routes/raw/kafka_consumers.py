"""What consumers of `kafka()` ask: records and their offsets, and what a group does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from pytest_egress.routes.raw.kafka_groups import Groups, Joined
from pytest_egress.routes.raw.kafka_log import KafkaLog, Slice
from pytest_egress.traffic.kafka.batches import make_batch
from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError
from pytest_egress.traffic.kafka.wire import KafkaRequest, response_class
from pytest_egress.traffic.shown import shown

EARLIEST, LATEST = -2, -1  # in place of a timestamp
MAX_FETCHED_BYTES: Final = 50 << 20  # of one response, as consumers ask by default
MAX_WAIT_SECONDS: Final = 300  # for the others of a group, whatever a client asks for


class Consumer(Protocol):
    """The connection of a consumer.

    Attributes:
        log: The broker's.
        groups: The broker's.
        members: The group and ID of those that joined here.
        fetched: How many records were sent, by topic.
    """

    log: KafkaLog
    groups: Groups
    members: set[tuple[str, str]]
    fetched: dict[str, int]

    def wait(self, look: Any, seconds: float) -> Any:
        """Return what `look` returns once that is not None; None after so many seconds, or when the client leaves."""


def check_once(request: KafkaRequest, named: Iterable[tuple[str, int]]) -> None:
    """A partition that is named again and again would make a long answer of a short question: KafkaError."""
    seen: set[tuple[str, int]] = set()
    for topic, partition in named:
        if (topic, partition) in seen:
            raise KafkaError(
                f"a request of {request.api} names partition {partition} of {shown(topic)} twice"
            )
        seen.add((topic, partition))


def fetch(client: Consumer, request: KafkaRequest) -> Any:
    asked = [
        (topic.topic, part.partition, part.fetch_offset, part.partition_max_bytes)
        for topic in request.body.topics
        for part in topic.partitions
    ]
    check_once(request, (each[:2] for each in asked))
    most = min(getattr(request.body, "max_bytes", 0) or MAX_FETCHED_BYTES, MAX_FETCHED_BYTES)

    def read() -> list[Slice]:
        found, left = [], most
        for topic, partition, offset, of_partition in asked:
            room = min(left, of_partition)
            if not client.log.has(partition):
                part = ABSENT
            else:
                part = client.log.read(topic, partition, offset, room) if left > 0 else NOTHING
            left -= sum(record.size for record in part.records or ())
            found.append(part)
        return found

    def look() -> list[Slice] | None:
        found = read()
        return found if any(part.records or part.records is None for part in found) else None

    found = client.wait(look, max(request.body.max_wait_ms, 0) / 1000) or read()
    answers: dict[str, list[Any]] = {}
    for (topic, partition, offset, _), part in zip(asked, found, strict=True):
        if part.records:
            client.fetched[topic] = client.fetched.get(topic, 0) + len(part.records)
        answers.setdefault(topic, []).append(fetched(request, partition, offset, part))
    make = response_class(request.api).FetchableTopicResponse
    return request.response(
        responses=[
            make(version=request.version, topic=topic, partitions=parts)
            for topic, parts in answers.items()
        ]
    )


NOTHING: Final = Slice([], 0, 0)
ABSENT: Final = Slice(None, -1, -1)
"""Of a partition that the topic does not have."""


def fetched(request: KafkaRequest, partition: int, offset: int, part: Slice) -> Any:
    make = response_class(request.api).FetchableTopicResponse.PartitionData
    code = KafkaCode.OFFSET_OUT_OF_RANGE if part.records is None else KafkaCode.NONE
    if part is ABSENT:
        code = KafkaCode.UNKNOWN_TOPIC_OR_PARTITION
    return make(
        version=request.version,
        partition_index=partition,
        error_code=code,
        high_watermark=part.end,
        last_stable_offset=part.end,
        log_start_offset=part.start,
        aborted_transactions=[],
        records=make_batch(offset, part.records) if part.records else b"",
    )


def list_offsets(client: Consumer, request: KafkaRequest) -> Any:
    topics = request.body.topics
    check_once(request, ((t.name, part.partition_index) for t in topics for part in t.partitions))
    make = response_class(request.api).ListOffsetsTopicResponse
    answers = {
        topic.name: [
            make.ListOffsetsPartitionResponse(
                version=request.version,
                partition_index=part.partition_index,
                **offset_of(client.log, topic.name, part.partition_index, part.timestamp),
            )
            for part in topic.partitions
        ]
        for topic in topics
    }
    return request.response(topics=topics_of(make, request, answers))


def offset_of(log: KafkaLog, topic: str, partition: int, timestamp: int) -> dict[str, int]:
    if not log.has(partition):
        return {"error_code": KafkaCode.UNKNOWN_TOPIC_OR_PARTITION}
    of = log.read(topic, partition, 0, 0)
    if timestamp in (EARLIEST, LATEST):
        return {"error_code": 0, "offset": of.end if timestamp == LATEST else of.start}
    offset, found = log.offset_at(topic, partition, timestamp)
    return {"error_code": 0, "offset": offset, "timestamp": found}


# Groups.


def join_group(client: Consumer, request: KafkaRequest) -> Any:
    body, groups = request.body, client.groups
    protocols = [(each.name, bytes(each.metadata or b"")) for each in body.protocols]
    instance = getattr(body, "group_instance_id", None)
    member = groups.join(body.group_id, body.member_id, request.client_id, instance, protocols)
    if member is None:
        return refused(request, KafkaCode.UNKNOWN_MEMBER_ID, body.member_id)
    client.members.add((body.group_id, member))
    timeout = getattr(body, "rebalance_timeout_ms", -1)
    seconds = (timeout if timeout > 0 else body.session_timeout_ms) / 1000
    round_ = client.wait(
        lambda: groups.joined(body.group_id, member), min(seconds, MAX_WAIT_SECONDS)
    )
    if round_ is None:
        round_ = groups.joined(body.group_id, member, is_late=True)
    if not isinstance(round_, Joined):
        return refused(request, round_, member)
    make = response_class(request.api).JoinGroupResponseMember
    return request.response(
        error_code=KafkaCode.NONE,
        generation_id=round_.generation,
        protocol_type=body.protocol_type,
        protocol_name=round_.protocol,
        leader=round_.leader,
        member_id=member,
        members=[
            make(version=request.version, member_id=name, group_instance_id=of, metadata=says)
            for name, of, says in round_.members
        ],
    )


def refused(request: KafkaRequest, code: KafkaCode, member: str) -> Any:
    return request.response(
        error_code=code, generation_id=-1, protocol_name="", leader="", member_id=member, members=[]
    )


def sync_group(client: Consumer, request: KafkaRequest) -> Any:
    body, groups = request.body, client.groups
    given = {each.member_id: bytes(each.assignment or b"") for each in body.assignments}
    code = groups.assign(body.group_id, body.generation_id, body.member_id, given)
    assigned: bytes | KafkaCode | None = code
    if code == KafkaCode.NONE:
        assigned = client.wait(
            lambda: groups.assigned(body.group_id, body.generation_id, body.member_id),
            MAX_WAIT_SECONDS,
        )
    if not isinstance(assigned, bytes):
        code = KafkaCode.REBALANCE_IN_PROGRESS if assigned is None else assigned
        return request.response(error_code=code, assignment=b"")
    return request.response(
        error_code=KafkaCode.NONE,
        protocol_type=getattr(body, "protocol_type", None),
        protocol_name=getattr(body, "protocol_name", None),
        assignment=assigned,
    )


def heartbeat(client: Consumer, request: KafkaRequest) -> Any:
    body = request.body
    return request.response(
        error_code=client.groups.check(body.group_id, body.generation_id, body.member_id)
    )


def leave_group(client: Consumer, request: KafkaRequest) -> Any:
    body, group = request.body, request.body.group_id
    if request.version < 3:
        return request.response(error_code=client.groups.leave(group, body.member_id))
    make = response_class(request.api).MemberResponse
    return request.response(
        error_code=KafkaCode.NONE,
        members=[
            make(
                version=request.version,
                member_id=each.member_id,
                group_instance_id=each.group_instance_id,
                error_code=client.groups.leave(group, each.member_id),
            )
            for each in body.members
        ],
    )


def commit_offsets(client: Consumer, request: KafkaRequest) -> Any:
    make = response_class(request.api).OffsetCommitResponseTopic
    answers: dict[str, list[Any]] = {}
    for topic in request.body.topics:
        for part in topic.partitions:
            committed = part.committed_offset, part.committed_metadata
            index, group = part.partition_index, request.body.group_id
            told = make.OffsetCommitResponsePartition(
                version=request.version,
                partition_index=index,
                error_code=client.groups.commit(group, topic.name, index, *committed),
            )
            answers.setdefault(topic.name, []).append(told)
    return request.response(topics=topics_of(make, request, answers))


def fetch_offsets(client: Consumer, request: KafkaRequest) -> Any:
    committed = client.groups.committed(request.body.group_id)
    topics = request.body.topics
    asked = (
        committed
        if topics is None
        else [(topic.name, index) for topic in topics for index in topic.partition_indexes]
    )
    check_once(request, asked)
    answers: dict[str, list[Any]] = {}
    make = response_class(request.api).OffsetFetchResponseTopic
    for topic, index in asked:
        offset, text = committed.get((topic, index), (-1, ""))
        part = make.OffsetFetchResponsePartition(
            version=request.version,
            partition_index=index,
            committed_offset=offset,
            metadata=text,
            error_code=KafkaCode.NONE,
        )
        answers.setdefault(topic, []).append(part)
    return request.response(error_code=KafkaCode.NONE, topics=topics_of(make, request, answers))


def topics_of(make: Any, request: KafkaRequest, answers: Mapping[str, list[Any]]) -> list[Any]:
    """The answers about partitions, by topic."""
    return [make(version=request.version, name=name, partitions=answers[name]) for name in answers]
