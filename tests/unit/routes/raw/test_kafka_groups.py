"""Consumer groups, step by step; engine/traffic/test_kafka.py has real members."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_egress.routes.raw import kafka_groups
from pytest_egress.routes.raw.kafka_groups import Groups, Joined
from pytest_egress.traffic.kafka.codes import KafkaCode, KafkaError

RANGE = [("range", b"a"), ("roundrobin", b"b")]


def join(groups: Groups, member: str = "", instance: str | None = None) -> str:
    name = groups.join("g", member, "c", instance, RANGE)
    assert name is not None
    return name


def test_a_member_alone_joins_leads_and_has_what_it_says() -> None:
    groups = Groups()
    one = join(groups)
    assert groups.joined("g", one) == Joined(1, "range", one, [(one, None, b"a")])
    assert groups.assigned("g", 1, one) is None
    assert groups.assign("g", 1, one, {one: b"all"}) == KafkaCode.NONE
    assert groups.assigned("g", 1, one) == b"all"
    assert groups.check("g", 1, one) == KafkaCode.NONE
    assert groups.check("g", 7, one) == KafkaCode.ILLEGAL_GENERATION
    assert groups.check("g", 1, "who") == KafkaCode.UNKNOWN_MEMBER_ID


def test_a_second_member_has_the_first_join_again() -> None:
    groups = Groups()
    one = join(groups)
    groups.joined("g", one)
    two = join(groups)
    assert groups.joined("g", two) is None
    assert groups.check("g", 1, one) == KafkaCode.REBALANCE_IN_PROGRESS
    assert groups.assign("g", 1, one, {}) == KafkaCode.REBALANCE_IN_PROGRESS
    assert join(groups, one) == one
    told = groups.joined("g", one)
    assert isinstance(told, Joined)
    assert told.generation == 2
    assert groups.joined("g", two) == (2, "range", one, [])
    groups.assign("g", 2, two, {two: b"its own"})
    assert groups.assigned("g", 2, two) is None
    groups.assign("g", 2, one, {one: b"1", two: b"2"})
    assert (groups.assigned("g", 2, one), groups.assigned("g", 2, two)) == (b"1", b"2")


def test_a_member_that_does_not_join_again_is_left_out() -> None:
    groups = Groups()
    one = join(groups)
    groups.joined("g", one)
    two = join(groups)
    assert groups.joined("g", two, is_late=True) == (2, "range", two, [(two, None, b"a")])
    assert groups.check("g", 2, one) == KafkaCode.UNKNOWN_MEMBER_ID
    assert groups.join("g", one, "c", None, RANGE) is None
    assert groups.joined("g", one) == KafkaCode.UNKNOWN_MEMBER_ID


def test_a_member_that_leaves_has_the_others_join_again() -> None:
    groups = Groups()
    one, two = join(groups), join(groups)
    groups.joined("g", two)
    assert groups.leave("g", two) == KafkaCode.NONE
    assert groups.leave("g", two) == KafkaCode.UNKNOWN_MEMBER_ID
    assert groups.check("g", 1, one) == KafkaCode.REBALANCE_IN_PROGRESS


def test_a_member_that_waits_when_a_new_round_begins_is_told_to_join_that_one() -> None:
    groups = Groups()
    one, two = join(groups), join(groups)
    assert isinstance(groups.joined("g", two), Joined)
    join(groups)  # before the first one has looked
    assert groups.joined("g", one) == KafkaCode.REBALANCE_IN_PROGRESS
    assert join(groups, one) == one
    assert groups.joined("g", one) is None  # the second one is missing


def test_a_member_whose_time_is_over_ends_no_round_that_nobody_has_joined() -> None:
    groups = Groups()
    one, two = join(groups), join(groups)
    groups.joined("g", two)
    groups.leave("g", two)
    assert groups.joined("g", one, is_late=True) == KafkaCode.REBALANCE_IN_PROGRESS


def test_a_static_member_that_starts_again_takes_its_own_place() -> None:
    groups = Groups()
    one = join(groups, instance="i")
    groups.joined("g", one)
    again = join(groups, instance="i")
    assert groups.joined("g", again) == (2, "range", again, [(again, "i", b"a")])


def test_offsets_are_kept_by_group() -> None:
    groups = Groups()
    groups.commit("g", "orders", 0, 3, "said")
    assert groups.committed("g") == {("orders", 0): (3, "said")}
    assert groups.committed("h") == {}


def test_the_text_of_an_offset_has_so_many_bytes() -> None:
    groups = Groups()
    assert groups.commit("g", "orders", 0, 1, "é" * 2048) == KafkaCode.NONE
    assert groups.commit("g", "orders", 0, 2, "é" * 2048 + "e") == (
        KafkaCode.OFFSET_METADATA_TOO_LARGE
    )
    assert groups.committed("g") == {("orders", 0): (1, "é" * 2048)}


def test_groups_keep_so_many_bytes_in_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_groups, "MAX_BYTES", 10_000)
    groups, large = Groups(), [("range", bytes(20_000))]
    one = join(groups)
    groups.joined("g", one)
    full = pytest.raises(KafkaError, match=r"kafka\(\) keeps 10000 bytes of groups, and more come")
    with full:
        groups.join("g", "", "c", None, large)
    with full:
        groups.join("g", one, "c", None, large)
    with full:
        groups.assign("g", 1, one, {one: bytes(20_000)})
    with full:
        groups.check("h" * 20_000, 1, one)
    with full:
        for partition in range(3):
            groups.commit("g", "a", partition, 1, "x" * 4000)
    assert groups.check("g", 1, one) == KafkaCode.NONE
    assert groups.committed("g").keys() == {("a", 0), ("a", 1)}


def test_what_groups_keep_no_more_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_groups, "MAX_BYTES", 20_000)
    groups, some = Groups(), [("range", bytes(3000))]
    for number in range(20):
        groups.commit("g", "a", 0, number, "x" * 4000)
        static = groups.join("g", "", "c", "i", some)
        assert groups.join("g", static or "", "c", "i", some) == static
        late = groups.join("g", "", "c", None, some)
        told = groups.joined("g", static or "", is_late=True)
        assert isinstance(told, Joined)
        assert groups.assign("g", told.generation, told.leader, {"x": bytes(3000)}) == 0
        last = groups.join("g", "", "c", None, some)
        groups.joined("g", last or "", is_late=True)  # the others are left out
        assert groups.check("g", 1, late or "") == KafkaCode.UNKNOWN_MEMBER_ID
        assert groups.leave("g", last or "") == KafkaCode.NONE


@pytest.mark.parametrize(
    ("limit", "more"),
    [
        ("MAX_GROUPS", lambda groups: groups.committed("h")),
        ("MAX_MEMBERS", join),
        ("MAX_COMMITTED", lambda groups: groups.commit("g", "a", 1, 1, None)),
    ],
)
def test_what_a_broker_keeps_of_groups_is_bounded(
    monkeypatch: pytest.MonkeyPatch, limit: str, more: Callable[[Groups], object]
) -> None:
    monkeypatch.setattr(kafka_groups, limit, 1)
    groups = Groups()
    groups.commit("g", "a", 0, 1, None)
    groups.commit("g", "a", 0, 2, None)
    join(groups)
    with pytest.raises(KafkaError, match=r"kafka\(\) keeps 1 .* and more "):
        more(groups)
