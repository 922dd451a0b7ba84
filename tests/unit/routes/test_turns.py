"""How often a route answers, and with what."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from pytest_egress.routes.answers import Application, sequence
from pytest_egress.routes.faults import blackhole, refuse
from tests.support.routes import Routes, called

SECONDS = 10.0


@pytest.fixture
def routes() -> Routes:
    return Routes()


# How often.


def test_a_route_with_times_answers_so_often_and_says_why_no_more(routes: Routes) -> None:
    route = routes.https(times=2)
    assert [routes.decide().route for _ in range(3)] == [route, route, None]
    (miss,) = routes.decide().near
    assert (miss.route, miss.differences) == (route, ("times: it has answered 2 of 2",))


def test_times_are_taken_by_requests_that_match_alone(routes: Routes) -> None:
    route = routes.https(times=1, method="POST")
    assert routes.decide().route is None
    assert routes.decide(method="POST").route is route


def test_times_are_never_given_twice_to_threads(routes: Routes) -> None:
    routes.https(times=50)
    start = threading.Barrier(8)

    def reserve(_: int) -> int:
        start.wait(SECONDS)
        return sum(routes.decide().route is not None for _ in range(25))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(reserve, range(8))) == 50


def test_a_handler_is_called_in_the_context_of_its_declaration(routes: Routes) -> None:
    name: ContextVar[str] = ContextVar("name", default="none")
    name.set("declared")
    route = routes.https(answer=lambda request: name.get())
    name.set("later")
    assert called(route) == "declared"
    route.respond(lambda request: name.get())
    assert called(route) == "later"


def test_a_sequence_in_place_counts_from_there(routes: Routes) -> None:
    route = routes.https()
    for _ in range(3):
        assert route.turns.reserve() is not None
    route.respond(sequence(201, 202))
    assert route.times == 5
    assert [route.turns.answer(turn)[0].status_code for turn in (3, 4)] == [201, 202]


def test_every_application_of_a_route_is_released_although_one_fails(routes: Routes) -> None:
    class Counted(Application):
        held = 0

        def acquire(self) -> None:
            self.held += 1

        def release(self) -> None:
            self.held -= 1
            if self is bad:
                raise ValueError("bad")

    good, bad, later = Counted(), Counted(), Counted()
    route = routes.https(answer=sequence(good, bad))
    route.respond(later)
    assert (good.held, bad.held, later.held) == (1, 1, 1)  # requests that go on may use them
    with pytest.raises(ValueError, match="bad"):
        route.release()
    assert (good.held, bad.held, later.held) == (0, 0, 0)
    route.release()


# Faults of connecting.


def test_the_next_fault_is_that_of_the_next_turn(routes: Routes) -> None:
    route = routes.add("intercept_tcp", "db.test:5432", sequence(refuse(), b"ready", blackhole()))
    faults = [route.turns.next_fault]
    turns = [route.turns.reserve_fault(blackhole()), route.turns.reserve_fault(refuse())]
    faults.append(route.turns.next_fault)
    turns.append(route.turns.reserve())
    faults.append(route.turns.next_fault)
    route.turns.give_back(1)
    faults.append(route.turns.next_fault)
    assert turns == [None, 0, 1]
    assert faults == [refuse(), None, blackhole(), None]


def test_a_fault_that_is_given_is_an_outage_for_earlier_turns_alone(routes: Routes) -> None:
    route = routes.add("intercept_tcp", "db.test:5432", b"ready")
    turn = route.turns.reserve()
    assert turn == 0
    route.respond(b"others")
    assert route.turns.is_replaced(turn)
    assert not route.turns.is_outage(turn)
    route.respond(sequence(refuse(), b"ready"))
    assert route.turns.is_outage(turn)
    later = route.turns.reserve()
    assert later is not None
    assert not route.turns.is_outage(later)


def test_a_sequence_is_owed_its_own_calls_whatever_was_given_back_before(routes: Routes) -> None:
    route = routes.add("intercept_tcp", "db.test:5432", b"ready")
    first, second = route.turns.reserve(), route.turns.reserve()
    assert (first, second) == (0, 1)
    assert second is not None
    route.turns.give_back(second)
    route.respond(sequence(b"a", b"b"))
    assert route.times == 3  # the first may yet be a call
    route.turns.give_back(0)
    assert route.times == 2
    turns = [route.turns.reserve() for _ in range(3)]
    assert turns[2] is None
    assert [route.turns.answer(turn)[0] for turn in turns if turn is not None] == [b"a", b"b"]


def test_times_are_those_of_the_declaration_again_after_a_sequence(routes: Routes) -> None:
    route = routes.add("intercept_tcp", "db.test:5432", b"ready", times=2)
    first = route.turns.reserve()
    assert first is not None
    route.turns.give_back(first)
    route.respond(sequence(b"a"))
    assert route.turns.reserve() is not None
    assert route.turns.is_exhausted
    route.respond(b"b")
    assert route.turns.reserve() is not None
    assert route.turns.is_exhausted
