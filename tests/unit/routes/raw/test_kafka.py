"""`kafka()` as an answer: what it takes, and where it is accepted."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import pytest_egress
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTPS, INTERCEPT_TCP, INTERCEPT_TLS, Kind
from pytest_egress.routes.raw.kafka import KafkaBroker, kafka
from pytest_egress.routes.sequences import AnswerSequence


@pytest.mark.parametrize("kind", [INTERCEPT_TCP, INTERCEPT_TLS])
def test_it_answers_raw_routes_alone_and_in_a_sequence(kind: Kind) -> None:
    assert isinstance(declare(kind, "kafka.test:9092", kafka()).answer, KafkaBroker)
    declared = declare(kind, "kafka.test:9092", sequence(kafka(), kafka())).answer
    assert isinstance(declared, AnswerSequence)


def test_a_route_of_requests_says_which_route_takes_it() -> None:
    with pytest.raises(TypeError, match=r"kafka\(\) answers connections, and this route requests"):
        declare(INTERCEPT_HTTPS, "kafka.test", kafka({"orders": []}))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"records": ["a"]}, "kafka(['a']): it takes records by topic: kafka({"),
        ({"records": {"orders": b"a"}}, "kafka({'orders': b'a'}): it takes a list of records for"),
        ({"records": {"orders": {"id": 1}}}, "kafka({'orders': {'id': 1}}): it takes a list"),
        ({"records": {"orders": [7]}}, "kafka(records=...): 7: 7 is no bytes"),
        ({"partitions": 0}, "kafka(partitions=0): it is a number, 1 to 1000"),
        ({"partitions": True}, "kafka(partitions=True): it is a number, 1 to 1000"),
    ],
)
def test_what_it_does_not_take_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        kafka(**arguments)
    assert str(raised.value).startswith(said)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pytest_egress.traffic.kafka.batches", raising=False)
    monkeypatch.setitem(sys.modules, "cramjam", None)
    with pytest.raises(
        ImportError, match=r"kafka\(\) needs .*: pip install 'pytest-egress\[kafka\]'"
    ):
        kafka()


def test_it_is_a_public_name() -> None:
    assert pytest_egress.kafka is kafka
