"""NTP: the fields of an answer, by RFC 5905, and what is no question."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.ntp import NtpError, ntp_answer, timestamp

QUESTION = bytes([0x23, 0, 6, 0xEC]) + bytes(36) + b"its time"


def test_an_answer_has_the_fields_that_a_client_checks() -> None:
    leap_version_mode, stratum, poll, precision, delay, dispersion, reference = struct.unpack(
        "!BBbb2I4s", ntp_answer(QUESTION, 0.5)[:16]
    )
    assert (leap_version_mode, stratum, poll, precision) == (0x24, 1, 6, -20)
    assert (delay, dispersion, reference) == (0, 16, b"LOCL")
    set_at, originate, received, sent = struct.unpack("!8s8s8s8s", ntp_answer(QUESTION, 0.5)[16:])
    assert originate == b"its time"
    assert set_at == received == sent == struct.pack("!2I", 2208988800, 2**31)


@pytest.mark.parametrize(("asked", "answered"), [(0x1B, 0x1C), (0x21, 0x22), (0xE3, 0x24)])
def test_the_version_goes_back_and_the_mode_is_that_of_the_answer(
    asked: int, answered: int
) -> None:
    assert ntp_answer(bytes([asked]) + QUESTION[1:], 0)[0] == answered


def test_what_follows_the_header_is_not_answered() -> None:
    assert len(ntp_answer(QUESTION + b"key and digest", 0)) == 48


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (-1.0, 2208988799),  # 1969
        (2085978495.0, 0xFFFFFFFF),  # the last second of the first era, in 2036
        (2085978496.0, 0),
        (4102444800.0, 2016466304),  # 2100
    ],
)
def test_a_second_is_counted_from_the_beginning_of_its_era(moment: float, seconds: int) -> None:
    assert timestamp(moment) == struct.pack("!2I", seconds, 0)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (b"", "it has 0 bytes, and a question has at least 48"),
        (QUESTION[:47], "it has 47 bytes"),
        (bytes([0x24]) + QUESTION[1:], "it is of version 4 and mode 4, and a client asks by"),
        (bytes([0x2B]) + QUESTION[1:], "it is of version 5 and mode 3"),
    ],
)
def test_what_is_no_question_says_why(question: bytes, said: str) -> None:
    with pytest.raises(NtpError, match=said):
        ntp_answer(question, 0)


@given(st.binary(max_size=80), st.floats(-1e11, 1e11))
def test_any_bytes_have_an_answer_of_48_bytes_or_an_ntp_error(
    question: bytes, moment: float
) -> None:
    with contextlib.suppress(NtpError):
        assert len(ntp_answer(question, moment)) == 48


def test_a_fraction_that_rounds_to_a_second_stays_below_it() -> None:
    assert timestamp(-1e-20) == struct.pack("!2I", 2208988799, 0xFFFFFFFF)
