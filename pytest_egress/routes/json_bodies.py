"""`json=`: how the body of a request differs from the value of JSON that is expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pytest_egress.errors import ContentError
from pytest_egress.routes.literals import NOTHING, Own, declared_json
from pytest_egress.routes.partials import Partial
from pytest_egress.routes.patterns import check_pattern, contrast, value_fits
from pytest_egress.traffic.http.request import Request, lent_json
from pytest_egress.traffic.redaction.redactor import BY_NAMES, Redactor, redactor_of
from pytest_egress.traffic.shown import shown

NO_BODY: Final = (
    "json: the request has no body. json= is a condition; the answer is the second argument"
)


def check_json(wanted: Any, path: str = "json") -> None:
    """Refuse a pattern of bytes at any depth, which no text of JSON can match."""
    check_pattern(path, wanted)
    if isinstance(wanted, Partial):
        check_json(wanted.value, path)
    elif isinstance(wanted, Mapping):
        for key, value in wanted.items():
            check_json(value, place(path, key))
    elif isinstance(wanted, list):
        for index, value in enumerate(wanted):
            check_json(value, f"{path}[{index}]")


def json_request_differences(wanted: Any, request: Request, own: Own) -> list[str]:
    redactor = redactor_of(request)
    try:
        with lent_json(request, times=2) as found:  # a copy has its secrets masked
            return list(json_differences(wanted, found, own=own, redactor=redactor))
    except ContentError as error:
        return [f"json: {error}"]
    except (ValueError, RecursionError):  # RecursionError: nested too deeply to parse
        if not request.content:
            return [NO_BODY]
        return [f"json: the body is no JSON: {shown(redactor.content(request.content))}"]


def json_differences(
    wanted: Any,
    found: Any,
    path: str = "json",
    *,
    secret: bool = False,
    in_part: bool = False,
    own: Own = NOTHING,
    redactor: Redactor = BY_NAMES,
) -> Iterator[str]:
    """A line for each difference: `json.items[0].price: 5 is not 6`.

    Args:
        secret: Whether a name in the path is a secret's, so that what was sent is masked.
        in_part: Whether objects may have other keys too.
        own: The test's own literals, which are shown.
    """
    if isinstance(wanted, Partial):
        wanted, in_part = wanted.value, True

    def within(wanted: Any, found: Any, path: str, secret: bool) -> Iterator[str]:
        return json_differences(
            wanted, found, path, secret=secret, in_part=in_part, own=own, redactor=redactor
        )

    if isinstance(wanted, Mapping) and isinstance(found, dict):
        surplus = () if in_part else (key for key in found if key not in wanted)
        for key in [*wanted, *surplus]:
            inside = secret or redactor.is_secret(str(key))
            where = place(path, redactor.key(key))
            if key not in found:
                expected = declared_json(wanted[key], own, redactor, secret=inside)
                yield f"{where}: absent, expected {shown(expected)}"
            elif key not in wanted:
                sent = redactor.json(found[key], secret=inside)
                yield f"{where}: {shown(sent)} was not expected"
            else:
                yield from within(wanted[key], found[key], where, inside)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (mine, theirs) in enumerate(zip(wanted, found, strict=True)):
            yield from within(mine, theirs, f"{path}[{index}]", secret)
    elif isinstance(wanted, list) and isinstance(found, list):
        yield f"{path}: {len(found)} items, expected {len(wanted)}"
    elif not value_fits(wanted, found) or is_true_for_one(wanted, found):
        masks = redactor.json(found, secret=secret), redactor.json(wanted, secret=secret)
        shown_as = declared_json(wanted, own, redactor, secret=secret)
        yield f"{path}: {contrast(found, wanted, masks, shown_as)}"


def place(path: str, key: object) -> str:
    return f"{path}.{key}" if str(key).isidentifier() else f"{path}[{key!r}]"


def is_true_for_one(wanted: object, found: object) -> bool:
    """Whether one value is `true` and the other is 1, or `false` and 0: equal in Python, not in JSON."""
    numbers = isinstance(wanted, (int, float)) and isinstance(found, (int, float))
    return numbers and isinstance(wanted, bool) != isinstance(found, bool)
