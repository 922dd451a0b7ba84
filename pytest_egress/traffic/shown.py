"""How values, hosts and URLs are shown in messages."""

from __future__ import annotations

from typing import Final

SCHEME_PORTS: Final = {"http": 80, "https": 443}  # RFC 9110 sections 4.2.1 and 4.2.2

SHOWN_VALUE: Final = 60  # characters of a value in a message: two fit on a line of a terminal

SHOWN_TARGET: Final = 100  # characters of a URL's path and query: the line stays one of a log


def shown(value: object) -> str:
    """The value's repr, cut in the middle where it is long."""
    if isinstance(value, (bytes, str)) and len(value) > 2 * SHOWN_VALUE:
        # The repr of a body of 1 GB would take a second, and as much memory again.
        ends = slice(SHOWN_VALUE), slice(-SHOWN_VALUE, None)
        begins, rest = (repr(value[each]) for each in ends)
        return cut(begins + rest, SHOWN_VALUE)
    return cut(repr(value), SHOWN_VALUE)


def cut(text: str, size: int, gap: str = "...") -> str:
    if len(text) <= size:
        return text
    half = (size - len(gap)) // 2
    return f"{text[:half]}{gap}{text[-half:]}"


def host_port(host: str, port: int | None) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def counted(count: int, noun: str) -> str:
    """A number with its noun, as "1 route" and "2 routes"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
