"""`cassette(...)`: the answer of a route by what was recorded in a file. What plays it is in `recordings`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_egress.traffic.shown import shown

IGNORED: Final = ("json", "form", "files", "query", "text", "content", "messages", "headers")
PLACE: Final = re.compile(rf"(?:{'|'.join(IGNORED)})(?:[.\[].*)?", re.DOTALL)


@dataclass(frozen=True)
class Cassette:
    """An answer by recordings; `cassette` makes it."""

    path: str | None = None
    ignore: tuple[str, ...] = ()
    repeat: bool = False

    def __str__(self) -> str:
        given = [] if self.path is None else [repr(self.path)]
        given += [f"ignore={self.ignore!r}"] if self.ignore else []
        given += ["repeat=True"] if self.repeat else []
        return f"cassette({', '.join(given)})"

    __repr__ = __str__


def cassette(
    path: str | os.PathLike[str] | None = None,
    *,
    ignore: Sequence[str] = (),
    repeat: bool = False,
) -> Cassette:
    """Answer by what the real upstream was recorded to answer, in a file beside the test.

    A request is answered by the first recording with its method, URL and body that has not been played. It is recorded
    with `--egress-record-mode`.

    Args:
        path: The file, relative to that of the test; without it, `cassettes/{module}/{test}.yaml`. A HAR, and mappings
            of WireMock, end in `.har` and `.json`; they are never written.
        ignore: Places that are not compared, as a failure prints them: `json.id`, `query['t']`.
        repeat: Whether the last recording of a request answers it again when all have been played.

    Raises:
        TypeError, ValueError: An argument is refused; the text quotes it and lists what is accepted.
    """
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"cassette({shown(path)}): it takes the path of a file")
    name = None if path is None else os.fspath(path)
    if name is not None and (not name or "\0" in name):
        raise ValueError(f"cassette({name!r}): it takes the path of a file")
    if isinstance(ignore, str) or not isinstance(ignore, (tuple, list)):
        raise TypeError(f'cassette(ignore={shown(ignore)}): it takes a list: ignore=["json.id"]')
    for place in ignore:
        if not isinstance(place, str) or not PLACE.fullmatch(place):
            listed = ", ".join(IGNORED)
            raise ValueError(
                f"cassette(ignore=[{place!r}]): it takes places as a failure prints them, before the colon: "
                f'"json.id", "query[\'t\']"; each begins with one of {listed}'
            )
    if not isinstance(repeat, bool):
        raise TypeError(f"cassette(repeat={repeat!r}): it takes True or False")
    return Cassette(name, tuple(place.replace('"', "'") for place in ignore), repeat)


NOT_IN_SEQUENCE: Final = (
    "a cassette() in a sequence(): its recordings are played in their order by themselves; for an outage before it, "
    "declare the route with cassette(), and after it one with sequence(503, reset()), whose turns come first"
)
NO_REQUESTS: Final = (
    "{} is for requests, and this route has none: use intercept_https or intercept_http"
)
