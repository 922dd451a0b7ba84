"""Senders of datagrams as their users have them, in containers, to the services that routes have out of the box."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from pytest_egress import DatagramFlow, Egress, ntp, statsd, syslog

NEW_YEAR = datetime(2030, 1, 1, tzinfo=timezone.utc)
NTPLIB = """
import ntplib, time
said = ntplib.NTPClient().request("ntp.test", version=3, timeout=20)
print(time.strftime("%Y-%m-%d", time.gmtime(said.tx_time)), said.stratum)
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["python3", "-c", NTPLIB], "2030-01-01 1"),
        (["ntpdig", "-t", "20", "ntp.test"], "2030-01-01 00:00:"),
        (
            ["chronyd", "-Q", "-t", "30", "-f", "/dev/null", "server ntp.test iburst maxsamples 4"],
            "System clock wrong by",
        ),
    ],
    ids=["ntplib", "ntpdig", "chronyd"],
)
def test_a_client_of_ntp_takes_the_time_of_the_test(
    egress: Egress, senders_image: str, command: list[str], said: str
) -> None:
    clock = egress.intercept_udp("ntp.test:123", ntp(at=NEW_YEAR))
    done = egress.run(senders_image, command, env={"TZ": "UTC"})
    assert said in done.stdout + done.stderr
    assert len(clock.calls[0].replies) == 1


STATSD = """
import statsd
with statsd.StatsClient("statsd.test", 8125, prefix="shop").pipeline() as client:
    client.incr("orders", 3)
    client.timing("ms", 12.5)
    client.gauge("stock", -2, delta=True)
    client.set("users", "ann")
"""


def test_a_client_of_statsd_sends_several_metrics_in_a_datagram(
    egress: Egress, senders_image: str
) -> None:
    route = egress.intercept_udp("statsd.test:8125", statsd())
    egress.run(senders_image, ["python3", "-c", STATSD])
    assert route.wait_for_call(4) is not None
    assert [(call.name, call.value, call.type) for call in route.calls] == [
        ("shop.orders", 3, "c"),
        ("shop.ms", 12.5, "ms"),
        ("shop.stock", -2, "g"),
        ("shop.users", "ann", "s"),
    ]
    assert route.calls[2].is_delta
    (flow,) = [entry for entry in egress.ledger if isinstance(entry, DatagramFlow)]
    assert len(flow.datagrams) == 1


PYTHON_SYSLOG = """
import logging, logging.handlers
handler = logging.handlers.SysLogHandler(("syslog.test", 514), "local3")
handler.ident = "shop: "
logging.getLogger().addHandler(handler)
logging.error("card of %s refused", "ann")
"""
LOGGER = ["logger", "-d", "-n", "syslog.test", "-P", "514", "-t", "shop", "-p", "local3.err"]


@pytest.mark.parametrize(
    ("command", "rfc"),
    [
        ([*LOGGER, "--rfc5424", "--id=7", "card of ann refused"], 5424),
        ([*LOGGER, "--rfc3164", "--id=7", "card of ann refused"], 3164),
        (["python3", "-c", PYTHON_SYSLOG], 3164),
    ],
    ids=["logger 5424", "logger 3164", "Python"],
)
def test_a_client_of_syslog_is_read(
    egress: Egress, senders_image: str, command: list[str], rfc: int
) -> None:
    log = egress.intercept_udp("syslog.test:514", syslog())
    egress.run(senders_image, command)
    call = log.wait_for_call()
    assert (call.rfc, call.facility, call.severity) == (rfc, "local3", "err")
    assert (call.app_name, call.message) == ("shop", "card of ann refused")
    assert call.process_id == ("7" if command[0] == "logger" else "")
