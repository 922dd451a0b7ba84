"""Recordings as they are made: what is kept of a request and of its response."""

from __future__ import annotations

import gzip

import pytest

from pytest_egress.traffic.cassettes.making import recorded_request, recorded_response, recording_of
from pytest_egress.traffic.grpc import StatusError
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response


def request(content: bytes = b"", method: str = "POST", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(
        method=method,
        scheme="https",
        host="api.test",
        port=443,
        path="/a",
        headers=Headers(named),
        raw_content=content,
    )


def received(content: bytes = b"", **headers: str) -> Response:
    named = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return Response.received(200, named, reason="OK", content=content)


def test_fields_that_change_without_meaning_are_left_out() -> None:
    recording = recording_of(
        request(
            Host="api.test",
            User_Agent="curl/8",
            Accept_Encoding="gzip",
            Traceparent="00-1",
            X_Id="7",
        ),
        received(Date="today", Content_Length="0", Connection="close, x-hop", X_Hop="1", ETag="e"),
    )
    assert recording.request.headers == (("x-id", "7"),)
    assert recording.response.headers == (("etag", "e"),)


def test_a_compressed_body_is_readable() -> None:
    """Bodies in gzip and base64 that nobody can review (vcrpy, openai-python)."""
    packed = gzip.compress(b'{"a": 1}')
    asked = request(packed, Content_Encoding="gzip", Content_Type="application/json")
    answered = received(packed, Content_Encoding="gzip", Content_Type="application/json")
    recording = recording_of(asked, answered)
    for part in (recording.request, recording.response):
        assert (part.body, part.headers) == (
            ("json", {"a": 1}),
            (("content-type", "application/json"),),
        )


def test_a_body_that_cannot_be_decoded_is_kept_as_it_was_sent() -> None:
    asked = recorded_request(request(b"\xff", Content_Encoding="gzip"))
    answered = recorded_response(request(), received(b"\xff", Content_Encoding="gzip"))
    assert (asked.body.key, answered.body.key) == ("base64", "base64")
    assert asked.headers == answered.headers == (("content-encoding", "gzip"),)


def test_the_response_to_a_head_keeps_its_length() -> None:
    answered = recorded_response(request(method="HEAD"), received(Content_Length="12"))
    assert answered.headers == (("content-length", "12"),)


def parts(boundary: str) -> Request:
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--{boundary}--\r\n'
    )
    return request(body.encode(), Content_Type=f"multipart/form-data; boundary={boundary}")


def test_the_boundary_of_a_form_is_the_same_each_time() -> None:
    """Random boundaries of multipart bodies (playwright)."""
    one, two = recorded_request(parts("a1b2")), recorded_request(parts("c3d4"))
    assert one == two
    assert "a1b2" not in one.body.value


def test_a_form_that_would_change_keeps_its_boundary() -> None:
    broken = request(b"--x\r\nno part", Content_Type="multipart/form-data; boundary=x")
    assert recorded_request(broken).body.value == "--x\r\nno part"


def test_what_signs_the_bytes_keeps_them() -> None:
    asked = request(b'{"a":  1}', Content_Type="application/json", Digest="sha-256=x")
    assert recorded_request(asked).body == ("text", '{"a":  1}')


def test_a_status_that_no_cassette_has_is_none_of_a_recording() -> None:
    odd = Response.received(999, Headers(), reason="Request denied")
    with pytest.raises(StatusError, match="its status, 999, is none of HTTP's"):
        recording_of(request(), odd)
