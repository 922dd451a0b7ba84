"""`Reel`: the recordings of one file in one scope, which of them have been played, and what has been recorded anew.

Several routes of a scope may share one. Threads: any thread asks; the lock is the caller's, and no other is taken while
it is held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from heapq import nsmallest
from typing import Any, Final, Literal, NamedTuple

from pytest_egress.errors import CassetteError
from pytest_egress.routes.recordings.comparing import Wanted, differences, is_near
from pytest_egress.routes.recordings.following import Followed, Following
from pytest_egress.traffic.cassettes.bodies import RecordedBody
from pytest_egress.traffic.cassettes.placeholders import Stands
from pytest_egress.traffic.cassettes.tape import Recording, Tape
from pytest_egress.traffic.grpc import is_grpc
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.shown import counted
from pytest_egress.traffic.websocket import asks_for_websocket

ToRecord = Literal["nothing", "unknown", "all"]
"""What is asked of the real upstream: nothing, what no recording answers, or all."""

PLAYED: Final = "recording {} of {}"
RECORDED: Final = "recorded into {}"
"""The note of an entry, with its number and file, or the file."""

LOOKED_INTO: Final = 20  # recordings whose bodies are compared for the nearest
SHOWN_LINES: Final = 8  # differences of the nearest
SETTLE_SECONDS: Final = 10.0  # for conversations whose container has ended, to close at the server
MAX_RECORDED_BYTES: Final = 64 << 20  # of bodies that wait for the end of their test


class Played(NamedTuple):
    """A recording that answers a request, and its number in its file."""

    recording: Recording
    number: int


class Reel:
    """The recordings of one file.

    Args:
        name: The file as it is shown: relative to where pytest was started.
        records: What is recorded anew.
        variables: Those of a container, by its name.
        command: What to type for what is not recorded.
        lock: Guards what has been played and recorded.

    Attributes:
        taken: What was recorded, in order.
    """

    def __init__(
        self,
        tape: Tape,
        *,
        name: str,
        records: ToRecord,
        variables: Callable[[str], Mapping[str, str]],
        command: str,
        lock: AbstractContextManager[Any],
    ) -> None:
        self.tape, self.name, self.records = tape, name, records
        self._variables, self._command, self._lock = variables, command, lock
        self._wanted = [Wanted(each.request) for each in tape.recordings]
        self._by_path: dict[str, list[int]] = {}
        for place, wanted in enumerate(self._wanted):
            self._by_path.setdefault("" if wanted.is_open else wanted.path, []).append(place)
        self._played: set[int] = set()
        self._followed = Followed(tape.recordings, self._played, lock)
        self._size, self._open = 0, 0
        self._is_settled = threading.Event()  # whether none is open
        self._is_settled.set()
        self.taken: list[Recording] = []

    def stands(self, request: Request) -> Stands:
        """What the placeholders stand for, of the container that asks."""
        return Stands(self.tape.secrets, self._variables(request.container))

    def _of_path(self, request: Request) -> list[int]:
        of_path = self._by_path.get
        return sorted([*of_path(request.path or "/", ()), *of_path("", ())])

    def fitting(self, request: Request, ignored: Collection[str]) -> list[int]:
        """The recordings of a request, by their places in the tape."""
        stands, of_head = self.stands(request), self.takes_turns(request)
        return [
            place
            for place in self._of_path(request)
            if is_near(wanted := self._wanted[place], request, stands)
            and not next(differences(wanted, request, stands, ignored, of_head=of_head), "")
        ]

    def takes_turns(self, request: Request) -> bool:
        """Whether the messages of a request are compared, or recorded, as they come, and its head chooses."""
        if asks_for_websocket(request):
            return True
        if request.http_version != "2" or not is_grpc(request):
            return False
        recordings = self.tape.recordings
        return self.records != "nothing" or any(
            recordings[place].response.body.key == "turns" for place in self._of_path(request)
        )

    def take(self, request: Request, ignored: Collection[str], *, repeat: bool) -> Played | None:
        """Play the next recording of a request; None where there is none left."""
        fitting = self.fitting(request, ignored)
        with self._lock:
            place = self._next(fitting, repeat=repeat)
            if place is None:
                return None
            self._played.add(place)
        return Played(self.tape.recordings[place], place + 1)

    def follow(
        self, request: Request, ignored: Collection[str], *, repeat: bool
    ) -> Following | None:
        """Play a conversation, of which the head has come; None where no recording of it is left."""
        fitting = self.fitting(request, ignored)
        with self._lock:
            place = self._next(fitting, repeat=repeat)
            return None if place is None else self._followed.begin(place, fitting)

    def _next(self, fitting: Sequence[int], *, repeat: bool) -> int | None:
        left = [place for place in fitting if place not in self._played]
        if left:
            return left[0]
        return fitting[-1] if fitting and (repeat or self.tape.answers_again) else None

    def misses(self, request: Request, ignored: Collection[str], *, repeat: bool) -> list[str]:
        """Why no recording answers a request, a line each; empty where one does, or it is to be recorded."""
        if self.records != "nothing":
            return []
        fitting = self.fitting(request, ignored)
        with self._lock:
            if self._next(fitting, repeat=repeat) is not None:
                return []
        hint = f"record it: {self._command}"
        if fitting:
            return [used_up(len(fitting), self.name), hint]
        return [*self._nearest(request, ignored), hint]

    def _nearest(self, request: Request, ignored: Collection[str]) -> list[str]:
        if not self._wanted:
            return [f"recordings: {self.name} has none"]
        stands, of_head = self.stands(request), self.takes_turns(request)
        near = nsmallest(
            LOOKED_INTO,
            [(remoteness(each, request), place) for place, each in enumerate(self._wanted)],
        )
        compared = [
            (
                remote,
                [*differences(self._wanted[place], request, stands, ignored, of_head=of_head)],
                place,
            )
            for remote, place in near
        ]
        # The URL comes first: a body with ten differences at its path says more than an equal one at another.
        _, lines, place = min(compared, key=lambda each: (each[0], len(each[1])))
        more = len(lines) - SHOWN_LINES
        shown = lines[:SHOWN_LINES] + (
            [f"and {counted(more, 'difference')} more"] if more > 0 else []
        )
        return [*shown, f"so says the nearest recording, {self.place_of(place)}"]

    def place_of(self, place: int) -> str:
        line = self.tape.recordings[place].line
        return f"{self.name}:{line}" if line else f"number {place + 1} of {self.name}"

    @property
    def hint_again(self) -> str:
        """What to type where something recorded is no longer so."""
        return f"record it again: {self._command.replace('=new_episodes', '=rewrite')}"

    def add(self, recording: Recording) -> None:
        """Keep what was recorded until its test has passed. Raises CassetteError where it is too much."""
        with self._lock:
            size = size_of(recording.request.body) + size_of(recording.response.body)
            self._size += size
            if self._size > MAX_RECORDED_BYTES:
                raise CassetteError(
                    f"{self.name}: its bodies have more than {MAX_RECORDED_BYTES >> 20} MiB: record less with one "
                    "cassette, by a path= of its route"
                )
            self.taken.append(recording)

    @contextmanager
    def taking(self) -> Iterator[None]:
        """A conversation is recorded within the `with` block, which may outlast its container by a moment."""
        with self._lock:
            self._open += 1
            self._is_settled.clear()
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                if not self._open:
                    self._is_settled.set()

    def settle(self) -> None:
        """Wait until no conversation is recorded any more. Raises CassetteError where one goes on."""
        if not self._is_settled.wait(SETTLE_SECONDS):
            raise CassetteError(
                f"{self.name} is not written: a WebSocket or a call of gRPC that is recorded is still open"
            )

    def unplayed(self) -> list[str]:
        """The recordings that nothing has asked for, each with its place."""
        with self._lock:
            left = [n for n in range(len(self._wanted)) if n not in self._played]
        return [
            f"{self.place_of(n)}: {wanted.called} {wanted.request.url}"
            for n in left
            for wanted in [self._wanted[n]]
        ]


def failure_text(lines: Sequence[str], place: str, hint: str) -> str:
    """How a message differs from the recording at a place, on one line."""
    more = len(lines) - SHOWN_LINES
    rest = [f"and {counted(more, 'difference')} more"] if more > 0 else []
    return "; ".join([*lines[:SHOWN_LINES], *rest, f"so says {place}", hint])


def used_up(count: int, name: str) -> str:
    times = counted(count, "time")
    return f"recordings: recorded {times} in {name}, and asked once more; repeat=True plays the last one again"


def remoteness(wanted: Wanted, request: Request) -> tuple[bool, float, bool]:
    """By the host, then by the path, then by the method."""
    is_elsewhere = bool(wanted.host) and wanted.host != request.host
    return is_elsewhere, unlike(wanted.path, request.path), wanted.method != request.method


def unlike(one: str, other: str) -> float:
    """The part of two paths whose segments differ, from the beginning on."""
    if one == other:
        return 0.0
    mine, theirs = one.split("/")[:64], other.split("/")[:64]
    same = sum(1 for a, b in zip(mine, theirs, strict=False) if a == b)
    return 1 - same / max(len(mine), len(theirs)) / 2


def size_of(body: RecordedBody) -> int:
    """About as much as it takes in memory, of bodies that may be large."""
    return len(body.value) if isinstance(body.value, str) else len(repr(body.value))
