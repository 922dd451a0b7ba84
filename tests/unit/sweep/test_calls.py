"""The name of a call is the same from run to run, and has nothing of what a hostile target sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.sweep.calls import (
    call_of,
    connection_call,
    host_of,
    is_request,
    kind_of,
    kinds_of,
    matches,
    name_call,
)
from pytest_egress.sweep.cells import CallRow, Cell, parsed
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def request_of(path: str, **given: object) -> Request:
    said = {"method": "GET", "scheme": "https", "host": "api.test", "port": 443, **given}
    return Request(path=path, **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/charges", "/v1/charges"),
        ("/items/7", "/items/*"),
        (f"/items/{UUID}/parts/deadbeef", "/items/*/parts/*"),
        ("/a b", "/*"),
        ("/x]", "/*"),
        ("/" + "a" * 41, "/*"),
        ("/" + "/".join("abcdefghijklmnop"), "/a/b/c/d/e/f/g/h/i/j/k/*"),
        ("/\x1b[31m", "/*"),
    ],
)
def test_segments_that_are_ids_or_unusual_are_left_out(path: str, name: str) -> None:
    assert call_of(request_of(path)) == f"GET https://api.test{name}"


def test_a_port_is_told_where_it_is_another_than_that_of_the_scheme() -> None:
    assert call_of(request_of("/", scheme="http", port=8080)) == "GET http://api.test:8080/"
    assert call_of(request_of("/", scheme="http", port=80)) == "GET http://api.test/"
    assert call_of(request_of("/", host="2001:db8::1")) == "GET https://[2001:db8::1]/"


def test_what_has_the_form_of_a_secret_is_no_part_of_a_name() -> None:
    token = "ghp_" + "a1B2" * 9
    assert call_of(request_of(f"/hook/{token}")) == "GET https://api.test/hook/*"


@given(st.text(max_size=80), st.text(max_size=30))
def test_every_name_is_that_of_a_cell_and_can_be_typed(path: str, method: str) -> None:
    name = call_of(request_of(f"/{path}", method=method))
    assert name.isprintable()
    assert len(name) < 700
    for fault in ("503", "silence"):
        cell = Cell(row=CallRow(name, 3), fault=fault, is_once=True)
        assert parsed(str(cell)) == cell


def test_a_call_of_grpc_and_a_websocket_are_known_by_their_headers() -> None:
    grpc = Headers({"content-type": "application/grpc"})
    opening = Headers({"upgrade": "websocket", "connection": "upgrade"})
    assert kind_of(request_of("/")) == "http"
    assert kind_of(request_of("/", method="POST", headers=grpc)) == "grpc"
    assert kind_of(request_of("/", headers=opening)) == "websocket"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("db.test", "tcp://db.test:5432"),
        ("2001:db8::1", "tcp://[2001:db8::1]:5432"),
        ("*.test", "tcp://*.test:5432"),
        ("a b\x1b]", "tcp://*:5432"),
        ("a" * 300, "tcp://*:5432"),
    ],
)
def test_a_raw_connection_is_a_call_with_a_host_and_a_port(host: str, name: str) -> None:
    call = connection_call(host, 5432)
    assert (call, host_of(call)) == (name, name)
    assert matches("tcp://*", call)
    assert parsed(f"{call}: reset") == Cell(row=CallRow(call), fault="reset")


def test_a_look_up_is_a_call_with_a_host_alone() -> None:
    call = name_call("db.test")
    assert (call, host_of(call), is_request(call)) == ("dns://db.test", "dns://db.test", False)
    assert matches("db.test*", call)
    assert name_call("a b\x1b]") == "dns://*"
    assert kinds_of(call).isdisjoint(kinds_of(connection_call("db.test", 5432)))


@pytest.mark.parametrize(
    ("pattern", "is_for_it"),
    [
        ("api.test/*", True),
        ("*.test/v1/*", True),
        ("https://api.test*", True),
        ("POST *", True),
        ("GET *", False),
        ("api.test", False),
        ("pi.test*", False),
    ],
)
def test_a_glob_is_for_the_name_the_url_or_the_host_and_path(pattern: str, is_for_it: bool) -> None:
    assert matches(pattern, "POST https://api.test/v1/charges") is is_for_it


def test_the_host_of_a_call_has_its_scheme_and_port() -> None:
    assert host_of("GET http://api.test:8080/a/b") == "http://api.test:8080"
