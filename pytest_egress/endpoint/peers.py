"""The names by which containers of one network reach each other, as the engine's own DNS gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pytest_egress.endpoint.networks import NetworkPlace

SHORT_ID: Final = 12  # characters of an identifier that are a name too


def names_of(
    identifier: str, name: str, hostname: str, places: Iterable[NetworkPlace]
) -> frozenset[str]:
    """All names of a container in some networks, in lower case; each is one with `.NETWORK` behind it too."""
    found: set[str] = set()
    for place in places:
        for each in filter(None, (name, identifier[:SHORT_ID], hostname, *place.aliases)):
            found |= {each.lower(), f"{each}.{place.network}".lower()}
    return frozenset(found)
