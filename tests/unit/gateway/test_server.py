"""The gateway's own thread, its end, and defects of its own."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections import Counter

import pytest
import trustme

from pytest_egress.agent import netlink
from pytest_egress.gateway import dispatch, packets
from pytest_egress.traffic.http.request import Request
from tests.support.stage import (
    GET,
    MEGABYTE,
    SECONDS,
    Stage,
    ask,
    end_of,
    eventually,
    hello_bytes,
)


def test_a_change_of_what_captures_fails_the_test(stage: Stage) -> None:
    stage.link.monitor_source.send(netlink.message(33, 0, bytes(12)))  # RTM_DELRULE
    stage.gateway.flush(SECONDS)
    assert stage.window.complaints == [
        "target: something deleted a policy rule in the target's network namespace"
    ]
    assert stage.was_lost.is_set()
    stage.window.complaints.clear()


def test_when_the_sidecar_dies_nobody_is_left_waiting(stage: Stage) -> None:
    stage.link.agent.close()
    assert stage.was_lost.wait(SECONDS)
    stage.gateway.flush(SECONDS)
    with pytest.raises(ConnectionRefusedError):
        stage.dial()
    (complaint,) = stage.window.complaints
    assert complaint.startswith("target: its sidecar was lost while it ran (it has ended); nothing")
    stage.window.complaints.clear()


def test_a_forked_child_keeps_no_connection_open_and_no_reader_asleep(stage: Stage) -> None:
    stage.http("api.test", b"all")
    sock = stage.dial(port=80)
    read, write = os.pipe()
    assert eventually(lambda: stage.gateway.connections)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside threads
        child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the test is over
        os._exit(0)
    try:
        assert ask(sock, b"GET / HTTP/1.0\r\nHost: api.test\r\n\r\n").body == b"all"
        assert end_of(sock) == "closed"
        stage.gateway.stop()
        assert not stage.gateway._reader.is_alive()
    finally:
        os.close(write)
        os.waitpid(child, 0)
        os.close(read)
    assert not stage.window.complaints


def test_a_defect_of_the_reader_fails_the_test_and_hangs_nobody(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse_packets(data: bytes) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(packets, "parse_packets", parse_packets)
    stage.link.packet_source.send(b"x")
    stage.gateway.flush(SECONDS)
    assert eventually(lambda: stage.window.complaints)
    (complaint,) = stage.window.complaints
    assert complaint.startswith("target: the gateway failed: Traceback")
    assert stage.was_lost.is_set()
    assert "ZeroDivisionError: a defect" in complaint
    with pytest.raises(ConnectionRefusedError):
        stage.dial()
    stage.window.complaints.clear()


def test_a_defect_in_a_connection_fails_the_test(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks_like_http(connection: object) -> bool:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(dispatch.Dispatcher, "looks_like_http", looks_like_http)
    sock = stage.dial()
    sock.sendall(b"x")
    end_of(sock)
    stage.settle()
    (complaint,) = stage.window.complaints
    assert "ZeroDivisionError: a defect" in complaint
    stage.window.complaints.clear()


# Its end.


def descriptors() -> Counter[str]:
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    kinds: Counter[str] = Counter()
    for path in links:
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            kinds[os.readlink(path).partition(":")[0]] += 1
    return kinds


@pytest.mark.parametrize("turn", range(3))
def test_stopping_leaves_no_thread_and_no_descriptor(ca: trustme.CA, turn: int) -> None:
    hello = hello_bytes(ca)
    threads, opened = set(threading.enumerate()), descriptors()
    stage, go_on = Stage(ca), threading.Event()
    with stage.open:
        stage.https("api.test", b"yes")
        stage.https("api.test", bytes(20 * MEGABYTE), path="/big")
        stage.https("api.test", lambda request: go_on.wait(SECONDS) and None, path="/slow")
        stage.gateway.start()
        for _ in range(10):
            stage.dial().sendall(hello[:200])  # within its hello
            stage.dial().sendall(hello)  # within its handshake
            stage.tls().sendall(b"GET / HTTP/1.1\r\nHos")  # within a head
            ask(stage.tls())  # idle
            stage.tls().sendall(GET.replace(b" / ", b" /big "))  # blocked in a write
            stage.tls().sendall(GET.replace(b" / ", b" /slow "))  # within a handler
        assert eventually(lambda: stage.count("/slow") == stage.count("/big") == 10)
        assert len(stage.gateway.connections) == 60
        timer = threading.Timer(0.2, go_on.set)
        timer.start()
        assert stage.gateway.stop(SECONDS) == []
        assert not stage.gateway.connections
        timer.join()
    assert eventually(lambda: set(threading.enumerate()) <= threads)
    assert descriptors() == opened


def test_a_handler_that_never_ends_is_told_of_by_its_line(ca: trustme.CA) -> None:
    stage, go_on, started = Stage(ca), threading.Event(), threading.Event()

    def endless(request: Request) -> None:
        started.set()
        go_on.wait(SECONDS)

    stage.https("api.test", endless)
    stage.gateway.start()
    with stage.open:
        stage.tls().sendall(GET)
        assert started.wait(SECONDS)
        (text,) = stage.gateway.stop(0.1)
        assert text.startswith(f"{__file__}:")
        assert text.endswith(" in endless: go_on.wait(SECONDS)")
        go_on.set()
        assert eventually(lambda: not stage.gateway.connections)


def test_what_the_stop_itself_breaks_off_is_no_attempt(ca: trustme.CA) -> None:
    stage = Stage(ca)
    stage.gateway.start()
    with stage.open:
        stage.dial()
        stage.dial().sendall(hello_bytes(ca)[:100])
        stage.dial().sendall(hello_bytes(ca))
        stage.tls()
        stage.tls().sendall(b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 9\r\n\r\n")
        stage.tls().sendall(b"GET / HTTP/1.1\r\nHo")
        stage.gateway.flush(SECONDS)
        assert stage.gateway.stop(SECONDS) == []
    assert stage.window.entries == []
    assert stage.window.complaints == []


def test_a_gateway_can_be_stopped_again_or_before_its_start(ca: trustme.CA) -> None:
    stage = Stage(ca)
    with stage.open:
        stage.gateway.flush()
        assert stage.gateway.stop() == []
        assert stage.gateway.stop() == []
        stage.gateway.flush()
