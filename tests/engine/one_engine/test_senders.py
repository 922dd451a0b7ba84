"""Senders of datagrams as their users have them, in containers, to the services that routes have out of the box."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from pytest_egress import DatagramFlow, Egress, ntp, statsd

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
