"""The fields of an object of JSON: which are known, and of which type. Every other one is refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.targets.options import REFUSED_OPTIONS
from pytest_egress.traffic.shown import shown

NETWORK: Final = REFUSED_OPTIONS["network_mode"]
UNSAID: Final[Mapping[str, Any]] = {"MemorySwappiness": -1, "ConsoleSize": [0, 0]}
"""Values that say as much as a key which is left out."""
WHY: Final[Mapping[str, str]] = {
    "Privileged": REFUSED_OPTIONS["privileged"],
    "Dns": REFUSED_OPTIONS["dns"],
    "DnsOptions": REFUSED_OPTIONS["dns"],
    "DnsSearch": REFUSED_OPTIONS["dns"],
    "Links": REFUSED_OPTIONS["links"],
    "MacAddress": NETWORK,
    "ReadonlyRootfs": "nothing can be put under a root that is read-only; egress.run(image, read_only=True) can",
}
"""Why a key is refused."""


def known(found: Mapping[str, Any], keys: Collection[str], what: str) -> dict[str, Any]:
    """The known keys of an object; RefusedCall for another one, unless its value says nothing."""
    for name, value in found.items():
        if name in keys or not is_said(value) or UNSAID.get(name) == value:
            continue
        if why := WHY.get(name):
            raise RefusedCall(f"{name}={shown(value)} is refused: {why}")
        exact = [each for each in {*keys, *WHY} if each.casefold() == name.casefold()]
        raise RefusedCall(
            f"{what} has the key {shown(name)}, which is not known here"
            + (f": the API writes {exact[0]}" if exact else "")
        )
    return {name: value for name, value in found.items() if name in keys and value is not None}


def is_said(value: object) -> bool:
    """Whether a value is another one than that of a key which is left out, to Go."""
    if isinstance(value, dict):
        return any(map(is_said, value.values()))
    return bool(value)


def take(found: dict[str, Any], name: str, kind: type[Any]) -> Any:
    """Take a value out of an object, or an empty one; RefusedCall for another type."""
    value = found.pop(name, None)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise RefusedCall(f"{name} is no {shown(value)}")
    return value


def text(value: object, name: str) -> str:
    if not isinstance(value, (str, type(None))):
        raise RefusedCall(f"{name} is a text, not {shown(value)}")
    return value or ""


def texts(found: Mapping[str, Any], name: str) -> list[str]:
    values = found.get(name) or []
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise RefusedCall(f"{name} is a list of texts, not {shown(values)}")
    return values


def items(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    values = found.get(name) or []
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise RefusedCall(f"{name} is a list of objects, not {shown(values)}")
    return values
