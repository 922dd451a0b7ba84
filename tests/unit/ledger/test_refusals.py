"""What is left of our own refusals in the logs of containers. Of the bodies: `gateway/http/test_answering_unrouted`."""

from __future__ import annotations

from pytest_egress.ledger.refusals import handler_error_body, unrouted_body, without_advice
from pytest_egress.ledger.report import SHOWN_ATTEMPTS, handler_errors_lines, unrouted_text
from pytest_egress.traffic.entries import Exchange
from tests.support.entries import http_exchange, tcp


def test_a_refusal_in_a_log_is_a_line_that_names_its_request() -> None:
    short, long = http_exchange(path="/a"), http_exchange(path="/a/b")
    raised = http_exchange(outcome="routed", error=ValueError("no such charge"))
    log = f"begin\n{unrouted_body(long)}{unrouted_body(short)}{handler_error_body(raised)}end\n"
    assert without_advice(log, [short, tcp(), long, raised]) == (
        "begin\n"
        "pytest-egress: GET https://api.test/a/b [its refusal, see above]\n"
        "pytest-egress: GET https://api.test/a [its refusal, see above]\n"
        "pytest-egress: GET https://api.test/ [its refusal, see above]\n"
        "end\n"
    )


def test_what_the_container_wrote_itself_stays() -> None:
    blocked = http_exchange(outcome="blocked")
    log = f"pytest-egress: {blocked} is blocked\nto answer it: nothing\n"
    assert without_advice(log, [blocked, http_exchange(note="malformed")]) == log


def unrouted(count: int) -> list[Exchange]:
    return [http_exchange(path=f"/{number}.") for number in range(count)]


def raising(count: int) -> list[Exchange]:
    """Of one request, so that the errors alone differ."""
    errors = [ValueError(f"error {number}.") for number in range(count)]
    return [http_exchange(outcome="routed", error=error) for error in errors]


def test_a_refusal_stays_where_the_failure_does_not_show_its_request() -> None:
    refused = unrouted(SHOWN_ATTEMPTS + 1)
    entries = [refused[0], *refused, tcp()]
    *shown, hidden = refused
    assert f"{shown[-1]}" in unrouted_text(entries)
    assert f"{hidden}" not in unrouted_text(entries)
    log = "".join(map(unrouted_body, refused))
    left = [f"pytest-egress: {each} [its refusal, see above]\n" for each in shown]
    assert without_advice(log, entries) == "".join(left) + unrouted_body(hidden)


def test_connections_that_are_shown_count_as_well() -> None:
    connections = [tcp(port=number) for number in range(SHOWN_ATTEMPTS)]
    hidden = http_exchange()
    assert without_advice(unrouted_body(hidden), [*connections, hidden]) == unrouted_body(hidden)


def test_each_error_of_a_handler_that_is_shown_is_taken_out() -> None:
    entries = raising(SHOWN_ATTEMPTS + 1)
    *shown, hidden = entries
    above = "\n".join(handler_errors_lines(entries, None))
    assert f"{shown[-1].error}" in above
    assert f"{hidden.error}" not in above
    left = without_advice("".join(map(handler_error_body, entries)), entries)
    assert left.count("see above") == SHOWN_ATTEMPTS
    assert left.endswith(handler_error_body(hidden))


def test_a_log_without_a_refusal_needs_no_entry() -> None:
    entry = http_exchange()
    entries = iter([entry])
    assert without_advice("begin\nend\n", entries) == "begin\nend\n"
    assert list(entries) == [entry], "it was looked at"
