"""A part of a datagram has the fields of its datagram, and answers as that does."""

from __future__ import annotations

from pytest_egress.base.account import Account
from pytest_egress.traffic.parts import within
from pytest_egress.traffic.statsd import Metric
from tests.support.entries import datagram


def test_a_part_is_of_its_datagram_but_for_what_is_given() -> None:
    whole = datagram(b"a:1|c\nb:2|c")
    part = within(whole, Metric, content=b"b:2|c", name="b", value=2.0, type="c")
    assert (part.content, part.name, part.rate) == (b"b:2|c", "b", 1.0)
    assert (part.client, part.where, part.hops) == (whole.client, whole.where, whole.hops)
    assert whole.content == b"a:1|c\nb:2|c"


def test_a_part_replies_as_its_datagram_and_hides_the_same_secrets() -> None:
    whole, sent = datagram(b"a:1|c"), list[bytes]()
    whole._reply, whole._account = sent.append, object.__new__(Account)
    part = within(whole, Metric, name="a", value=1.0, type="c")
    part.reply(b"seen")
    assert sent == [b"seen"]
    assert part.replies is whole.replies
    assert part._account is whole._account
