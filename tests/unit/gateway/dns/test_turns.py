"""Which questions share a turn of a sequence, as real resolvers ask them."""

from __future__ import annotations

from pytest_egress.gateway.dns.turns import AskedName, NameTurns
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import DNS

ADDRESSES = [f"192.0.2.{number}" for number in range(4)]


class Resolvers:
    """A route of four answers, and clients that ask for its name."""

    def __init__(self, answer: object = None) -> None:
        self.ledger = Ledger()
        declaration = declare(DNS, "*.test", sequence(*ADDRESSES) if answer is None else answer)
        self.route: InnerRoute = InnerRoute(
            declaration, scope="test", declared_at="", log=self.ledger
        )
        self.turns, self.id = NameTurns(self.ledger), 0

    def ask(
        self,
        type: str,
        client: object = 1,
        id: int = 0,
        *,
        name: str = "db.test",
        tcp: bool = False,
    ) -> int | None:
        """The number of the answer; None where the route answers no more. Without an ID it is a new question."""
        self.id += 1
        asked = AskedName(
            name=name, type=type, id=id or 1000 + self.id, client=client, over_tcp=tcp
        )
        if (given := self.turns.answer(self.route, asked)) is None:
            return None
        (address,) = given.answer.addresses
        return ADDRESSES.index(address)


def test_both_families_of_a_lookup_share_a_turn() -> None:
    clients = Resolvers()
    assert [clients.ask(type, "one") for type in ("A", "AAAA")] == [0, 0]  # glibc, musl
    assert [clients.ask("AAAA", "two"), clients.ask("A", "three")] == [1, 1]  # Go
    assert [clients.ask("A", "four"), clients.ask("A", "five")] == [2, 3]
    assert [clients.ask("A", "six"), clients.ask("AAAA", "six")] == [None, 3]
    assert clients.route.turns.is_exhausted


def test_a_question_of_another_type_is_of_the_latest_turn() -> None:
    clients = Resolvers()
    assert [clients.ask(type, "one") for type in ("HTTPS", "A", "AAAA")] == [0, 0, 0]
    assert [clients.ask("MX", "two"), clients.ask("MX", "three")] == [0, 1]


def test_lookups_at_the_same_time_keep_their_own_turns() -> None:
    clients = Resolvers()
    asked = [clients.ask(type, client) for type in ("A", "AAAA") for client in ("one", "two")]
    assert asked == [0, 1, 0, 1]


def test_a_socket_that_asks_again_and_again_takes_a_turn_each_time() -> None:
    clients = Resolvers()
    assert [clients.ask("A"), clients.ask("A"), clients.ask("AAAA"), clients.ask("AAAA")] == [
        *(0, 1, 1, 2)
    ]


def test_a_question_that_is_sent_again_keeps_its_turn() -> None:
    clients = Resolvers()
    assert [clients.ask("A", "one", 7), clients.ask("AAAA", "one", 8)] == [0, 0]
    assert [clients.ask("A", "one", 7), clients.ask("AAAA", "one", 8)] == [0, 0]
    assert clients.ask("A", "one", 9) == 1
    assert clients.ask("A", "one", 7) == 0
    assert clients.ask("A", "two", 7) == 0  # glibc's second attempt
    assert clients.ask("A", "two", 8) == 2


def test_other_names_take_turns_of_their_own() -> None:
    clients = Resolvers()
    names = ("db.test", "db.test.corp.test")
    assert [clients.ask(type, name=name) for name in names for type in ("A", "AAAA")] == [
        *(0, 0, 1, 1)
    ]


def test_what_was_truncated_is_asked_over_tcp_in_the_same_turn_once() -> None:
    clients = Resolvers()
    asked = AskedName(name="db.test", type="A", id=1, client="udp", over_tcp=False)
    given = clients.turns.answer(clients.route, asked)
    assert given is not None
    assert given.turn is not None
    clients.turns.note_truncated([given.turn], "A")
    assert clients.ask("A", "tcp", tcp=True) == 0
    assert clients.ask("A", "tcp", tcp=True) == 1


def test_a_new_answer_begins_anew() -> None:
    clients = Resolvers()
    assert clients.ask("A") == 0
    clients.route.respond(sequence(*ADDRESSES[2:]))
    assert [clients.ask("AAAA"), clients.ask("A"), clients.ask("A"), clients.ask("A")] == [
        *(2, 2, 3, None)
    ]
    clients.route.respond(ADDRESSES[1])
    assert [clients.ask("A"), clients.ask("A")] == [1, 1]


def test_an_answer_for_good_takes_no_turns() -> None:
    clients = Resolvers(ADDRESSES[2])
    assert [clients.ask("A"), clients.ask("A")] == [2, 2]
