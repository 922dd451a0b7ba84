"""What h2 finds wrong with what came, in words of the protocol: h2 names streams and states by their numbers."""

from __future__ import annotations

import re
from typing import Final

import h2.exceptions
import h2.stream

WRONG_STATE: Final = re.compile(
    r"Invalid input (Stream|Connection)Inputs\.(?:RECV|SEND)_(\w+) in state (?:\w+\.)?(\w+)"
)
PLACE_IN_MEMORY: Final = re.compile(r":? <memory at 0x[0-9a-f]+>")


def told(error: h2.exceptions.ProtocolError) -> str:
    """The error of h2 as a text that says what happened, and never just a number."""
    exceptions = h2.exceptions
    if isinstance(error, exceptions.StreamClosedError):
        return f"a frame came for stream {error.stream_id}, which has ended (RFC 9113 section 5.1)"
    if isinstance(error, exceptions.NoSuchStreamError):
        return f"a frame came for stream {error.stream_id}, which was not opened (RFC 9113 section 5.1)"
    if isinstance(error, exceptions.StreamIDTooLowError):
        return (
            f"stream {error.stream_id} was opened after stream {error.max_stream_id}: their numbers ascend (RFC 9113 "
            "section 5.1.1)"
        )
    if isinstance(error, exceptions.InvalidBodyLengthError):
        return f"its Content-Length is {error.expected_length}, and its body has {error.actual_length} bytes"
    text = PLACE_IN_MEMORY.sub("", str(error))
    if found := WRONG_STATE.fullmatch(text):
        what, frame, state = found.groups()
        name = h2.stream.StreamState(int(state)).name if state.isdigit() else state
        where = name.lower().replace("_", " ")
        return f"{frame} came where the {what.lower()} is {where} (RFC 9113 section 5.1)"
    return text or type(error).__name__
