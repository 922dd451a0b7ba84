"""What a client of HTTP/2 sends in requests that are refused, or late, is searched for secrets all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame

from pytest_egress.gateway.http import bodies
from pytest_egress.traffic.http import http2
from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.leaks import leaks
from pytest_egress.traffic.search.secrets import Secret
from tests.support.http2_client import Fields, Http2Client
from tests.support.stage import ADDRESS, SECONDS, Stage

KEY = "sk-of-the-test-1"
HEAD = [(":method", "GET"), (":scheme", "http"), (":authority", "api.test"), (":path", "/a")]
WITH_KEY = [*HEAD, ("x-key", KEY)]


@pytest.fixture
def made(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Secret:
    monkeypatch.setattr(bodies, "REST_SECONDS", 0.01)
    secret = Secret(KEY)
    stage.window.account._others.secrets = KnownValues([(KEY, secret)])
    return secret


@pytest.fixture
def client(stage: Stage, made: Secret) -> Http2Client:
    return Http2Client(stage.dial(ADDRESS, 80), "http")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def headers(client: Http2Client, number: int, fields: Fields, *flags: str) -> Frame:
    block = client.h2.encoder.encode(fields)
    return HeadersFrame(number, block, flags=["END_HEADERS", *flags])


def leaked(stage: Stage, made: Secret) -> list[str]:
    stage.settle()
    return [leak.told for leak in leaks(stage.window.entries, [made])]


def is_read(client: Http2Client) -> bool:
    """Wait until the gateway has read all that was sent."""
    count = client.pongs
    client.h2.ping(b"12345678")
    client.flush()
    return client.until(lambda: client.pongs > count)


def test_trailers_after_the_end_of_the_response_are_searched(
    stage: Stage, made: Secret, client: Http2Client
) -> None:
    stage.http(ADDRESS, 413, stream=True)
    number = client.begin("/a", "POST", ends=False)
    client.flush()
    assert client.until(lambda: client.answers[number].ended)
    client.sock.sendall(headers(client, number, [("x-key", KEY)], "END_STREAM").serialize())
    assert is_read(client)
    assert leaked(stage, made) == ["the secret of a marker in its body"]
    assert client.ask("/a").status == 413  # the connection goes on


@pytest.mark.parametrize("policy", ["fail", "block"])
def test_a_stream_over_the_limit_is_searched(
    stage: Stage,
    made: Secret,
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
) -> None:
    monkeypatch.setattr(http2, "MAX_STREAMS", 1)
    stage.window.policy = policy  # type: ignore[assignment]
    stage.http(ADDRESS, lambda _: gate.wait(SECONDS) and b"")
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    client.begin("/a")
    client.flush()
    client.sock.sendall(headers(client, 3, WITH_KEY, "END_STREAM").serialize())
    assert client.until(lambda: client.goaway)
    gate.set()
    assert leaked(stage, made) == ["the secret of a marker in its bytes"]


def begun(client: Http2Client, **said: Any) -> bytes:
    client.begin("/a", **said)
    return client.h2.data_to_send()


def malformed(client: Http2Client) -> list[bytes]:
    return [begun(client, method="A B", headers=[("x-key", KEY)])]


def body_of_a_malformed_one(client: Http2Client) -> list[bytes]:
    pieces = [DataFrame(1, each.encode()).serialize() for each in (KEY[:7], KEY[7:])]
    return [begun(client, method="A B", ends=False), *pieces]


def twice(client: Http2Client) -> list[bytes]:
    return [begun(client), headers(client, 1, WITH_KEY, "END_STREAM").serialize()]


def body_after_its_end(client: Http2Client) -> list[bytes]:
    pieces = [DataFrame(1, each.encode()).serialize() for each in (KEY[:7], KEY[7:])]
    return [begun(client), *pieces]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "frames", [malformed, body_of_a_malformed_one, twice, body_after_its_end], ids=lambda f: f.__name__
)  # fmt: skip
def test_a_request_that_cannot_be_read_is_searched(
    stage: Stage,
    made: Secret,
    client: Http2Client,
    gate: threading.Event,
    frames: Callable[[Http2Client], list[bytes]],
    at_once: bool,
) -> None:
    stage.http(ADDRESS, lambda _: gate.wait(SECONDS) and b"")
    sent = frames(client)
    for data in [b"".join(sent)] if at_once else sent:
        client.sock.sendall(data)
        assert is_read(client)
    gate.set()
    assert leaked(stage, made) == ["the secret of a marker in its bytes"]
