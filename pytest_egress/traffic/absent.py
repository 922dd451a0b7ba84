"""`absent`: the error of a name that a message does not have, with the names that it has, the most similar one first.

The values are not shown: those of a field may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pytest_egress.errors import AbsentError
from pytest_egress.traffic.shown import SHOWN_VALUE, shown

SHOWN_NAMES: Final = 20
COMPARED: Final = 200  # names: a form may have thousands
SIMILAR: Final = 0.7  # the least ratio of difflib: `X_API_Key` for `X-Api-Key`


def absent(what: str, name: object, there: Iterable[str]) -> AbsentError:
    """The error for a name that is not there.

    Args:
        what: What the name would be one of, such as "header field".
        there: The names that are there, in their order; one that repeats is shown once.
    """
    names = similar_first(name, [*dict.fromkeys(there)])
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    listed = ", ".join(map(shown, names[:SHOWN_NAMES]))
    said = f"there are {listed}{more}" if len(names) > 1 else f"there is {listed or 'none'}"
    return AbsentError(f"no {what} is called {shown(name)}; {said}")


def similar_first(name: object, names: list[str]) -> list[str]:
    if not isinstance(name, str):
        return names
    from difflib import SequenceMatcher  # each run of pytest imports this module

    matcher = SequenceMatcher(None, "", name[:SHOWN_VALUE].lower())
    nearest, ratio = None, SIMILAR
    for other in names[:COMPARED]:
        matcher.set_seq1(other[:SHOWN_VALUE].lower())
        if matcher.real_quick_ratio() >= ratio and (found := matcher.ratio()) >= ratio:
            nearest, ratio = other, found
    return names if nearest is None else [nearest, *(each for each in names if each != nearest)]
