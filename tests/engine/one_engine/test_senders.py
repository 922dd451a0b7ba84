"""Senders of datagrams as their users have them, in containers, to the services that routes have out of the box."""

from __future__ import annotations

import shlex
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


DATADOG = """
from datadog.dogstatsd import DogStatsd
with DogStatsd("statsd.test", 8125, constant_tags=["country:de"], disable_telemetry=True) as client:
    client.increment("python.orders")
    client.histogram("python.ms", 12.5)
"""
HOT_SHOTS = """
const { StatsD } = require("hot-shots");
const client = new StatsD({ host: "statsd.test", maxBufferSize: 1000, globalTags: { country: "de" } });
client.increment("node.orders");
client.timing("node.ms", 12.5, () => client.close());
"""
NODE = """
const socket = require("dgram").createSocket("udp4");
socket.on("message", (message) => { console.log(message.toString()); socket.close(); });
socket.send("node", 7, "echo.test");
"""
JAVA = """
import java.net.*;
public class Ask {
    public static void main(String[] arguments) throws Exception {
        try (DatagramSocket socket = new DatagramSocket()) {
            socket.setSoTimeout(20000);
            socket.connect(new InetSocketAddress("echo.test", 7));
            socket.send(new DatagramPacket("java".getBytes(), 4));
            DatagramPacket answer = new DatagramPacket(new byte[100], 100);
            socket.receive(answer);
            System.out.println(new String(answer.getData(), 0, answer.getLength()));
        }
    }
}
"""


def test_clients_of_statsd_and_sockets_of_other_languages_are_read_and_answered(
    egress: Egress, senders_image: str, java_image: str
) -> None:
    metrics = egress.intercept_udp("statsd.test:8125", statsd())
    asked = egress.intercept_udp("echo.test:7", lambda datagram: datagram.content.upper())
    commands = [
        ["python3", "-c", DATADOG],
        ["node", "-e", HOT_SHOTS],
        ["node", "-e", NODE],
        ["ask", "echo.test:7", "go"],
    ]
    script = " && ".join(map(shlex.join, commands))
    assert egress.run(senders_image, ["sh", "-c", script]).stdout == "NODE\nGO\n"
    java = 'printf %s "$SOURCE" >/tmp/Ask.java && exec /usr/lib/jvm/21/bin/java /tmp/Ask.java'
    assert egress.run(java_image, ["sh", "-c", java], env={"SOURCE": JAVA}).stdout == "JAVA\n"
    assert [call.text for call in asked.calls] == ["node", "go", "java"]
    metrics.wait_for_call(4)
    assert {(call.name, call.value, call.type) for call in metrics.calls} == {
        ("python.orders", 1, "c"),
        ("python.ms", 12.5, "h"),
        ("node.orders", 1, "c"),
        ("node.ms", 12.5, "ms"),
    }
    assert all("country:de" in call.tags for call in metrics.calls)
