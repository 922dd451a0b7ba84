"""`smtp()` as an answer: where it is accepted. gateway/raw/test_server_smtp.py serves mails by it."""

from __future__ import annotations

import pytest

import pytest_egress
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTPS, INTERCEPT_TCP, INTERCEPT_TLS, Kind
from pytest_egress.routes.raw.smtp import SmtpServer, smtp
from pytest_egress.routes.sequences import AnswerSequence


@pytest.mark.parametrize("kind", [INTERCEPT_TCP, INTERCEPT_TLS])
def test_it_answers_raw_routes_alone_and_in_a_sequence(kind: Kind) -> None:
    assert isinstance(declare(kind, "mail.test:25", smtp()).answer, SmtpServer)
    declared = declare(kind, "mail.test:25", sequence(b"421 busy\r\n", smtp())).answer
    assert isinstance(declared, AnswerSequence)


def test_a_route_of_requests_says_which_route_takes_it() -> None:
    with pytest.raises(
        TypeError,
        match=r"smtp\(\) answers connections, and this route requests: use intercept_tcp or intercept_tls",
    ):
        declare(INTERCEPT_HTTPS, "mail.test", smtp())


def test_it_is_a_public_name() -> None:
    assert pytest_egress.smtp is smtp
