"""What is left of our own refusals in the logs of containers. Of the bodies: `gateway/http/test_answering_unrouted`."""

from __future__ import annotations

from pytest_egress.ledger.refusals import handler_error_body, unrouted_body, without_advice
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
