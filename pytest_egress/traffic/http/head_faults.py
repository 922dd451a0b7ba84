"""The strict look at the head of a request: HTTP/1.1's as it came, HTTP/2's decoded. It never touches a socket.

h11 and h2 read some heads that the RFCs call invalid, or let a server refuse. Another server may read such a head
differently, and see another request, or two. A client that sends one is broken, or attacks: it is told so.

Each request passes here, so that a head in order is found to be so by a few passes in C. What is wrong is then looked
for by regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_egress.traffic.http.head import MAX_HEADER_BYTES
from pytest_egress.traffic.shown import shown

END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
"""What h11 takes for the end of a head. The line before it may end in a bare LF too."""

VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.0")
PREFACE: Final = b"PRI * HTTP/2.0"  # HTTP/2 has an answer of its own
TARGET: Final = re.compile(rb"/|[A-Za-z][A-Za-z0-9+.-]*:")
"""The start of a request-target: origin-form or absolute-form (RFC 9112 section 3.2)."""

CONTROLS: Final = bytes({*range(0x20), 0x7F} - {*b"\t\r\n"})  # RFC 9110 section 5.5 allows HTAB
CONTROL: Final = re.compile(b"[%b]" % re.escape(CONTROLS))
NOT_IN_PATH: Final = re.compile(rb"[\x00-\x20\x7f]")
FOLD: Final = re.compile(rb"\n[ \t]")
LENGTH: Final = re.compile(rb"(?i)\ncontent-length:([^\n]*)")


@dataclass(frozen=True)
class HeadFault:
    """Why a head or a trailer section is refused, with the RFC section that rules, and the status of the answer."""

    text: str
    status_code: int = 400


def end_of_head(data: bytes) -> int | None:
    """The end is behind the empty line; None where more bytes are needed."""
    found = END_OF_HEAD.search(data)
    return found.end() if found else None


def head_fault(head: bytes) -> HeadFault | None:
    """Why a head, with its empty line, is refused, though h11 might read it; None where it is not."""
    if len(head) > MAX_HEADER_BYTES:
        return HeadFault(f"its head is over MAX_HEADER_BYTES, {MAX_HEADER_BYTES} bytes", 431)
    line, _, fields = head.partition(b"\n")
    return (
        line_fault(head, "head")
        or request_line_fault(line.removesuffix(b"\r"))
        or length_fault(b"\n" + fields, is_of_1_0=line.endswith(b"HTTP/1.0\r"))
    )


def line_fault(lines: bytes, part: str) -> HeadFault | None:
    """Why lines are refused: for how one ends or begins, or for a control character. `part` names them."""
    breaks = lines.count(b"\r\n")
    if lines.count(b"\n") != breaks:
        what = f"a line of its {part} ends in LF alone: lines end in CR LF"
        return HeadFault(f"{what} (RFC 9112 section 2.2)")
    if lines.count(b"\r") != breaks:
        what = f"a line of its {part} has a CR without LF: lines end in CR LF"
        return HeadFault(f"{what} (RFC 9112 section 2.2)")
    if b"\n " in lines or b"\n\t" in lines:
        after = in_words(", after its field ", FOLD, lines)
        what = f"a line of its {part} begins with white space{after}: a field is one line"
        return HeadFault(f"{what} (RFC 9112 section 5.2)")
    if len(lines.translate(None, CONTROLS)) != len(lines):
        within = in_words(", in its field ", CONTROL, lines)
        return HeadFault(f"its {part} has a control character{within} (RFC 9110 section 5.5)")
    return None


def request_line_fault(line: bytes) -> HeadFault | None:
    """Why a request line is refused, by its version or the form of its request-target. h11 tells what else is wrong."""
    method, target, version = line.split(b" ") if line.count(b" ") == 2 else (b"", b"", b"")
    if line == PREFACE or not version.startswith(b"HTTP/"):
        return None
    if version not in VERSIONS:
        text = f"its version is {shown_bytes(version)}: HTTP/1.1 or HTTP/1.0 was expected"
        status_code = 400 if version.startswith(b"HTTP/1.") else 505
        return HeadFault(f"{text} (RFC 9112 section 2.3)", status_code)
    if method == b"CONNECT" or TARGET.match(target) or (method, target) == (b"OPTIONS", b"*"):
        return None
    text = f"its request-target begins with {shown_bytes(target[:1])}: a path begins with '/'"
    return HeadFault(f"{text} (RFC 9112 section 3.2)")


def length_fault(fields: bytes, *, is_of_1_0: bool) -> HeadFault | None:
    """Why fields are refused that say where the body ends: they have to say one thing, to every server.

    A Content-Length that is repeated or listed may be refused even where all are equal (RFC 9110 section 8.6), as nginx
    and Node.js do. The fields are lines, after a line end.
    """
    names = fields.lower()
    is_coded = b"\ntransfer-encoding:" in names
    if is_coded and is_of_1_0:
        return HeadFault("it has Transfer-Encoding, which HTTP/1.0 has not (RFC 9112 section 6.1)")
    if b"\ncontent-length:" not in names:
        return None
    if is_coded:
        return HeadFault("it has both Content-Length and Transfer-Encoding (RFC 9112 section 6.1)")
    lengths = b",".join(LENGTH.findall(fields)).count(b",") + 1
    if lengths > 1:
        return HeadFault(f"its Content-Length has {lengths} values (RFC 9110 section 8.6)")
    return None


def fault_in_http2(
    method: bytes, path: bytes | None, fields: Sequence[tuple[bytes, bytes]], *, ends: bool
) -> HeadFault | None:
    """Why the head of a request of HTTP/2 is refused, though h2 has read it; None where it is not.

    Args:
        path: None where CONNECT has none.
        fields: Without those that begin with a colon.
        ends: Whether neither a body nor trailers follow.
    """
    if path is not None and not path.startswith(b"/") and (method, path) != (b"OPTIONS", b"*"):
        text = f"its :path begins with {shown_bytes(path[:1])}, and not with '/'"
        return HeadFault(f"{text} (RFC 9113 section 8.3.1)")
    if path is not None and NOT_IN_PATH.search(path):
        return HeadFault("its :path has a space or a control character (RFC 9113 section 8.3.1)")
    for name, value in fields:
        if CONTROL.search(value):
            within = f"its head has a control character, in its field {shown_bytes(name)}"
            return HeadFault(f"{within} (RFC 9110 section 5.5)")
    lengths = [value for name, value in fields if name == b"content-length"]
    if len(lengths) > 1:
        return HeadFault(f"its Content-Length has {len(lengths)} values (RFC 9110 section 8.6)")
    if ends and lengths and lengths[0].strip(b"0"):
        text = f"its Content-Length is {shown_bytes(lengths[0])}, and no body follows"
        return HeadFault(f"{text} (RFC 9113 section 8.1.1)")
    return None


def trailer_fault(section: bytes, count: int) -> HeadFault | None:
    """Why the trailer section of a chunked body is refused, though h11 has read it; None where it is not.

    The bytes before the section, such as the last chunk, do not matter. `count` is how many fields h11 has found in it.
    """
    lines = section.rsplit(b"\n", count + 2)[-count - 2 :]
    return line_fault(b"\r\n" + b"\n".join(lines), "trailer section")


def in_words(before: str, pattern: re.Pattern[bytes], lines: bytes) -> str:
    """The name of the field in whose line a pattern is found first, after some words; "" where it is in none.

    The value is not told: it may be a secret.
    """
    found = pattern.search(lines)
    start = lines.rfind(b"\n", 0, found.start() if found else 0) + 1
    name, colon, _ = lines[start:].partition(b":")
    return f"{before}{shown_bytes(name)}" if colon and not {*b" \n"} & {*name} else ""


def shown_bytes(data: bytes) -> str:
    return shown(data.decode("latin-1"))
