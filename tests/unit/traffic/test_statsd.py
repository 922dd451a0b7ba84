"""Metrics of StatsD and DogStatsD: what each line says, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.parts import UnreadablePart
from pytest_egress.traffic.statsd import Metric, metrics_in
from tests.support.entries import datagram


def metrics(content: bytes) -> list[Metric]:
    found = [*metrics_in(datagram(content))]
    assert all(isinstance(each, Metric) for each in found), found
    return [each for each in found if isinstance(each, Metric)]


def only(content: bytes) -> Metric:
    (metric,) = metrics(content)
    return metric


@pytest.mark.parametrize(
    ("line", "name", "value", "kind", "rate", "tags"),
    [
        (b"shop.orders:1|c", "shop.orders", 1, "c", 1, ()),
        (b"shop.ms:12.5|ms|@0.1", "shop.ms", 12.5, "ms", 0.1, ()),
        (b"a:1|c|#country:de,paid", "a", 1, "c", 1, ("country:de", "paid")),
        (b"a:1|h|@0.5|#x:y", "a", 1, "h", 0.5, ("x:y",)),
        (b"a:-1.5e3|d|#", "a", -1500, "d", 1, ()),
        (b"users:ann@shop.test|s", "users", "ann@shop.test", "s", 1, ()),
        (b"users:a:b|s", "users", "a:b", "s", 1, ()),
        (b"a:.5|m\r", "a", 0.5, "m", 1, ()),
        ("größe:1|c|#é".encode(), "größe", 1, "c", 1, ("é",)),
    ],
)
def test_a_line_is_a_metric(
    line: bytes, name: str, value: object, kind: str, rate: float, tags: tuple[str, ...]
) -> None:
    metric = only(line)
    assert (metric.name, metric.value, metric.type) == (name, value, kind)
    assert (metric.rate, metric.tags) == (rate, tags)
    assert (metric.content, metric.host, metric.kind) == (line, "a.test", "udp")


def test_lines_are_metrics_of_their_own_and_empty_ones_are_none() -> None:
    found = metrics(b"a:1|c\nb:2|g\n\nc:3|ms\n")
    assert [(each.name, each.content) for each in found] == [
        ("a", b"a:1|c"),
        ("b", b"b:2|g"),
        ("c", b"c:3|ms"),
    ]


def test_each_of_several_values_is_a_metric() -> None:
    found = metrics(b"ms:1:2.5:3|d|#a")
    assert [(each.name, each.value, each.tags) for each in found] == [
        ("ms", value, ("a",)) for value in (1, 2.5, 3)
    ]


@pytest.mark.parametrize(
    ("line", "is_delta"),
    [(b"g:5|g", False), (b"g:+5|g", True), (b"g:-5|g", True), (b"c:-5|c", False)],
)
def test_a_gauge_with_a_sign_is_a_change(line: bytes, is_delta: bool) -> None:
    assert only(line).is_delta is is_delta


def test_other_sections_are_fields_by_their_letter() -> None:
    metric = only(b"a:1|c|#x|c:ci-83c0|T1656581400|e:it-false")
    assert (metric.tags, metric.fields) == (
        ("x",),
        {"c": "ci-83c0", "T": "1656581400", "e": "it-false"},
    )


def test_an_event_has_a_title_and_a_text_of_the_lengths_that_it_says() -> None:
    event = only("_e{7,14}:a|b é:|one|two\\nthree|h:web1|t:error|#env:test".encode())
    assert (event.type, event.name, event.value) == ("event", "a|b é:", "one|two\nthree")
    assert (event.tags, event.fields) == (("env:test",), {"h": "web1", "t": "error"})
    assert only(b"_e{1,1}:a|b").fields == {}


def test_a_service_check_has_a_status_and_its_message_may_have_bars() -> None:
    check = only(b"_sc|shop.db|2|h:web1|#env:test|m:no | way")
    assert (check.type, check.name, check.value) == ("check", "shop.db", 2)
    assert (check.tags, check.fields) == (("env:test",), {"h": "web1", "m": "no | way"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"shop.orders", "a metric is name:value|type"),
        (b"shop.orders:1", "a metric is name:value|type"),
        (b":1|c", "a metric is name:value|type"),
        (b"shop.orders:x|c", "the value 'x' is no number"),
        (b"shop.orders:|c", "the value '' is no number"),
        (b"a:nan|g", "the value 'nan' is no number"),
        ("a:٣|c".encode(), "the value '٣' is no number"),
        (b"a:1:x|c", "the value 'x' is no number"),
        (b"a:1|q", "the type 'q' is none of c, g, ms, h, d, s, m"),
        (b"a:1|", "the type '' is none of"),
        (b"a:1|c|@0", "the sample rate '0' is no number over 0, and at most 1"),
        (b"a:1|c|@2", "the sample rate '2' is"),
        (b"a:1|c||#x", "a section is empty"),
        (b"_e{2,1}:a|b", "the lengths of title and text are others"),
        (b"_e{1,9}:a|b", "the lengths of title and text are others"),
        (b"_e{a}:a|b", "an event begins with _e{"),
        (b"_sc|a|4", "a service check is _sc|name|status"),
        (b"_sc|a", "a service check is _sc|name|status"),
        (b"", "it is empty"),
        (b"\n\r\n", "it is empty"),
    ],
)
def test_what_is_no_metric_is_told_with_its_line(line: bytes, said: str) -> None:
    before = b"a:1|c\n" if line.strip() else b""
    *others, last = metrics_in(datagram(before + line))
    assert isinstance(last, UnreadablePart)
    assert last.content == line
    assert said in last.why
    assert len(others) == bool(before)


def test_its_text_is_its_line_and_where_it_went() -> None:
    assert str(only(b"a:1|c")) == "metric b'a:1|c' at a.test:9 (198.18.0.1)"


@given(st.binary(max_size=200))
def test_any_bytes_are_metrics_or_unreadable_lines(content: bytes) -> None:
    found = [*metrics_in(datagram(content))]
    assert found
    assert all(isinstance(each, (Metric, UnreadablePart)) for each in found)


LINES = st.text(alphabet="_sce{1,}:|@#.\\nab", max_size=40)


@given(LINES)
def test_any_text_of_their_characters_is_metrics_or_unreadable_lines(text: str) -> None:
    assert [*metrics_in(datagram(text.encode()))]
