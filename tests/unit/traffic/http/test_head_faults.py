"""The strict look at a head: where it ends, and what is refused of it."""

from __future__ import annotations

import re

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_egress.traffic.http.head import MAX_HEADER_BYTES
from pytest_egress.traffic.http.head_faults import (
    HeadFault,
    end_of_head,
    fault_in_http2,
    head_fault,
    trailer_fault,
)

GET = b"GET / HTTP/1.1\r\nHost: api.test\r\n%b\r\n"
PIECES = st.sampled_from(
    [
        *(b"GET", b"POST", b"PRI", b"CONNECT", b" ", b"/", b"*", b"x", b"http://api.test"),
        *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"\r\n", b"\n", b"\r", b"\r\n ", b"\t", b"\0"),
        *(b"Host", b"X", b":", b": ", b",", b"4", b"+4", b"chunked", b"\xe9", b"\x7f"),
        *(b"Content-Length: 4", b"content-length:4, 4", b"Transfer-Encoding: chunked"),
        *(b"GET / HTTP/1.1\r\nHost: api.test\r\n", b"\r\n\r\n", b"\r\n0\r\n"),
    ]
)
ANY_HEAD = st.lists(PIECES | st.binary(max_size=8), max_size=12).map(b"".join)


def reads(head: bytes) -> h11.Request | None:
    """What h11 makes of a head."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


def refused(head: bytes) -> str:
    """Why a head is refused; "" where it is not."""
    fault = head_fault(head)
    return fault.text if fault else ""


@given(ANY_HEAD)
@example(GET % b"X: 1\n")
@example(GET % b"Content-Length: 4,4\r\n")
@example(b"GET / HTTP/1.1\r\n X: 1\r\n\r\n")
def test_any_head_has_one_meaning_or_is_refused(data: bytes) -> None:
    end = end_of_head(data)
    if end is None:
        assert re.search(rb"\n\r?\n", data) is None
        return
    fault = head_fault(data[:end])
    assert fault is None or (fault.status_code in (400, 431, 505) and fault.text)
    request = reads(data[:end])
    if request is None or fault is not None:
        return
    assert data[:end].endswith(b"\r\n\r\n")
    names = [name for name, _ in request.headers]
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert len(names) == data[:end].count(b"\n") - 2  # one line, one field
    assert request.http_version in (b"1.0", b"1.1", b"2.0")


@given(st.lists(PIECES | st.binary(max_size=8), max_size=12).map(b"".join), st.integers(0, 9))
def test_any_trailer_section_is_in_order_or_is_refused(data: bytes, count: int) -> None:
    fault = trailer_fault(data, count)
    assert fault is None or (fault.status_code == 400 and fault.text)


def test_a_head_ends_behind_its_empty_line() -> None:
    assert end_of_head(b"") is None
    assert end_of_head(GET % b"" + b"body") == len(GET % b"")
    assert end_of_head(b"GET / HTTP/1.1\n\nbody") == 16
    head = GET % b"X: y\r\n"
    assert [end_of_head(head[:cut]) for cut in range(len(head))] == [None] * len(head)


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Content-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"X-Content-Length: 4\r\nContent-Length: 4\r\n",
        b"X: content-length: 4, 4\r\n",
        b"X:\r\n",
        b"X:y\r\n",
        b"X: \ty\t \r\n",
        b"X: caf\xe9 \xe2\x82\xac\r\n",
        b"X: y\r\n" * 2000,
    ],
)
@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1",
        b"GET /a?b=c&d#e HTTP/1.1",
        b"get /%20{}|^\"'<> HTTP/1.1",
        b"GET http://api.test/x HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT api.test:443 HTTP/1.1",
    ],
)
def test_what_clients_send_is_in_order(line: bytes, fields: bytes) -> None:
    assert refused((GET % fields).replace(b"GET / HTTP/1.1", line)) == ""


def test_a_client_of_http_1_0_may_leave_out_the_host() -> None:
    assert refused(b"GET / HTTP/1.0\r\nContent-Length: 4\r\n\r\n") == ""


def test_the_preface_of_http_2_is_no_fault() -> None:
    assert refused(b"PRI * HTTP/2.0\r\n\r\n") == ""


def test_a_message_names_a_field_and_none_of_its_value() -> None:
    secret = GET % b"Authorization: Bearer hunter2\x01\r\n"
    assert refused(secret) == (
        "its head has a control character, in its field 'Authorization' (RFC 9110 section 5.5)"
    )
    assert refused(GET % b"Cookie: hunter2\r\n\thunter2\r\n") == (
        "a line of its head begins with white space, after its field 'Cookie': a field is one line "
        "(RFC 9112 section 5.2)"
    )
    assert refused(b"GET http://x HTTP/1.1\r\n Host: hunter2\r\n\r\n") == (
        "a line of its head begins with white space: a field is one line (RFC 9112 section 5.2)"
    )


def test_a_head_is_no_longer_than_the_limit_however_it_comes() -> None:
    head = GET % b"".join([b"X: ", b"y" * (MAX_HEADER_BYTES - len(GET) - 3), b"\r\n"])
    assert len(head) == MAX_HEADER_BYTES
    assert head_fault(head) is None
    assert head_fault(head.replace(b"X:", b"XX:")) == HeadFault(
        "its head is over MAX_HEADER_BYTES, 65536 bytes", 431
    )


@pytest.mark.parametrize(
    ("section", "count", "text"),
    [
        (b"\r\n", 0, ""),
        (b"0\r\n\r\n", 0, ""),
        (b"hello\n\r\n0\r\n\r\n", 0, ""),
        (b"a\nb\r\n0\r\nX: y\r\n\r\n", 1, ""),
        (b"0\r\n\n", 0, "ends in LF alone"),
        (b"0\r\nX: y\n\r\n", 1, "ends in LF alone"),
        (b"0\r\nX: y\r\nZ: y\n\r\n", 2, "ends in LF alone"),
        (b"0\r\nX: y\r\n\n", 1, "ends in LF alone"),
        (b"0\r\nX: y\r\n z\r\n\r\n", 1, "begins with white space"),
        (b"0\r\nX: y\r\n z\r\nZ: y\r\n\r\n", 2, "begins with white space"),
        (b"X: \x01\r\n\r\n", 1, "control character"),
    ],
)
def test_a_trailer_section_is_held_to_the_same(section: bytes, count: int, text: str) -> None:
    fault = trailer_fault(section, count)
    assert text in fault.text if fault else text == ""


H2_FIELDS = [(b"content-length", b"2"), (b"x", b"caf\xc3\xa9\ty")]


@pytest.mark.parametrize(
    ("method", "path", "fields", "text"),
    [
        (b"GET", b"/a?b#c", H2_FIELDS, ""),
        (b"GET", b"/\xc3\xa9|{}", [], ""),
        (b"OPTIONS", b"*", [], ""),
        (b"CONNECT", None, [], ""),
        (b"GET", b"*", [], "its :path begins with '*', and not with '/' (RFC 9113 section 8.3.1)"),
        (b"GET", b"x", [], "its :path begins with 'x', and not with '/' (RFC 9113 section 8.3.1)"),
        (
            b"GET",
            b"http://x",
            [],
            "its :path begins with 'h', and not with '/' (RFC 9113 section 8.3.1)",
        ),
        (
            b"GET",
            b"/ HTTP/1.1",
            [],
            "its :path has a space or a control character (RFC 9113 section 8.3.1)",
        ),
        (
            b"GET",
            b"/\x7f",
            [],
            "its :path has a space or a control character (RFC 9113 section 8.3.1)",
        ),
        (
            b"GET",
            b"/",
            [(b"x", b"\x01")],
            "its head has a control character, in its field 'x' (RFC 9110 section 5.5)",
        ),
        (
            b"GET",
            b"/",
            [*H2_FIELDS, H2_FIELDS[0]],
            "its Content-Length has 2 values (RFC 9110 section 8.6)",
        ),
    ],
)
def test_a_head_of_http_2_is_held_to_the_same(
    method: bytes, path: bytes | None, fields: list[tuple[bytes, bytes]], text: str
) -> None:
    fault = fault_in_http2(method, path, fields, ends=False)
    assert (fault.text if fault else "") == text


@pytest.mark.parametrize(("length", "is_refused"), [(b"0", False), (b"00", False), (b"2", True)])
def test_a_length_without_a_body_is_refused_in_http_2(length: bytes, is_refused: bool) -> None:
    fields = [(b"content-length", length)]
    assert fault_in_http2(b"GET", b"/", fields, ends=False) is None
    assert (fault_in_http2(b"GET", b"/", fields, ends=True) is not None) is is_refused
