"""NTP as a server speaks it (RFC 5905): the answer to a client's question. Sans-IO.

For any bytes `ntp_answer` returns an answer or raises `NtpError`, since they come from the container under test.
"""

from __future__ import annotations

from struct import pack
from typing import Final

HEADER_BYTES: Final = 48
EPOCH: Final = 2_208_988_800
"""The seconds from 1900, where the first era of NTP begins, to 1970."""

ANSWERING: Final = {1: 2, 3: 4}
"""The mode of the answer by that of the question: symmetric active and passive, client and server (figure 10)."""

STRATUM: Final = 1
PRECISION: Final = -20  # a microsecond, as a power of two of seconds
DISPERSION: Final = 16  # a quarter of a millisecond, in units of 2**-16 s
REFERENCE: Final = b"LOCL"


class NtpError(Exception):
    """Bytes that are no question of a client; the text says why."""


def ntp_answer(question: bytes, now: float) -> bytes:
    """Answer a question by a clock.

    The client's version, poll interval and transmit time go back to it: it takes no answer without the latter.

    Args:
        now: What the clock says, in seconds since 1970. A second after 2036 is one of a later era, as on the wire.

    Raises:
        NtpError: It is no question of a client.
    """
    if len(question) < HEADER_BYTES:
        raise NtpError(f"it has {len(question)} bytes, and a question has at least {HEADER_BYTES}")
    version, mode = question[0] >> 3 & 7, question[0] & 7
    if not 1 <= version <= 4 or mode not in ANSWERING:
        raise NtpError(
            f"it is of version {version} and mode {mode}, and a client asks by version 1 to 4 in mode 3"
        )
    first = version << 3 | ANSWERING[mode]
    head = pack("!BBBb2I4s", first, STRATUM, question[2], PRECISION, 0, DISPERSION, REFERENCE)
    return head + timestamp(now) + question[40:48] + timestamp(now) * 2


def timestamp(moment: float) -> bytes:
    """The seconds of its era, and their fraction (RFC 5905, section 6)."""
    seconds = int(moment // 1)
    return pack(
        "!2I", (seconds + EPOCH) & 0xFFFFFFFF, min(int((moment - seconds) * 2**32), 0xFFFFFFFF)
    )
