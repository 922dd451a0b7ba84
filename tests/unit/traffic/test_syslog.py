"""Messages of syslog by RFC 5424 and RFC 3164, and as libraries write them; and what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.parts import UnreadablePart
from pytest_egress.traffic.syslog import SyslogMessage, message_in
from tests.support.entries import datagram


def message(content: str) -> SyslogMessage:
    found = message_in(datagram(content.encode()))
    assert isinstance(found, SyslogMessage), found
    return found


def fields(content: str) -> dict[str, Any]:
    found = message(content)
    names = "timestamp", "hostname", "app_name", "process_id", "message_id", "message"
    return {name: getattr(found, name) for name in names if getattr(found, name)}


def test_a_message_of_rfc_5424_has_all_its_fields() -> None:
    text = (
        "<165>1 2003-10-11T22:14:15.003Z mymachine.test evntslog 8710 ID47 "
        r'[exampleSDID@32473 iut="3" eventSource="a \"b\" \\ \] c"][priority@32473 class="high"] '
        "\ufeffAn application event"
    )
    found = message(text)
    assert (found.facility, found.severity, found.rfc) == ("local4", "notice", 5424)
    assert fields(text) == {
        "timestamp": "2003-10-11T22:14:15.003Z",
        "hostname": "mymachine.test",
        "app_name": "evntslog",
        "process_id": "8710",
        "message_id": "ID47",
        "message": "An application event",
    }
    assert found.data == {
        "exampleSDID@32473": {"iut": "3", "eventSource": r'a "b" \ ] c'},
        "priority@32473": {"class": "high"},
    }
    assert (found.host, found.content) == ("a.test", text.encode())


def test_what_is_absent_by_rfc_5424_is_empty() -> None:
    assert fields("<14>1 - - - - - -") == {}
    assert fields("<14>1 - - app - - - text - of it") == {
        "app_name": "app",
        "message": "text - of it",
    }
    assert message("<14>1 - - - - - [empty]").data == {"empty": {}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<34>Oct 11 22:14:15 mymachine su[230]: 'su root' failed",  # RFC 3164, section 5.4
            {
                "timestamp": "Oct 11 22:14:15",
                "hostname": "mymachine",
                "app_name": "su",
                "process_id": "230",
                "message": "'su root' failed",
            },
        ),
        (
            "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
            {"timestamp": "Feb  5 17:32:18", "hostname": "10.0.0.99", "message": "Use the BFG!"},
        ),
        (
            "<14>2026-12-03T07:00:00Z host shop[7]: paid\n",  # Go's log/syslog
            {
                "timestamp": "2026-12-03T07:00:00Z",
                "hostname": "host",
                "app_name": "shop",
                "process_id": "7",
                "message": "paid",
            },
        ),
        ("<14>order 7: paid\0", {"message": "order 7: paid"}),  # Python's SysLogHandler
        ("<14>shop: paid\0", {"app_name": "shop", "message": "paid"}),
        ("<14>shop[]: paid", {"app_name": "shop", "message": "paid"}),
        ("<14>", {}),
        ("<14>10 bottles", {"message": "10 bottles"}),
    ],
)
def test_a_message_of_rfc_3164_has_what_it_says(text: str, expected: dict[str, str]) -> None:
    assert fields(text) == expected
    assert message(text).rfc == 3164


@pytest.mark.parametrize(
    ("priority", "facility", "severity"),
    [
        (0, "kern", "emerg"),
        (14, "user", "info"),
        (86, "authpriv", "info"),
        (191, "local7", "debug"),
    ],
)
def test_the_priority_is_a_facility_and_a_severity(
    priority: int, facility: str, severity: str
) -> None:
    found = message(f"<{priority}>text")
    assert (found.facility, found.severity) == (facility, severity)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a message of syslog begins with a priority, such as <14>"),
        ("order paid", "begins with a priority"),
        ("<>x", "begins with a priority"),
        ("<1234>x", "begins with a priority"),
        ("<192>x", "the priority 192 is over 191"),
        ("<14>1 - - -", "after the version there are no five fields"),
        ("<14>1 - - - - - text", "there is no structured data, and no - in its place"),
        ('<14>1 - - - - - [a b="c"', "the element 'a' of the structured data does not end"),
        ('<14>1 - - - - - [a b="c]"] x', "the element 'a' of the structured data does not end"),
        ("<14>1 - - - - - -text", "no space follows the structured data"),
    ],
)
def test_what_is_no_message_says_why(text: str, said: str) -> None:
    found = message_in(datagram(text.encode()))
    assert isinstance(found, UnreadablePart)
    assert found.content == text.encode()
    assert said in found.why


def test_its_text_has_its_level_its_program_and_its_message() -> None:
    assert (
        str(message("<11>shop: paid"))
        == "syslog user.err of 'shop', 'paid' at a.test:9 (198.18.0.1)"
    )
    assert str(message("<11>x y")).startswith("syslog user.err, 'x y' at")


@given(st.binary(max_size=200) | st.text('<>1234 -[]="\\ab:T.Z', max_size=80).map(str.encode))
def test_any_bytes_are_a_message_or_unreadable(content: bytes) -> None:
    for before in (b"", b"<14>", b"<14>1 - - - - - "):
        assert isinstance(message_in(datagram(before + content)), (SyslogMessage, UnreadablePart))
