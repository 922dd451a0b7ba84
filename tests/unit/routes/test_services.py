"""`ntp()` as an answer: what it takes, and its clock. traffic/test_ntp.py has its bytes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from struct import unpack
from typing import Any

import pytest

import pytest_egress
from pytest_egress import refuse, sequence
from pytest_egress.routes import services
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_UDP
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.routes.services import NtpServer, StatsdServer, SyslogServer, ntp, statsd, syslog
from pytest_egress.traffic.ntp import EPOCH, NtpError
from tests.support.entries import datagram

QUESTION = bytes([0x23]) + bytes(47)


def time_of(server: NtpServer) -> float:
    seconds, fraction = unpack("!2I", server(datagram(QUESTION))[40:48])
    return float(seconds - EPOCH + fraction / 2**32)


@pytest.mark.parametrize(
    ("at", "first"),
    [
        (datetime(2030, 1, 1, tzinfo=timezone.utc), 1893456000),
        (datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=1))), 1893452400),
        (1893456000, 1893456000),
        (0.5, 0.5),
    ],
)
def test_its_clock_begins_at_the_given_time_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, at: Any, first: float
) -> None:
    now = 1000.0
    monkeypatch.setattr(services, "monotonic", lambda: now)
    server = ntp(at=at)
    assert time_of(server) == first
    now += 90.25
    assert time_of(server) == first + 90.25


@pytest.mark.parametrize(
    ("at", "error", "said"),
    [
        (datetime(2030, 1, 1), ValueError, "it has no time zone; write datetime(2030, 1, 1, tz"),
        (
            "2030",
            TypeError,
            "ntp(at='2030'): it takes datetime(2030, 1, 1, tzinfo=timezone.utc), or",
        ),
        (True, TypeError, "ntp(at=True): it takes"),
        (None, TypeError, "ntp(at=None): it takes"),
        (float("nan"), ValueError, "ntp(at=nan): it takes seconds since 1970"),
        (1893456000e9, ValueError, "ntp(at=1.893456e+18): it takes seconds"),
    ],
)
def test_what_is_no_time_is_refused(at: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        ntp(at=at)
    assert said in str(caught.value)


def test_what_is_no_question_is_an_error_that_quotes_it() -> None:
    with pytest.raises(NtpError, match=r"^b'hello' is no question of NTP: it has 5 bytes"):
        ntp(at=0)(datagram(b"hello"))


def test_it_answers_routes_of_datagrams_also_in_a_sequence() -> None:
    server = ntp(at=0)
    assert declare(INTERCEPT_UDP, "ntp.test:123", server).answer is server
    declared = declare(INTERCEPT_UDP, "ntp.test:123", sequence(None, server)).answer
    assert declared == AnswerSequence(((), server))
    with pytest.raises(TypeError, match=r"ntp without parentheses is no answer; write ntp\(...\)"):
        declare(INTERCEPT_UDP, "ntp.test:123", ntp)


def test_it_is_a_public_name_and_shows_its_time() -> None:
    assert pytest_egress.ntp is ntp
    assert repr(ntp(at=5)) == "ntp(at=5)"


def test_statsd_reads_metrics_and_is_no_answer_of_a_sequence() -> None:
    declared = declare(INTERCEPT_UDP, "statsd.test:8125", statsd())
    assert isinstance(declared.answer, StatsdServer)
    assert [each.content for each in declared.answer.read(datagram(b"a:1|c\nb:2|c"))] == [
        b"a:1|c",
        b"b:2|c",
    ]
    with pytest.raises(TypeError, match=r"^statsd\(\) is an answer by itself, in no sequence\(\)"):
        declare(INTERCEPT_UDP, "statsd.test:8125", sequence(statsd(), refuse()))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="statsd without parentheses is no answer"):
        declare(INTERCEPT_UDP, "statsd.test:8125", statsd)
    assert pytest_egress.statsd is statsd


def test_syslog_reads_a_message_of_each_datagram() -> None:
    answer = declare(INTERCEPT_UDP, "syslog.test:514", syslog()).answer
    assert isinstance(answer, SyslogServer)
    assert [part.content for part in answer.read(datagram(b"<14>a\n<14>b"))] == [b"<14>a\n<14>b"]
    assert (repr(answer), pytest_egress.syslog) == ("syslog()", syslog)
