"""The answers of a route of datagrams: checks them where they are declared, and what a handler returns.

An answer is a function of the `Datagram`, or what such a function may return: bytes for one datagram, a list for
several, None for none, and faults. It becomes a tuple of parts, each of them bytes or a fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Generic, TypeVar

from pytest_egress.base.unset import UNSET
from pytest_egress.routes.answers import DatagramConnectable, Forward
from pytest_egress.routes.faults import (
    Delayed,
    Fault,
    Refuse,
    Silence,
    Truncated,
    check_fault,
    is_maker,
    layers,
    shown_answer,
)
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.traffic.entries import Datagram
from pytest_egress.traffic.parts import UnreadablePart
from pytest_egress.traffic.shown import shown

TAKES: Final = (
    "a route of datagrams takes bytes, a list of bytes, None for no answer, delayed(), truncated(), silence(), "
    "refuse() or forward(), a sequence() of these, or a function of the datagram that returns one"
)
PARTS: Final = (bytes, bytearray)

DatagramPart = TypeVar("DatagramPart", bound=Datagram)
"""The type of a service's calls: `Metric` of `statsd()`."""


class DatagramService(Generic[DatagramPart]):
    """An answer that sends nothing, and whose calls are the parts of datagrams, such as the metrics of `statsd()`."""

    def read(self, datagram: Datagram) -> Iterable[DatagramPart | UnreadablePart]:
        """Split a datagram into its parts, each of which takes a turn of the route; any thread calls it."""
        raise NotImplementedError


def checked_datagrams(answer: object) -> object:
    """Convert an answer to the form that a route of datagrams uses; TypeError where it cannot answer by it."""
    if isinstance(answer, AnswerSequence):
        return answer.checked(checked_turn)
    if isinstance(answer, DatagramService):
        return answer
    if is_maker(answer):
        name = shown_answer(answer)
        raise TypeError(f"{name} without parentheses is no answer; write {name}(...); {TAKES}")
    if callable(answer):
        return answer
    return parts_of_answer(answer)


def checked_turn(answer: object) -> object:
    """A service among the answers of a sequence raises TypeError: its calls are no datagrams."""
    if isinstance(answer, DatagramService):
        raise TypeError(f"{answer} is an answer by itself, in no sequence(); {ANOTHER}")
    return checked_datagrams(answer)


ANOTHER: Final = "route.respond(refuse()) has another one follow it"


def parts_of_answer(answer: object) -> tuple[Any, ...]:
    """The datagrams and faults of an answer that is no function; TypeError where there are others."""
    if answer is None:
        return ()
    if isinstance(answer, Forward):
        return (checked_forward(answer),)
    several = answer if isinstance(answer, (list, tuple)) else (answer,)
    parts = tuple(map(checked_part, several))
    if len(parts) > 1 and any(isinstance(part, (Refuse, Silence)) for part in parts):
        raise TypeError(
            f"{shown(answer)}: refuse() and silence() are answers by themselves, not in a list"
        )
    return parts


def checked_forward(to: Forward) -> Forward:
    if to.container is not None and not isinstance(to.container, DatagramConnectable):
        raise TypeError(
            f"{to}: no datagram can be sent to {to.container!r}; it takes a container of egress.start(), "
            'or a server of this machine: forward("udp://127.0.0.1:514")'
        )
    if to.scheme not in (None, "udp"):
        raise ValueError(f'{to}: this route takes "udp://host:port"')
    return to


def checked_part(part: Any) -> Any:
    if isinstance(part, Fault):
        return checked_fault(part)
    if isinstance(part, PARTS):
        return bytes(part)
    if isinstance(part, Forward):
        raise TypeError(f"{part} is an answer by itself, in no list and no fault")
    hint = f": write b{part!r}, or .encode()" if isinstance(part, str) and part.isascii() else ""
    raise TypeError(f"{shown(part)} is no datagram{hint}; {TAKES}")


def checked_fault(fault: Fault) -> Fault:
    """Faults of connections raise TypeError: a datagram has none that could be reset or closed."""
    is_cut = isinstance(fault, Truncated) and not fault.reset
    if isinstance(fault, Silence) and fault.seconds is not None:
        raise TypeError(f"{fault}: a datagram has no connection to close; write silence()")
    if not (is_cut or isinstance(fault, (Delayed, Refuse, Silence))):
        raise TypeError(f"{fault} is a fault of connections, and a datagram has none; {TAKES}")
    return check_fault(fault, check=checked_part)


def takes_long(parts: object) -> bool:
    """Whether a function of the test tells the answer, or how late it comes; or another server has to be found."""
    if not isinstance(parts, tuple) or server_of(parts) is not None:
        return True
    faults = (fault for part in parts for fault in layers(part)[0])
    return any(isinstance(fault, Delayed) and callable(fault.seconds) for fault in faults)


def server_of(parts: tuple[Any, ...]) -> Forward | None:
    """The server that answers instead, if one does."""
    return next((part for part in parts if isinstance(part, Forward)), None)


def content_of(part: Any) -> bytes | None:
    """The bytes that are sent of a part; None for a fault that sends nothing."""
    faults, content = layers(part)
    if content is UNSET:
        return None
    ends = [fault.after for fault in faults if isinstance(fault, Truncated)]
    return bytes(content[: min(ends)] if ends else content)
