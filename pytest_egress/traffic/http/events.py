"""Server-sent events: `Event`, and its bytes by the HTML standard (section 9.2, server-sent events).

Values only. `Response(events=...)` sends them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

ONE_LINE: Final = ("event", "id")


@dataclass(frozen=True, kw_only=True)
class Event:
    """A server-sent event, for `Response(events=...)`. `bytes(event)` is what is sent.

    Attributes:
        data: The text, of any number of lines, or a value that is sent as JSON; None for an event without data, which
            browsers do not dispatch.
        event: The type of the event, one line; None is "message".
        id: The last event ID, one line without NUL, which a client sends as `Last-Event-ID` when it connects again.
        retry: Milliseconds after which a client connects again.
        comment: Text that clients ignore, such as to keep a connection alive.

    Raises:
        TypeError, ValueError: A field cannot be sent; the text quotes it.
    """

    data: Any = None
    event: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        for name in (*ONE_LINE, "comment"):
            if not isinstance(value := getattr(self, name), (str, type(None))):
                raise TypeError(f"Event({name}=...) takes a str, not {value!r}")
        for name in ONE_LINE:
            if {"\r", "\n"} & {*(getattr(self, name) or "")}:
                raise ValueError(f"Event({name}={getattr(self, name)!r}) has to be one line")
        if "\0" in (self.id or ""):
            raise ValueError(f"Event(id={self.id!r}): clients ignore an id with NUL")
        if self.retry is not None and (type(self.retry) is not int or self.retry < 0):
            raise ValueError(f"Event(retry={self.retry!r}): it is a number of milliseconds, an int")

    def __bytes__(self) -> bytes:
        return "".join(f"{line}\n" for line in [*self._lines(), ""]).encode()

    def _lines(self) -> Iterator[str]:
        if self.comment is not None:
            yield from (f": {line}" for line in lines_of(self.comment))
        for name in (*ONE_LINE, "retry"):
            if (value := getattr(self, name)) is not None:
                yield f"{name}: {value}"
        if self.data is not None:
            text = self.data if isinstance(self.data, str) else json.dumps(self.data)
            yield from (f"data: {line}" for line in lines_of(text))


def lines_of(text: str) -> list[str]:
    """Clients split lines at CRLF, LF and CR alone; `str.splitlines` splits at U+2028 too."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def event_bytes(item: object) -> bytes:
    """The bytes of an `Event`, or of its data: a str, or a dict or list sent as JSON; TypeError for anything else."""
    if isinstance(item, Event):
        return bytes(item)
    if isinstance(item, (str, dict, list)):
        return bytes(Event(data=item))
    raise TypeError(
        f"{item!r} is no event: it takes an Event, str, or a dict or list, sent as JSON"
    )
