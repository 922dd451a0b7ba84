"""Services out of the box, as the answers of routes of datagrams: `ntp()`, `statsd()` and `syslog()`.

The rule: they hold no socket and no lock, so that any number of routes and containers may use one at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from math import isfinite
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.routes.datagrams import DatagramService
from pytest_egress.traffic.entries import Datagram
from pytest_egress.traffic.ntp import NtpError, ntp_answer
from pytest_egress.traffic.parts import UnreadablePart
from pytest_egress.traffic.shown import shown
from pytest_egress.traffic.statsd import Metric, metrics_in
from pytest_egress.traffic.syslog import SyslogMessage, message_in


def ntp(*, at: datetime | float) -> NtpServer:
    """Be a server of time (NTP, RFC 5905), as the answer of `intercept_udp`.

    Its clock says `at` when this is called, and goes on from there: clients refuse a clock that stands still. Each
    question is a call of the route, a `Datagram`. What is no question of NTP fails the test.

    Args:
        at: A `datetime` with a time zone, or seconds since 1970.

    Raises:
        TypeError, ValueError: It is neither.
    """
    if isinstance(at, datetime):
        if at.utcoffset() is None:
            raise ValueError(f"ntp(at={at!r}): it has no time zone; write {EXAMPLE}")
        return NtpServer(at.timestamp(), repr(at))
    if isinstance(at, bool) or not isinstance(at, (int, float)):
        raise TypeError(f"ntp(at={shown(at)}): it takes {EXAMPLE}, or seconds since 1970")
    if not isfinite(at) or abs(at) > MOST_SECONDS:
        raise ValueError(f"ntp(at={at!r}): it takes seconds since 1970, as {EXAMPLE}.timestamp()")
    return NtpServer(at, repr(at))


EXAMPLE: Final = "datetime(2030, 1, 1, tzinfo=timezone.utc)"
MOST_SECONDS: Final = 1e11  # thousands of years, of which a float still tells microseconds


class NtpServer:
    """The server that `ntp()` returns: a handler of datagrams."""

    def __init__(self, at: float, given: str) -> None:
        self._began, self._at, self._given = monotonic(), at, given

    def __call__(self, datagram: Datagram) -> bytes:
        try:
            return ntp_answer(datagram.content, self._at + monotonic() - self._began)
        except NtpError as error:
            raise NtpError(
                f"{shown(datagram.content[:48])} is no question of NTP: {error}"
            ) from None

    def __repr__(self) -> str:
        return f"ntp(at={self._given})"


def statsd() -> StatsdServer:
    """Take metrics of StatsD and DogStatsD, as the answer of `intercept_udp`.

    Each metric is a call of the route, a `Metric`: its name, value, type, sample rate and tags. So `times=` counts
    metrics, however many come in one datagram; each of several values is one. Events and service checks are calls too.
    A line that is none of these fails the test.
    """
    return StatsdServer()


class StatsdServer(DatagramService[Metric]):
    """The server that `statsd()` returns."""

    def read(self, datagram: Datagram) -> Iterable[Metric | UnreadablePart]:
        return metrics_in(datagram)

    def __repr__(self) -> str:
        return "statsd()"


def syslog() -> SyslogServer:
    """Take messages of syslog (RFC 5424, RFC 3164), as the answer of `intercept_udp`.

    Each is a call of the route, a `SyslogMessage`: its message, facility, severity and program. What begins with no
    priority, or is malformed by RFC 5424, fails the test.
    """
    return SyslogServer()


class SyslogServer(DatagramService[SyslogMessage]):
    """The server that `syslog()` returns."""

    def read(self, datagram: Datagram) -> Iterable[SyslogMessage | UnreadablePart]:
        return (message_in(datagram),)

    def __repr__(self) -> str:
        return "syslog()"
