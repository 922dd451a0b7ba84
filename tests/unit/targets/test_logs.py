"""What the times of a log say."""

from __future__ import annotations

import pytest

from pytest_egress.targets.logs import (
    MOST_LINES,
    MOST_OF_A_LINE,
    MOST_OF_A_LOG,
    TimedOutput,
    seconds_of,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:00:00.123456789Z", 0.123456789),
        ("1970-01-01T02:00:01.25+02:00", 1.25),
        ("1970-01-01 00:00:01 +0000 UTC", None),
    ],
)
def test_the_engines_times_are_read_whatever_their_decimals_and_zone(
    text: str, seconds: float | None
) -> None:
    assert seconds_of(text) == seconds


def frame(stream: int, text: str) -> bytes:
    data = text.encode()
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_a_log_with_times_is_read_in_whatever_pieces_it_comes() -> None:
    said = frame(1, "1970-01-01T00:00:01Z out\r\n1970-01-01T00:00:02Z two ")
    said += frame(2, "1970-01-01T00:00:03.5Z err\n") + frame(1, "words\nno time\n")
    said += frame(1, "1970-01-01T00:00:09Z no end")
    whole, bytewise = TimedOutput(terminal=False), TimedOutput(terminal=False)
    whole.feed(said)
    for number in range(len(said)):
        bytewise.feed(said[number : number + 1])
    for output in (whole, bytewise):
        output.end()
        assert [*output.lines] == [
            (1.0, "stdout", "out"),
            (3.5, "stderr", "err"),
            (2.0, "stdout", "two words"),
            (2.0, "stdout", "time"),
            (9.0, "stdout", "no end"),
        ]
        assert not output.is_cut


def test_of_a_long_log_the_last_lines_are_kept_and_that_is_said() -> None:
    output = TimedOutput(terminal=True)
    for number in range(MOST_LINES + 1):
        output.feed(f"1970-01-01T00:00:01Z {number}\n".encode())
    assert (len(output.lines), output.lines[0].text, output.is_cut) == (MOST_LINES, "1", True)
    output = TimedOutput(terminal=True)
    output.feed(b"1970-01-01T00:00:01Z " + b"x" * 99_999 + b"\n")
    (line,) = output.lines
    assert 0 < len(line.text) <= MOST_OF_A_LINE
    assert output.is_cut
    for _ in range(200):
        output.feed(b"1970-01-01T00:00:01Z " + b"x" * 15_000 + b"\n")
    assert sum(len(each.text) for each in output.lines) <= MOST_OF_A_LOG
