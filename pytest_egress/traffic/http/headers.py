"""`Headers`: the fields of an HTTP message, in their order and spelling, and what checks them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar, overload

from pytest_egress.base.account import OBJECT_BYTES
from pytest_egress.traffic.absent import absent
from pytest_egress.traffic.shown import shown

Default = TypeVar("Default")

HeaderSource = Mapping[str, str] | Iterable[tuple[str, str]]


class Headers(Mapping[str, str]):
    """Header fields in their original order and spelling; names compare without case (RFC 9110 section 5.1).

    `headers["accept"]` joins repeated fields with a comma; `get_all` keeps them apart.
    """

    __slots__ = ("raw",)  # the ledger keeps them with each request

    def __init__(self, source: HeaderSource = ()) -> None:
        if type(source) is not list:  # most are one, and to ask whether it is a Mapping is slow
            if isinstance(source, Headers):
                source = source.raw  # its items() would join repeated fields
            source = source.items() if isinstance(source, Mapping) else source
        self.raw: tuple[tuple[str, str], ...] = tuple(source)

    def get_all(self, name: str) -> list[str]:
        """Every value of the field, in order; empty where there is none."""
        name = name.lower()
        return [value for key, value in self.raw if key.lower() == name]

    def __getitem__(self, name: str) -> str:
        if values := self.get_all(name):
            return ", ".join(values)
        raise absent("header field", name, (key for key, _ in self.raw))

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | Default) -> str | Default: ...
    def get(self, name: str, /, default: Any = None) -> Any:  # that of `Mapping` catches a KeyError
        """The value of the field, repeated ones joined, or the default."""
        return ", ".join(values) if (values := self.get_all(name)) else default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.lower() for key, _ in self.raw))

    def __len__(self) -> int:
        return len({key.lower() for key, _ in self.raw})

    def __repr__(self) -> str:
        return f"Headers({list(self.raw)!r})"


NO_FIELDS: Final = Headers()


@lru_cache(maxsize=16)
def only_field(name: str, value: str) -> Headers:
    """One value for all responses that have only the default field."""
    return Headers([(name, value)])


TrailerSource = HeaderSource | Callable[[], HeaderSource]
"""Fields after a body, or a function that makes them when the body has been sent."""

FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.1

FIELD_VALUE: Final = re.compile(  # 5.5
    r"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?"
)


def checked_fields(source: HeaderSource | None) -> Headers:
    if not source:
        return NO_FIELDS
    headers = Headers(source)
    for name, value in headers.raw:
        check_field(name, value)
    return headers


def as_fields(source: HeaderSource) -> Headers:
    """Only fields that are no `Headers` are checked. They were given in place of received ones."""
    return source if isinstance(source, Headers) else checked_fields(source)


def checked_trailers(returned: Any) -> HeaderSource | None:
    """Return what a function of `trailers=` has returned, or raise where that is no fields."""
    if isinstance(returned, Coroutine):
        returned.close()
        raise TypeError(
            "the function of trailers=... returned a coroutine: give a plain function, which is called at the end of "
            "the body"
        )
    if returned is not None and not isinstance(returned, (Mapping, Iterable)):
        raise TypeError(
            f"the function of trailers=... returned {shown(returned)}: it returns a dict, or a list of pairs"
        )
    source: HeaderSource | None = returned
    return source


def check_field(name: object, value: object) -> None:
    """Refuse a header field that would break the message (RFC 9110 section 5), or that is no str."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"header fields are str, not {name!r}: {value!r}")
    if not FIELD_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
        raise ValueError(f"{name!r}: {value!r} is no header field")
    if name.lower() == "content-length" and not (value.isascii() and value.isdigit()):
        raise ValueError(f"{name!r}: {value!r} is no number of bytes; leave the field out")


def fields(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Text in latin-1 keeps every byte (RFC 9110 section 5.5)."""
    return Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw])


def size_of(headers: Headers) -> int:
    """As an `Account` counts memory."""
    return sum(len(name) + len(value) + OBJECT_BYTES for name, value in headers.raw)


def raw_fields(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), raw_value(value)) for name, value in headers.raw]


def raw_value(text: str) -> bytes:
    """Text that `fields` decoded gives its original bytes, other text UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")


OF_A_CONNECTION: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that are not forwarded, beside those that Connection lists (RFC 9110 section 7.6.1)."""


def end_to_end(headers: Headers) -> Headers:
    """The fields to forward: all but those that belong to one connection (RFC 9110 section 7.6.1)."""
    listed = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    dropped = OF_A_CONNECTION | listed
    return Headers([(name, value) for name, value in headers.raw if name.lower() not in dropped])


def without(headers: Headers, *names: str) -> Headers:
    """The names are in lower case."""
    return Headers([pair for pair in headers.raw if pair[0].lower() not in names])


def basic_credentials(headers: Headers) -> tuple[str, str] | None:
    """User name and password in Proxy-Authorization (RFC 7617 section 2); None where there are none."""
    scheme, _, value = headers.get("proxy-authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace")
    except ValueError:
        return None
    user, colon, password = decoded.partition(":")
    return (user, password) if colon else None
