"""What h2 finds wrong is told in words."""

from __future__ import annotations

import h2.exceptions
import pytest
from h2.connection import ConnectionInputs, ConnectionState
from h2.stream import StreamInputs, StreamState

from pytest_egress.traffic.http.http2_errors import told

ERRORS = [
    (
        h2.exceptions.StreamClosedError(1),
        "a frame came for stream 1, which has ended (RFC 9113 section 5.1)",
    ),
    (
        h2.exceptions.NoSuchStreamError(7),
        "a frame came for stream 7, which was not opened (RFC 9113 section 5.1)",
    ),
    (
        h2.exceptions.StreamIDTooLowError(3, 5),
        "stream 3 was opened after stream 5: their numbers ascend (RFC 9113 section 5.1.1)",
    ),
    (
        h2.exceptions.InvalidBodyLengthError(5, 4),
        "its Content-Length is 5, and its body has 4 bytes",
    ),
    (
        h2.exceptions.ProtocolError(
            f"Invalid input {StreamInputs.RECV_CONTINUATION} in state {StreamState.OPEN}"
        ),
        "CONTINUATION came where the stream is open (RFC 9113 section 5.1)",
    ),
    (
        h2.exceptions.ProtocolError(
            "Invalid input StreamInputs.RECV_DATA in state StreamState.HALF_CLOSED_REMOTE"
        ),
        "DATA came where the stream is half closed remote (RFC 9113 section 5.1)",
    ),
    (
        h2.exceptions.ProtocolError(
            f"Invalid input {ConnectionInputs.RECV_DATA} in state {ConnectionState.IDLE}"
        ),
        "DATA came where the connection is idle (RFC 9113 section 5.1)",
    ),
    (
        h2.exceptions.ProtocolError(f"Representation is too long: {memoryview(b'')}"),
        "Representation is too long",
    ),
    (h2.exceptions.ProtocolError("Received pushed stream"), "Received pushed stream"),
    (h2.exceptions.FlowControlError(), "FlowControlError"),
]


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=[text[:30] for _, text in ERRORS])
def test_an_error_of_h2_is_words(error: h2.exceptions.ProtocolError, text: str) -> None:
    assert told(error) == text
