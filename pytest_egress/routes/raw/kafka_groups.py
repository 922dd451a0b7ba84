"""`Groups`: the consumer groups of a broker, by Kafka's classic protocol, in which a member assigns the partitions.

A member that joins or leaves begins a round: every member has to join again, and the last one ends the round for all.
Then the leader says which member has what (`assign`).

Threads: the connections of a broker share its groups. The lock guards everything, and is the innermost one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pytest_egress.base.account import OBJECT_BYTES
from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError

MAX_GROUPS: Final = 1000
MAX_MEMBERS: Final = 1000  # of one group
MAX_COMMITTED: Final = 100_000  # partitions of one group
MAX_TEXT_BYTES: Final = 4096  # of a committed offset, as Kafka's offset.metadata.max.bytes
MAX_BYTES: Final = 64 << 20  # of all groups of a broker

Protocols = Sequence[tuple[str, bytes]]
"""The names of the ways to assign partitions, the preferred one first, each with what the member says for it."""


@dataclass(kw_only=True)
class GroupMember:
    protocols: Protocols
    instance: str | None
    has_joined: bool = False

    @property
    def size(self) -> int:
        own = OBJECT_BYTES + len(self.instance or "")
        return own + sum(len(name) + len(says) + OBJECT_BYTES for name, says in self.protocols)


@dataclass(kw_only=True)
class Group:
    members: dict[str, GroupMember] = field(default_factory=dict)
    generation: int = 0
    protocol: str = ""
    leader: str = ""
    is_joining: bool = False
    assignments: Mapping[str, bytes] | None = None
    assigned_bytes: int = 0  # of the last assignments, also after they are over
    committed: dict[tuple[str, int], tuple[int, str | None]] = field(default_factory=dict)
    born: int = 0  # members so far

    def begin_round(self) -> None:
        if not self.is_joining:
            self.is_joining, self.assignments = True, None
            for member in self.members.values():
                member.has_joined = False

    def end_round(self) -> int:
        """Leave out the members that have not joined again, and return their size."""
        left_out = sum(each.size for each in self.members.values() if not each.has_joined)
        self.members = {name: each for name, each in self.members.items() if each.has_joined}
        self.generation += 1
        self.is_joining = False
        self.leader = next(iter(self.members))
        named = [[name for name, _ in each.protocols] for each in self.members.values()]
        self.protocol = next((p for p in named[0] if all(p in names for names in named)), "")
        return left_out

    def check(self, generation: int, member: str) -> KafkaCode:
        if member not in self.members:
            return KafkaCode.UNKNOWN_MEMBER_ID
        if self.is_joining:
            return KafkaCode.REBALANCE_IN_PROGRESS
        return KafkaCode.NONE if generation == self.generation else KafkaCode.ILLEGAL_GENERATION


class Joined(NamedTuple):
    """The result of a round; `members` are told to the leader alone: ID, instance and what it says for the protocol."""

    generation: int
    protocol: str
    leader: str
    members: list[tuple[str, str | None, bytes]]


class Groups:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[str, Group] = {}
        self._held = 0  # bytes

    def join(
        self, name: str, member: str, client_id: str, instance: str | None, protocols: Protocols
    ) -> str | None:
        """Begin to join, and return the member's ID; None for an ID that is not known."""
        with self._lock:
            group = self._of(name)
            if member and member not in group.members:
                return None
            if not member:
                for other in [
                    n for n, m in group.members.items() if instance and m.instance == instance
                ]:
                    # A static member that has started again.
                    self._hold(-group.members.pop(other).size)
                if len(group.members) >= MAX_MEMBERS:
                    raise KafkaError(
                        f"kafka() keeps {MAX_MEMBERS} members of a group, and more join"
                    )
                group.born += 1
                member = f"{client_id}-{group.born}"
            joins = GroupMember(protocols=protocols, instance=instance, has_joined=True)
            before = group.members.get(member)
            self._hold(joins.size - (before.size if before else 0))
            group.begin_round()
            group.members[member] = joins
            return member

    def joined(self, name: str, member: str, *, is_late: bool = False) -> Joined | KafkaCode | None:
        """The result of the round, an error, or None where members are missing; `is_late` leaves them out.

        A member that waits when a new round begins has to join that one.
        """
        with self._lock:
            group = self._of(name)
            if member not in group.members:
                return KafkaCode.UNKNOWN_MEMBER_ID
            if group.is_joining:
                if not group.members[member].has_joined:
                    return KafkaCode.REBALANCE_IN_PROGRESS
                if not is_late and not all(each.has_joined for each in group.members.values()):
                    return None
                self._hold(-group.end_round())
            told = group.members.items() if member == group.leader else ()
            of = [(n, m.instance, dict(m.protocols).get(group.protocol, b"")) for n, m in told]
            return Joined(group.generation, group.protocol, group.leader, of)

    def assign(
        self, name: str, generation: int, member: str, assignments: Mapping[str, bytes]
    ) -> KafkaCode:
        """Take what the leader says; others say nothing."""
        with self._lock:
            group = self._of(name)
            code = group.check(generation, member)
            if code == KafkaCode.NONE and member == group.leader:
                size = sum(len(n) + len(has) + OBJECT_BYTES for n, has in assignments.items())
                self._hold(size - group.assigned_bytes)
                group.assignments, group.assigned_bytes = assignments, size
            return code

    def assigned(self, name: str, generation: int, member: str) -> bytes | KafkaCode | None:
        """What a member has, an error, or None as long as the leader has not said it."""
        with self._lock:
            group = self._of(name)
            if (code := group.check(generation, member)) != KafkaCode.NONE:
                return code
            return None if group.assignments is None else group.assignments.get(member, b"")

    def check(self, name: str, generation: int, member: str) -> KafkaCode:
        with self._lock:
            return self._of(name).check(generation, member)

    def leave(self, name: str, member: str) -> KafkaCode:
        with self._lock:
            group = self._of(name)
            if (left := group.members.pop(member, None)) is None:
                return KafkaCode.UNKNOWN_MEMBER_ID
            self._hold(-left.size)
            group.begin_round()
            return KafkaCode.NONE

    def commit(
        self, name: str, topic: str, partition: int, offset: int, text: str | None
    ) -> KafkaCode:
        if len((text or "").encode()) > MAX_TEXT_BYTES:
            return KafkaCode.OFFSET_METADATA_TOO_LARGE
        with self._lock:
            committed = self._of(name).committed
            if (topic, partition) not in committed and len(committed) >= MAX_COMMITTED:
                raise KafkaError(f"kafka() keeps {MAX_COMMITTED} offsets of a group, and more come")
            before = committed.get((topic, partition))
            size = committed_size(topic, text)
            self._hold(size - (committed_size(topic, before[1]) if before else 0))
            committed[topic, partition] = (offset, text)
            return KafkaCode.NONE

    def committed(self, name: str) -> dict[tuple[str, int], tuple[int, str | None]]:
        with self._lock:
            return self._of(name).committed.copy()

    def _of(self, name: str) -> Group:
        if name not in self._groups:
            if len(self._groups) >= MAX_GROUPS:
                raise KafkaError(f"kafka() keeps {MAX_GROUPS} groups, and more come")
            self._hold(len(name) + OBJECT_BYTES)
            self._groups[name] = Group()
        return self._groups[name]

    def _hold(self, more: int) -> None:
        """Count bytes that are kept from now on; those that are kept no more are negative."""
        if more > 0 and self._held + more > MAX_BYTES:
            raise KafkaError(f"kafka() keeps {MAX_BYTES} bytes of groups, and more come")
        self._held += more


def committed_size(topic: str, text: str | None) -> int:
    return len(topic) + len(text or "") + OBJECT_BYTES
