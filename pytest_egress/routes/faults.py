"""Faults: answers that fail, or that come late, slowly or in part.

A fault is an answer, and no option: it works in a marker, in `respond`, in `sequence`, with every matcher and `times`,
and a handler may return it. An `End` ends the exchange or connection in place of an answer; a `Wrapper` changes how
another answer is sent. Values only: the gateway carries them out. Each is checked where it is made, and again for the
kind of its route where that is declared. `str()` of a fault is the code that makes it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from pytest_egress.base.clock import is_seconds
from pytest_egress.base.pacing import Shape
from pytest_egress.base.renamed import renamed
from pytest_egress.base.unset import UNSET
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.traffic.shown import shown

Seconds = float | Callable[[], float]
"""A number of seconds, or a function that returns one for each answer."""


class Fault:
    """An answer that fails, or that spoils another one; `isinstance` tells an `End` from a `Wrapper`."""

    def __repr__(self) -> str:
        return str(self)


class End(Fault):
    """A fault that is used in place of an answer."""


class ConnectFault(End):
    """A fault of connecting: the kernel of the target never completes the connection."""


@dataclass(frozen=True, repr=False)
class Refuse(ConnectFault):
    """`refuse()`: connecting fails with ECONNREFUSED."""

    def __str__(self) -> str:
        return "refuse()"


@dataclass(frozen=True, repr=False)
class Blackhole(ConnectFault):
    """`blackhole()`: nobody answers the SYN, so that connecting takes until the client's time-out."""

    def __str__(self) -> str:
        return "blackhole()"


@dataclass(frozen=True, repr=False)
class Reset(End):
    """`reset()`: the connection ends by RST; by `reset_stream()` a stream of HTTP/2 ends, by RST_STREAM."""

    stream: bool = False

    def __str__(self) -> str:
        return "reset_stream()" if self.stream else "reset()"


@dataclass(frozen=True, repr=False)
class Around:
    """The answer that a fault sends, or has sent.

    Attributes:
        answer: In the form that its route uses, or UNSET.
        declared: As the test gave it, which is shown and compared: `call.fault == disconnect({"id": 1})`.
    """

    answer: Any = field(compare=False)
    declared: Any = field(default=UNSET, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        """Take the answer for the declared one: the first time, and of a fault always, since that has its own."""
        if self.declared is UNSET or isinstance(self.answer, Fault):
            object.__setattr__(self, "declared", self.answer)


@dataclass(frozen=True, repr=False)
class Disconnect(Around, End):
    """`disconnect()`: the connection is closed by FIN, without an answer or after one."""

    answer: Any = field(default=UNSET, compare=False)

    def __str__(self) -> str:
        return f"disconnect({'' if self.declared is UNSET else shown_answer(self.declared)})"


@dataclass(frozen=True, repr=False)
class Silence(End):
    """`silence()`: nothing is sent, and after `seconds`, where given, the connection is closed by FIN."""

    seconds: Seconds | None = None

    def __str__(self) -> str:
        return f"silence({'' if self.seconds is None else shown_seconds(self.seconds)})"


@dataclass(frozen=True, repr=False)
class Raw(End):
    """`raw(data)`: exactly these bytes are sent, and then the connection is closed by FIN."""

    data: bytes

    def __str__(self) -> str:
        return f"raw({shown(self.data)})"


@dataclass(frozen=True, repr=False)
class Wrapper(Around, Fault):
    """A fault of the way in which another answer is sent: any but a `sequence` and an `End`."""


@dataclass(frozen=True, repr=False)
class Delayed(Wrapper):
    """`delayed(answer, seconds)`: the first byte comes so much later."""

    seconds: Seconds

    def __str__(self) -> str:
        return f"delayed({shown_answer(self.declared)}, {shown_seconds(self.seconds)})"


@dataclass(frozen=True, repr=False)
class Throttled(Wrapper):
    """`throttled(answer, bytes_per_second)`: the bytes of the body come no faster."""

    bytes_per_second: float

    def __str__(self) -> str:
        return f"throttled({shown_answer(self.declared)}, {self.bytes_per_second!r})"


@dataclass(frozen=True, repr=False)
class Truncated(Wrapper):
    """`truncated(answer, after)`: the connection ends after so many bytes of the body, by RST with `reset`."""

    after: int
    reset: bool = False

    def __str__(self) -> str:
        end = ", reset=True" if self.reset else ""
        return f"truncated({shown_answer(self.declared)}, {self.after!r}{end})"


@renamed(stream="reset_stream()")
def reset() -> Reset:
    """Reset the connection in place of an answer, by RST (RFC 9293 section 3.5.2)."""
    return Reset()


def reset_stream() -> Reset:
    """Reset the stream of the request alone, by RST_STREAM (RFC 9113 section 6.4); the connection goes on.

    HTTP/1.1 and raw connections have no streams: there it is `reset()`.
    """
    return Reset(stream=True)


def disconnect(answer: Any = UNSET) -> Disconnect:
    """Close the connection without an answer; or after one, without having announced that.

    Args:
        answer: The answer that is sent first. The client may then put the connection into its pool, and finds it closed
            at its next request.

    Raises:
        TypeError: `answer` is a `sequence` or an end.
    """
    if answer is not UNSET:
        check_wrapped("disconnect", answer)
    return Disconnect(answer)


def silence(seconds: Seconds | None = None) -> Silence:
    """Send nothing, until the client or the test ends.

    Args:
        seconds: Seconds after which the connection is closed; a number, or a function that returns one. None is never.

    Raises:
        TypeError, ValueError: `seconds` is none of that.
    """
    return Silence(seconds if seconds is None else checked_seconds("silence(", seconds))


def raw(data: bytes) -> Raw:
    """Send exactly these bytes in place of an answer, and close the connection.

    Raises:
        TypeError: `data` is no bytes.
    """
    given: object = data
    if not isinstance(given, (bytes, bytearray)):
        hint = f": write b{given!r}" if isinstance(given, str) and given.isascii() else ""
        raise TypeError(f"raw({shown(given)}) takes bytes{hint}")
    return Raw(bytes(given))


def refuse() -> Refuse:
    """Refuse the connection: the target's connect(2) fails with ECONNREFUSED. For `intercept_tcp` only."""
    return Refuse()


def blackhole() -> Blackhole:
    """Drop the connection's first packet, so that connecting takes until the client's own time-out.

    For `intercept_tcp` only.
    """
    return Blackhole()


def delayed(answer: Any, seconds: Seconds) -> Delayed:
    """Send an answer so many seconds later.

    Args:
        answer: Any answer of the route but a `sequence` and an end.
        seconds: A number, or a function of nothing that returns one: `lambda: rng.lognormvariate(-2, 0.5)`.

    Raises:
        TypeError, ValueError: One of them cannot be that.
    """
    if not callable(seconds) and not is_number(seconds) and is_number(answer):
        raise TypeError(
            f"delayed({shown(answer)}, {shown(seconds)}): the answer comes first, "
            f"delayed({shown(seconds)}, {shown(answer)})"
        )
    check_wrapped("delayed", answer)
    return Delayed(answer, checked_seconds(f"delayed({shown_answer(answer)}, ", seconds))


def throttled(answer: Any, bytes_per_second: float) -> Throttled:
    """Send the body of an answer, or what a raw route sends, no faster than this.

    Args:
        answer: Any answer of the route but a `sequence` and an end.
        bytes_per_second: A number over 0.

    Raises:
        TypeError, ValueError: One of them cannot be that.
    """
    if not is_number(bytes_per_second):
        raise TypeError(
            f"throttled({shown_answer(answer)}, {shown(bytes_per_second)}): it takes the answer, and a number of bytes "
            "per second, as in throttled({'id': 1}, 1024)"
        )
    if not 0 < bytes_per_second < math.inf:
        raise ValueError(
            f"throttled({shown_answer(answer)}, {bytes_per_second!r}): bytes_per_second is a number over 0; silence() "
            "sends nothing"
        )
    check_wrapped("throttled", answer)
    return Throttled(answer, bytes_per_second)


def truncated(answer: Any, after: int, *, reset: bool = False) -> Truncated:
    """End the connection after so many bytes of the body; Content-Length still says the whole.

    Args:
        answer: Any answer of the route but a `sequence` and an end.
        after: How many bytes of the body are sent, 0 or more.
        reset: Whether the connection ends by RST, and not by FIN.

    Raises:
        TypeError, ValueError: One of them cannot be that.
    """
    call = f"truncated({shown_answer(answer)}, {shown(after)})"
    if isinstance(after, bool) or not isinstance(after, int):
        raise TypeError(f"{call}: after= is a number of bytes, as in truncated({{'id': 1}}, 4)")
    if after < 0:
        raise ValueError(f"{call}: after= is a number of bytes, 0 or more")
    if not isinstance(reset, bool):
        raise TypeError(f"truncated(reset={reset!r}): it takes True or False")
    check_wrapped("truncated", answer)
    return Truncated(answer, after, reset)


# Checks.


def is_maker(answer: object) -> bool:
    """Whether an answer is `reset`, `smtp` or the like, without the parentheses that make an answer of it."""
    return inspect.isfunction(answer) and answer.__module__.startswith("pytest_egress.")


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def checked_seconds(call: str, seconds: Seconds) -> Seconds:
    """Seconds are a number, or a function of nothing; `call` is the code before them, for the text of an error."""
    text = f"{call}{shown_seconds(seconds)})"
    if callable(seconds):
        try:
            inspect.signature(seconds).bind()
        except TypeError:
            raise TypeError(f"{text}: a function of seconds takes no argument") from None
        except ValueError:  # of a function written in C: it has no signature
            pass
        return seconds
    seconds_of(seconds, text)
    return seconds  # as it was given, and so shown


def seconds_of(value: Any, call: str) -> float:
    """A value that is no number of seconds raises TypeError or ValueError; `call` is the fault, for their text."""
    if not is_number(value):
        raise TypeError(
            f"{call}: seconds are a number, or a function that returns one, not {value!r}"
        )
    if not is_seconds(value):
        raise ValueError(f"{call}: seconds are a number from 0 on, and finite, not {value!r}")
    return float(value)


def drawn(seconds: Seconds, fault: Fault) -> float:
    """A function of the test is called now; no number of seconds raises TypeError or ValueError."""
    return seconds_of(seconds(), f"{fault}") if callable(seconds) else seconds


def check_wrapped(function: str, answer: object) -> None:
    if isinstance(answer, AnswerSequence):
        raise TypeError(
            f"a sequence() in {function}(): put {function}(...) around each of its answers"
        )
    if isinstance(answer, End):
        raise TypeError(
            f"{answer} in {function}(): it has no body, so that nothing of it can be sent"
        )


Checked = TypeVar("Checked", bound=Fault)


def check_fault(fault: Checked, *, check: Callable[[Any], Any]) -> Checked:
    """`check` checks the answer within a fault, and converts it to the form that its route uses."""
    inner = getattr(fault, "answer", UNSET)
    return fault if inner is UNSET else replace(fault, answer=check(inner))  # type: ignore[type-var]


def with_answer(fault: Fault, answer: object) -> Fault:
    """The innermost answer is replaced."""
    inner = getattr(fault, "answer", UNSET)
    within = with_answer(inner, answer) if isinstance(inner, Fault) else answer
    return replace(fault, answer=within)  # type: ignore[type-var]


NO_CONNECTION_YET: Final = "{} is a fault of connecting, and {}() answers what comes later: {}"
BESIDE: Final = (
    "leave it out of the sequence, and after this route declare {}, whose turns come first"
)
LATER: Final = (
    "leave it out of the sequence; where connecting is to fail later, the test declares {} then"
)


def check_connect_faults(answer: object, method: str, address: str, *, takes_unread: bool) -> None:
    """A fault of connecting raises TypeError, unless the route answers connections from their first byte on.

    Args:
        address: The route's, with its port.
    """
    parts = answer.answers if isinstance(answer, AnswerSequence) else (answer,)
    faults = [part for part in parts if isinstance(part, ConnectFault)]
    if takes_unread or not faults:
        return
    advice, instead = "use {}", f"{faults[0]}"
    if isinstance(answer, AnswerSequence):
        advice = BESIDE if [*parts[: len(faults)]] == faults else LATER
        instead = f"sequence({', '.join(map(str, faults))})"
    code = f"intercept_tcp({address!r}, {instead})"
    raise TypeError(NO_CONNECTION_YET.format(faults[0], method, advice.format(code)))


def layers(answer: Any) -> tuple[tuple[Fault, ...], Any]:
    """The outermost fault is first; the answer within them is UNSET where there is none."""
    found: list[Fault] = []
    while isinstance(answer, Fault):
        found.append(answer)
        answer = getattr(answer, "answer", UNSET)
    return tuple(found), answer


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """The faults around an answer, combined. The strictest of one kind counts, and delays add up.

    Attributes:
        answer: The answer within them, or None.
        fault: The outermost.
        delays: Those that have its first byte come later, the outermost first.
        end: The one in place of an answer, or after it.
        cut: The one that cuts the bytes that are sent.
        slow: The one that limits their rate.
        ends_after: Seconds until the connection ends, once its answer has been sent; None where its client ends it.
    """

    answer: Any
    fault: Fault | None
    delays: tuple[Delayed, ...]
    end: End | None
    cut: Truncated | None
    slow: Throttled | None
    shape: Shape
    ends_after: float | None


def plan(answer: Any) -> FaultPlan:
    """A function of seconds is called now. It may raise, or return no seconds, which raises too."""
    faults, within = layers(answer)
    delays = tuple(fault for fault in faults if isinstance(fault, Delayed))
    end = next((fault for fault in faults if isinstance(fault, End)), None)
    cuts = [fault for fault in faults if isinstance(fault, Truncated)]
    cut = min(cuts, key=lambda fault: fault.after, default=None)
    throttled = [fault for fault in faults if isinstance(fault, Throttled)]
    slow = min(throttled, key=lambda fault: fault.bytes_per_second, default=None)
    shape = Shape(
        delay=sum(drawn(fault.seconds, fault) for fault in delays),
        rate=slow.bytes_per_second if slow else math.inf,
        limit=cut.after if cut else None,
        resets=cut is not None and cut.reset,
    )
    ends_after = None if end is None else 0.0
    if isinstance(end, Silence):
        ends_after = None if end.seconds is None else drawn(end.seconds, end)
    return FaultPlan(
        answer=None if within is UNSET else within,
        fault=faults[0] if faults else None,
        delays=delays,
        end=end,
        cut=cut,
        slow=slow,
        shape=shape,
        ends_after=ends_after,
    )


# Texts.


def shown_answer(answer: object) -> str:
    """An answer as the code that makes it, as far as that can be told."""
    name = getattr(answer, "__name__", None)
    if callable(answer) and isinstance(name, str):
        return name
    is_code = type(answer).__module__.startswith(__package__)  # such as a Forward
    return str(answer) if is_code else shown(answer)


def shown_seconds(seconds: object) -> str:
    return shown_answer(seconds) if callable(seconds) else repr(seconds)
