"""Faults of requests as real clients in containers see them, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest

from pytest_egress import (
    Egress,
    Request,
    delayed,
    disconnect,
    raw,
    reset,
    reset_stream,
    sequence,
    silence,
    throttled,
    truncated,
)
from pytest_egress.errors import ContainerTimeoutError
from pytest_egress.session import Session
from pytest_egress.targets.handle import Container
from tests.support.upstreams import succeed

SECONDS: Final = 30.0
CHARGE: Final = {"id": "ch_1"}
CURL: Final = "curl -sS -o /dev/null -w %{http_code},%{size_download} --max-time 20"


@pytest.fixture(scope="module")
def client(module_egress: Egress, clients_image: str) -> Container:
    """A container with curl, and Python's requests and httpx."""
    return module_egress.start(clients_image, ["sleep", "infinity"])


@dataclass(frozen=True)
class Case:
    """A row: a fault, and curl's exit codes by HTTP/1.1 and by HTTP/2 (`man curl`, EXIT CODES).

    Where it reads and writes at the same time, as HTTP/2 does, either may be the first to fail.
    """

    name: str
    answer: Any
    http1: set[int]
    http2: set[int]
    options: str = ""


NONE: Final = {0}
TIMED_OUT: Final = {28}
RESET: Final = {56}  # "Recv failure: Connection reset by peer"
RESET2: Final = {55, 56}
EMPTY_REPLY: Final = {52}
CLOSED2: Final = {16, 52}  # "Error in the HTTP2 framing layer"
PARTIAL: Final = {18}
STREAM2: Final = {92}  # "HTTP/2 stream 1 was not closed cleanly: INTERNAL_ERROR"
NOT_HTTP: Final = {1}  # "Received HTTP/0.9 when not allowed"
NOT_HTTP2: Final = {16, 56}

CASES: Final = [
    Case("reset", reset(), RESET, RESET2),
    Case("reset-stream", reset_stream(), RESET, STREAM2),
    Case("disconnect", disconnect(), EMPTY_REPLY, CLOSED2),
    Case("disconnect-after", disconnect(CHARGE), NONE, NONE),
    Case("silence", silence(), TIMED_OUT, TIMED_OUT, "--max-time 3"),
    Case("silence-ends", silence(0.1), EMPTY_REPLY, CLOSED2),
    Case("raw", raw(b"\x16\x03\x01 this is no HTTP\n"), NOT_HTTP, NOT_HTTP2),
    Case("delayed", delayed(CHARGE, 0.1), NONE, NONE),
    Case("throttled", throttled(b"x" * 100, 1000), NONE, NONE),
    Case("truncated", truncated(CHARGE, 3), PARTIAL, STREAM2),
    # Delayed, so that curl has acknowledged our SETTINGS: its write could meet the reset before it reads the answer.
    Case("truncated-reset", truncated(delayed(CHARGE, 0.3), 3, reset=True), RESET, RESET2),
    Case("truncated-chunks", truncated(lambda request: iter(["abcdef"]), 3), PARTIAL, STREAM2),
]


@pytest.mark.parametrize("version", ["http1.1", "http2"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_curl_sees_each_fault(egress: Egress, client: Container, case: Case, version: str) -> None:
    route = egress.intercept_https("api.test", case.answer)
    asked = client.exec(f"{CURL} --{version} {case.options} https://api.test/charges", check=False)
    wanted = case.http1 if version == "http1.1" else case.http2
    assert asked.exit_code in wanted, asked.stderr
    (call,) = route.calls
    assert call.fault is not None
    assert call.request.http_version == version.removeprefix("http").partition(".0")[0]
    if case.name.startswith("truncated"):
        assert asked.stdout == "200,3"


def test_plain_http_fails_too(egress: Egress, client: Container) -> None:
    egress.intercept_http("api.test", sequence(reset(), disconnect(), truncated(CHARGE, 3)))
    codes = [client.exec(f"{CURL} http://api.test/", check=False).exit_code for _ in range(3)]
    assert [{code} for code in codes] == [RESET, EMPTY_REPLY, PARTIAL]


RETRIES: Final = """
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

session = requests.Session()
retry = Retry(3, backoff_factor=0.2, allowed_methods=None, status_forcelist=[503])
session.mount("https://", HTTPAdapter(max_retries=retry))
key = {"Idempotency-Key": "one"}
print(session.post("https://api.test/charges", json={"amount": 1}, headers=key).json()["id"])
"""


def test_a_client_that_backs_off_is_seen_to(egress: Egress, client: Container) -> None:
    charges = egress.intercept_https("api.test", sequence(reset(), 503, disconnect(), CHARGE))
    assert succeed(client.exec(["python3", "-c", RETRIES])) == "ch_1"
    _, second, third = charges.intervals  # at once, after 0.4 s, and after 0.8 s
    assert second >= 0.4
    assert third >= 0.8
    assert [call.request.content for call in charges.calls] == [b'{"amount": 1}'] * 4
    assert {call.request.headers["idempotency-key"] for call in charges.calls} == {"one"}
    assert [str(call.fault) for call in charges.calls] == [
        "reset()",
        "None",
        "disconnect()",
        "None",
    ]


ERRORS: Final = """
import httpx, requests, sys
for path in sys.argv[1:]:
    for get in (requests.get, httpx.get):
        try:
            get(f"https://api.test/{path}", timeout=0.5 if path == "silence" else 30)
        except Exception as error:
            print(path, type(error).__name__)
"""


def test_a_handler_chooses_the_fault(egress: Egress, client: Container) -> None:
    faults = {
        "/reset": reset(),
        "/disconnect": disconnect(),
        "/silence": silence(),
        "/truncated": truncated(CHARGE, 3),
        "/raw": raw(b"nonsense\r\n\r\n"),
    }

    @egress.intercept_https("api.test")
    async def handler(request: Request) -> Any:
        return faults[request.path]

    paths = [path[1:] for path in faults]
    seen = succeed(client.exec(["python3", "-c", ERRORS, *paths])).split("\n")
    assert seen == [
        "reset ConnectionError",
        "reset ReadError",
        "disconnect ConnectionError",
        "disconnect RemoteProtocolError",
        "silence ReadTimeout",
        "silence ReadTimeout",
        "truncated ChunkedEncodingError",
        "truncated RemoteProtocolError",
        "raw ConnectionError",
        "raw RemoteProtocolError",
    ]
    assert handler.call_count >= 10


POOLED: Final = """
import requests, time
session = requests.Session()
for _ in range(2):
    print(session.get("https://api.test/").json())
    time.sleep(0.5)
"""


def test_a_pool_finds_its_connection_closed_and_opens_another(
    egress: Egress, client: Container
) -> None:
    egress.intercept_https("api.test", sequence(disconnect({"n": 1}), {"n": 2}))
    assert succeed(client.exec(["python3", "-c", POOLED])) == "{'n': 1}\n{'n': 2}"


def test_a_time_out_names_what_the_container_still_waited_for(clients_image: str) -> None:
    session = Session()
    with Egress(session=session) as egress:
        egress.intercept_https("api.test", silence())
        with pytest.raises(ContainerTimeoutError) as caught:
            egress.run(clients_image, ["curl", "-sS", "https://api.test/charges"], timeout=2)
    session.close()
    lines = str(caught.value).splitlines()
    assert "It still waited for:" in lines
    assert "  GET https://api.test/charges -> silence()" in lines


WAITING: Final = [silence(), delayed(CHARGE, 1000), throttled(b"x" * 100, 0.01)]


def test_no_test_waits_for_the_end_of_a_fault(clients_image: str) -> None:
    curls = [
        f"curl -sS --{version} https://api.test/{number} >/dev/null 2>&1 &"
        for number in range(len(WAITING))
        for version in ("http1.1", "http2")
    ]
    with Egress() as egress:
        routes = [
            egress.intercept_https("api.test", answer, path=f"/{number}")
            for number, answer in enumerate(WAITING)
        ]
        egress.start(clients_image, ["sh", "-c", " ".join([*curls, "sleep 600"])])
        for route in routes:
            route.wait_for_call(2, timeout=SECONDS)
        ledger = egress._inner.session.ledger
        assert ledger.wait_for(lambda: len(ledger.pauses) == 2 * len(WAITING), SECONDS)
    notes = [call.note for route in routes for call in route.calls]
    assert all(note.startswith("its window was closed before") for note in notes), notes


def test_a_request_that_is_repeated_when_its_fault_is_cut_fails_no_test(
    clients_image: str,
) -> None:
    hammer = ["bash", "-c", "while :; do curl -sS https://api.test/; done"]
    egress = Egress().__enter__()
    route, session = egress.intercept_https("api.test", sequence(silence())), egress._inner.session
    egress.start(clients_image, hammer)
    route.wait_for_call(timeout=SECONDS)
    assert session.ledger.window is not None
    session.close_window(session.ledger.window)  # as the block's end does
    late = egress._inner.between.entries
    assert session.ledger.wait_for(lambda: any(e.outcome == "unrouted" for e in late), SECONDS)
    egress.__exit__(None)


def test_what_was_repeated_after_a_fault_is_told(egress: Egress, client: Container) -> None:
    egress.intercept_https("api.test", sequence(reset()))
    client.exec("curl -sS https://api.test", check=False)
    told = succeed(client.exec("curl -sS https://api.test"))
    assert "the call before it was answered by reset(): the client may have repeated it" in told
    ledger = egress.ledger
    unrouted = next(entry for entry in ledger if entry.outcome == "unrouted")
    unrouted.outcome = "blocked"  # this test has seen it
