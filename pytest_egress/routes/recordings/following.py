"""`Following`: the recording that a conversation plays, step by step: a WebSocket, or a call of gRPC.

Several recordings of one URL may begin alike. A conversation follows the first that no other one has, and goes over to
another where what its client sends says that it is that one. Two conversations that have not come to where their
recordings differ may exchange them, so that it does not matter in which order a container opens them.

Threads: each conversation has its own. The lock is that of the reel, and no function is called while it is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from pytest_egress.traffic.cassettes.messages import HALF_CLOSE
from pytest_egress.traffic.cassettes.tape import Recording


class RecordedStep(NamedTuple):
    """One message of a recording, or the end of its client's messages."""

    from_client: bool
    content: Any


def steps_of(recording: Recording) -> list[RecordedStep]:
    """The messages of both sides in their order; where that is not known, those of the client are the first."""
    body = recording.response.body
    if recording.is_refused:
        return []
    if recording.request.body.key == "messages":
        asked = [RecordedStep(True, each) for each in recording.request.body.value]
        answered = [RecordedStep(False, each) for each in body.value]
        return [*asked, RecordedStep(True, HALF_CLOSE), *answered]
    return [
        RecordedStep("send" in each, next(iter(each.values())))
        if isinstance(each, dict)
        else RecordedStep(True, each)
        for each in body.value
    ]


class Followed:
    """The recordings of a reel that conversations follow.

    Args:
        played: The places of recordings that have been played, or are; it is the reel's.
    """

    def __init__(
        self, recordings: Sequence[Recording], played: set[int], lock: AbstractContextManager[Any]
    ) -> None:
        self.recordings, self.played, self.lock = recordings, played, lock
        self._steps: dict[int, list[RecordedStep]] = {}
        self.followers: dict[int, Following] = {}

    def step(self, place: int, number: int) -> RecordedStep | None:
        """None after the last."""
        steps = self._steps.get(place)
        if steps is None:
            steps = self._steps[place] = steps_of(self.recordings[place])
        return steps[number] if number < len(steps) else None

    def begin(self, place: int, fitting: Sequence[int]) -> Following:
        """The caller holds the lock, and has found the place."""
        is_first = place not in self.played
        self.played.add(place)
        refused = self.recordings[place].is_refused
        fitting = [each for each in fitting if self.recordings[each].is_refused == refused]
        following = self.followers[place] = Following(self, place, fitting, is_first=is_first)
        return following

    def turn(self, following: Following, place: int, others: Sequence[int]) -> bool:
        """Have a conversation follow another recording than that at a place. False where it can follow none of these.

        Args:
            others: The places of recordings that are the same so far.
        """
        with self.lock:
            if following.place != place:  # it has been exchanged meanwhile
                return True
            for other in others:
                if other not in self.played:
                    if following.is_first:
                        self.played.discard(place)
                    self.played.add(other)
                    self._follow(following, other, is_first=True)
                    return True
            for other in others:
                holder = self.followers.get(other)
                if holder is not None and holder.may_exchange(following):
                    was_first = holder.is_first
                    self._follow(holder, place, is_first=following.is_first)
                    self._follow(following, other, is_first=was_first)
                    return True
        return False

    def _follow(self, following: Following, place: int, *, is_first: bool) -> None:
        if self.followers.get(following.place) is following:
            del self.followers[following.place]
        following.place, following.is_first = place, is_first
        self.followers[place] = following


class Following:
    """What one conversation follows.

    Attributes:
        place: Of the recording, in its tape. Another conversation may exchange it.
        done: How many steps have been taken.
        is_first: Whether nothing has played this recording before.
    """

    def __init__(
        self, followed: Followed, place: int, fitting: Sequence[int], *, is_first: bool
    ) -> None:
        self._followed, self.place, self.is_first = followed, place, is_first
        self.done = 0
        self._alike = [*fitting]  # the recordings that are the same up to here

    def may_exchange(self, other: Following) -> bool:
        """Whether it has not come to where its recording and that of another one may differ. The lock is held."""
        return other is not self and self.done <= other.done and other.place in self._alike

    def next_step(self) -> RecordedStep | None:
        """The next step of the recording; one of the server's has been taken."""
        with self._followed.lock:
            step = self._followed.step(self.place, self.done)
            if step is not None and not step.from_client:
                self._advance(step)
            return step

    def _advance(self, step: RecordedStep) -> None:
        same = self._followed.step
        self._alike = [place for place in self._alike if same(place, self.done) == step]
        self.done += 1

    def agree(self, about: Callable[[Recording], object]) -> bool:
        """Whether something is so of all recordings that are the same up to here, in the same way."""
        found = [about(self._followed.recordings[place]) for place in (self.place, *self._alike)]
        return bool(found[0]) and all(each == found[0] for each in found)

    def step(self, place: int) -> RecordedStep | None:
        """The next step of the recording at a place; None at its end."""
        return self._followed.step(place, self.done)

    def next_of_client(self, place: int) -> int | None:
        """The number of the next step of a recording that is its client's; None where it has no more."""
        number = self.done
        while (step := self._followed.step(place, number)) is not None:
            if step.from_client:
                return number
            number += 1
        return None

    def take(self, differences: Callable[[int], list[str]]) -> list[str]:
        """Take what the client has done for the next step; return how it differs from that, empty where it is taken.

        Args:
            differences: Compares it with the next step of the recording at a place.
        """
        while True:
            place = self.place
            if lines := differences(place):
                others = [
                    other for other in self._alike if other != place and not differences(other)
                ]
                if not self._followed.turn(self, place, others):
                    return lines
                continue
            with self._followed.lock:
                if self.place == place:
                    if (step := self.step(place)) is not None:
                        self._advance(step)
                    return []

    def withdraw(self) -> None:
        """It has played nothing of its recording."""
        self.end()
        with self._followed.lock:
            if self.is_first:
                self._followed.played.discard(self.place)

    def end(self) -> None:
        """The conversation is over: nothing is exchanged with it any more."""
        with self._followed.lock:
            if self._followed.followers.get(self.place) is self:
                del self._followed.followers[self.place]
