"""How the kernel of a target gets rules: in order, each state once, and with a complaint where it refuses them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

import pytest

from pytest_egress.errors import LinkError
from pytest_egress.gateway.kernel_rules import KernelRules
from pytest_egress.link.changes import DialRule, Verdict
from pytest_egress.routes.table import RouteTable
from tests.support.stage import FIRST, SECOND, Stage

REFUSAL = "The kernel takes no rules."


def rule(address: str) -> DialRule:
    return DialRule(Verdict.REFUSED, ip_network(address), None)


LITERAL = rule("192.0.2.9")


class OnlyNames:
    """Decides about the IPv4 address of each name that ends in `.test`."""

    literal = (LITERAL,)

    def named(self, names: Sequence[str], address: str) -> list[DialRule]:
        is_meant = "." in address and any(name.endswith(".test") for name in names)
        return [rule(address)] if is_meant else []


class Rules(KernelRules):
    """Notes what the kernel is told; `refuses` is why it takes nothing."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.gateway.link, stage.gateway.recorder, stage.gateway.names)
        self.told: list[tuple[tuple[DialRule, ...], tuple[DialRule, ...]]] = []
        self.refuses = ""
        self.is_needed = True

    def _needs_rules(self, table: RouteTable) -> bool:
        return self.is_needed

    def _decisions(self, tables: Sequence[RouteTable]) -> OnlyNames:
        return OnlyNames()

    def _change(self, old: tuple[DialRule, ...], new: tuple[DialRule, ...]) -> None:
        if self.refuses:
            raise LinkError(self.refuses)
        self.told.append((old, new))


@pytest.fixture
def rules(stage: Stage) -> Rules:
    return Rules(stage)


def test_the_latest_name_comes_first_and_literal_addresses_last(stage: Stage, rules: Rules) -> None:
    stage.resolve("a.test")
    stage.resolve("b.test")
    rules.apply()
    rules.apply()  # which changes nothing
    assert rules.told == [((), (rule(SECOND), rule(FIRST), LITERAL))]


def test_a_change_is_told_with_what_was_in_force(stage: Stage, rules: Rules) -> None:
    rules.apply()
    stage.resolve("a.test")
    rules.apply()
    assert rules.told[1:] == [((LITERAL,), (rule(FIRST), LITERAL))]


def test_nothing_is_told_before_a_route_needs_it_and_everything_afterwards(rules: Rules) -> None:
    rules.is_needed = False
    rules.apply()
    rules.learn(("a.test",), [FIRST])
    assert rules.told == []
    rules.is_needed = True
    rules.apply()
    rules.is_needed = False
    rules._in_force = ()
    rules.apply()
    assert len(rules.told) == 2


def test_an_earlier_state_never_replaces_a_later_one(stage: Stage, rules: Rules) -> None:
    class Overtaken:
        """A lock that another thread, with a later state, takes first."""

        def __enter__(self) -> None:
            rules._lock = lock
            stage.resolve("a.test")
            rules.apply()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    lock, rules._lock = rules._lock, Overtaken()  # type: ignore[assignment]
    rules.apply()
    assert rules.told == [((), (rule(FIRST), LITERAL))]


def test_a_name_has_its_rules_before_it_is_answered(stage: Stage, rules: Rules) -> None:
    rules.apply()
    stage.resolve("a.test")
    rules.learn(("a.test",), [FIRST])
    assert rules.told[1:] == [((LITERAL,), (rule(FIRST), LITERAL))]
    rules.learn(("a.test",), [FIRST])  # which the rules in force account for
    rules.learn(("a.invalid",), [SECOND])  # about which nothing is decided
    assert len(rules.told) == 2


def test_a_refusal_is_complained_of_and_tried_again(stage: Stage, rules: Rules) -> None:
    rules.refuses = REFUSAL
    rules.apply()
    with pytest.raises(LinkError, match=REFUSAL):
        rules.check()
    assert stage.window.complaints == [f"target: {REFUSAL}"]
    stage.window.complaints.clear()
    rules.refuses = ""
    rules.apply()
    rules.check()
    assert rules.told == [((), (LITERAL,))]


def test_a_refusal_is_forgotten_when_the_rules_in_force_are_wanted_again(
    stage: Stage, rules: Rules
) -> None:
    rules.apply()
    stage.resolve("a.test")
    rules.refuses = REFUSAL
    rules.apply()
    stage.window.complaints.clear()
    rules._in_force = (rule(FIRST), LITERAL)
    rules.apply()
    rules.check()


def test_after_the_end_of_its_target_nothing_is_complained_of(stage: Stage, rules: Rules) -> None:
    rules.refuses = REFUSAL
    stage.gateway.recorder.is_closed = True
    rules.apply()
    assert not stage.window.complaints
