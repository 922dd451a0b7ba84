"""Messages of syslog as a datagram has them: RFC 5424 and its transport (RFC 5426), and RFC 3164. Sans-IO.

For any bytes `message_in` returns a message or an `UnreadablePart`, and never raises: they come from the container
under test. Of the older form, which RFC 3164 describes as it was found, all after the priority may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_egress.traffic.entries import Datagram
from pytest_egress.traffic.parts import UnreadablePart, within
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import shown

FACILITIES: Final = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
SEVERITIES: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""The words of syslog(3) and logger(1) for the numbers of RFC 5424, section 6.2.1."""

PRIORITY: Final = re.compile(r"<(\d{1,3})>", re.ASCII)
HEADER: Final = re.compile(r"1 (\S+) (\S+) (\S+) (\S+) (\S+) ")
STAMP: Final = re.compile(
    r"((?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)|(?:\d{4}-\d\d-\d\dT[\d:.]{5,20}(?:Z|[+-]\d\d:?\d\d)))"
    r" (\S+) ",
    re.ASCII,
)
"""The time of RFC 3164, or that of RFC 3339, which Go's log/syslog writes there; and the name of the machine."""

TAG: Final = re.compile(r"([^\s:\[\]]{1,64})(?:\[([^\]\s]{0,128})\])?: ?")
ELEMENT: Final = re.compile(r"\[([^\s=\]\"]{1,32})")
PARAMETER: Final = re.compile(r' ([^\s=\]"]{1,32})="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
ESCAPED: Final = re.compile(r'\\(["\\\]])')
BOM: Final = "\ufeff"


@dataclass(kw_only=True, eq=False)
class SyslogMessage(Datagram):
    """A message that a route of `syslog()` has taken. It is a call of the route.

    Attributes:
        message: Its text, without the header.
        facility: Such as "user" or "local0".
        severity: "emerg", "alert", "crit", "err", "warning", "notice", "info" or "debug".
        rfc: 5424 or 3164.
        timestamp: The time as it was sent, or "".
        hostname: The machine that it says it is from, or "".
        app_name: The program, which RFC 3164 calls the tag, or "".
        process_id: Its process ID, or "".
        message_id: The kind of message (RFC 5424), or "".
        data: The structured data (RFC 5424): the parameters by the ID of their element.
    """

    message: str
    facility: str
    severity: str
    rfc: int
    timestamp: str = ""
    hostname: str = ""
    app_name: str = ""
    process_id: str = ""
    message_id: str = ""
    data: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        redactor = redactor_of(self)
        of = f" of {redactor.shown(self.app_name)}" if self.app_name else ""
        level = f"{self.facility}.{self.severity}"
        return f"syslog {level}{of}, {redactor.shown(self.message)} at {self.where}"


class SyslogError(Exception):
    """Bytes that are no message; the text says why."""


def message_in(datagram: Datagram) -> SyslogMessage | UnreadablePart:
    try:
        fields = parsed(datagram.content.decode(errors="replace"))
    except SyslogError as error:
        return UnreadablePart(datagram.content, str(error))
    return within(datagram, SyslogMessage, **fields)


def parsed(text: str) -> dict[str, Any]:
    """The fields of a message."""
    match = PRIORITY.match(text)
    if match is None:
        raise SyslogError("a message of syslog begins with a priority, such as <14>")
    facility, severity = divmod(int(match[1]), 8)
    if facility >= len(FACILITIES):
        raise SyslogError(f"the priority {match[1]} is over 191")
    level = {"facility": FACILITIES[facility], "severity": SEVERITIES[severity]}
    rest = text[match.end() :].rstrip("\0\n")
    return level | (structured(rest) if rest.startswith("1 ") else traditional(rest))


def structured(text: str) -> dict[str, Any]:
    """RFC 5424, section 6, after the priority."""
    if (header := HEADER.match(text)) is None:
        raise SyslogError("after the version there are no five fields")
    names = "timestamp", "hostname", "app_name", "process_id", "message_id"
    values = ("" if each == "-" else each for each in header.groups())
    data, end = structured_data(text, header.end())
    if text[end : end + 1] not in ("", " "):
        raise SyslogError("no space follows the structured data")
    message = text[end + 1 :].removeprefix(BOM)
    return dict(zip(names, values, strict=True)) | {"rfc": 5424, "data": data, "message": message}


def structured_data(text: str, at: int) -> tuple[dict[str, dict[str, str]], int]:
    """The elements that begin at a place (RFC 5424, section 6.3), and where they end."""
    data: dict[str, dict[str, str]] = {}
    if text[at : at + 1] == "-":
        return data, at + 1
    while element := ELEMENT.match(text, at):
        found = data.setdefault(element[1], {})
        at = element.end()
        while parameter := PARAMETER.match(text, at):
            found[parameter[1]] = ESCAPED.sub(r"\1", parameter[2])
            at = parameter.end()
        if text[at : at + 1] != "]":
            raise SyslogError(
                f"the element {shown(element[1])} of the structured data does not end"
            )
        at += 1
    if not data:
        raise SyslogError("there is no structured data, and no - in its place")
    return data, at


def traditional(text: str) -> dict[str, Any]:
    """RFC 3164, section 4.1, after the priority."""
    fields: dict[str, Any] = {"rfc": 3164}
    if stamp := STAMP.match(text):
        fields["timestamp"], fields["hostname"] = stamp.groups()
        text = text[stamp.end() :]
    if tag := TAG.match(text):
        fields["app_name"], fields["process_id"] = tag[1], tag[2] or ""
        text = text[tag.end() :]
    return fields | {"message": text}
