"""Checks the arguments of routes, where a test declares them.

The methods of `Egress` and the markers, at collection, call the same functions, so that both refuse the same arguments
with the same messages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from pytest_egress.routes.kinds import Kind
from pytest_egress.routes.matching import MATCHERS, Match
from pytest_egress.routes.name_answers import check_declared, name_address
from pytest_egress.routes.route import Declaration, check_answer
from pytest_egress.traffic.address import parse_address
from pytest_egress.traffic.dns_answers import RECORD_EXAMPLES

OWN_OPTIONS: Final = ("times", "optional", "name")


@functools.cache
def accepted_options(kind: Kind) -> Mapping[str, None]:
    """The keyword arguments that a route of one kind takes, in the order in which messages list them."""
    if kind.answers_names:
        return dict.fromkeys((*RECORD_EXAMPLES, "optional"))
    if not kind.has_handler:
        return {}
    matchers = (*MATCHERS, "stream") if kind.reads_requests else ()
    of_tls = ("client_certificate", "certificate", "tls_version") if kind.ends_tls else ()
    of_raw_tls = ("alpn",) if kind.needs_tls else ()
    return dict.fromkeys((*matchers, *OWN_OPTIONS, *of_tls, *of_raw_tls))


def declare(kind: Kind, address: object, answer: object = None, **options: Any) -> Declaration:
    """Check the arguments of the method of `Egress` that declares a route of one kind.

    Raises:
        AddressError, TypeError, ValueError: An argument is refused; the text quotes it and lists what is accepted.
    """
    parsed = parse_address(address, default_port=kind.default_port)
    accepted = accepted_options(kind)
    if unknown := [name for name in options if name not in accepted]:
        takes = f"it takes {', '.join(accepted)}" if accepted else "it takes no keywords"
        raise TypeError(f"{kind.method}() does not take {unknown[0]}=; {takes}")
    if kind.answers_names:
        optional = options.pop("optional", False)
        name = name_address(parsed, options)
        checked, records = check_declared(parsed.text, answer, options)
        return Declaration(
            kind=kind, address=name, answer=checked, records=records, optional=optional
        )
    match = {name: options.pop(name) for name in MATCHERS if name in options}
    return Declaration(
        kind=kind,
        address=parsed,
        answer=check_answer(kind, answer),
        match=Match(**match),
        **options,
    )


def declaring(kind: Kind) -> Callable[..., Declaration]:
    """A function with the parameters of the method of `Egress` that declares a route of one kind; for markers."""

    def with_handler(address: object, handler: object = None, **options: Any) -> Declaration:
        return declare(kind, address, handler, **options)

    def with_answer(name: object, answer: object = None, **records: Any) -> Declaration:
        return declare(kind, name, answer, **records)

    def with_address(address: object) -> Declaration:
        return declare(kind, address)

    function: Callable[..., Declaration] = with_handler
    if not kind.has_handler:
        function = with_answer if kind.answers_names else with_address
    function.__qualname__ = kind.method  # Python's TypeError for a missing argument shows it
    return function
