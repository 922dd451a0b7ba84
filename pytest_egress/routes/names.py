"""Checks the answer of a DNS route: what DNS can say, late, or one after the other, and records of further types.

Values only. dnspython is imported where records are declared, so that a marker costs a run without containers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Final

from pytest_egress.errors import AddressError
from pytest_egress.routes.faults import Delayed, Fault, Silence, Truncated, shown_answer
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.traffic.address import Address, is_ip_address, parse_address
from pytest_egress.traffic.dns.answers import (
    NAME_ANSWERS,
    NO_RECORDS,
    RECORD_EXAMPLES,
    SILENCE,
    SYNTHETIC,
    TRUNCATED,
    NameAnswer,
    Records,
    check_name_answer,
)

WORDS: Final[Mapping[type[Fault], str]] = {Silence: SILENCE, Truncated: TRUNCATED}
"""What DNS has in place of a fault of connections."""


def check_names(answer: object, records: Records = NO_RECORDS) -> object:
    """Make `NameAnswer`s, each with the records, of a DNS route's answer; an error lists what it may be."""
    if isinstance(answer, AnswerSequence):
        return answer.checked(lambda each: check_names(each, records))
    if isinstance(answer, Delayed):
        inner = check_names(answer.answer, records)
        if isinstance(inner, NameAnswer) and inner.rcode is None:
            raise TypeError(
                f"{answer}: {SILENCE!r} sends nothing that could be late; leave delayed() out"
            )
        return replace(answer, answer=inner)
    if isinstance(answer, Fault):
        word = next((WORDS[kind] for kind in WORDS if isinstance(answer, kind)), None)
        hint = f"; DNS has {word!r}" if word else ""
        raise TypeError(f"{shown_answer(answer)} is no answer of DNS{hint}: {NAME_ANSWERS}")
    return check_name_answer(answer, records)


def check_declared(
    name: str, answer: object, texts: Mapping[str, object]
) -> tuple[object, Records]:
    """Check the arguments of `egress.dns` after the name; return the answer and the records.

    Args:
        answer: With None the name has its addresses as without the route.
        texts: The texts of the records by type.

    Raises:
        TypeError, ValueError: With the value, and what is accepted.
    """
    if not texts:
        if answer is None:
            raise TypeError(
                f"dns({name!r}) has no answer: {NAME_ANSWERS}; or records, as {SOME_RECORDS}"
            )
        return check_names(answer), NO_RECORDS
    from pytest_egress.traffic.dns.records import parse_records

    records = parse_records(texts)
    checked = check_names(SYNTHETIC if answer is None else answer, records)
    if isinstance(checked, NameAnswer) and checked.is_error:
        raise ValueError(
            f"dns({name!r}, {checked!r}, {next(iter(records))}=...): by {checked!r} the name has no record at all; "
            "leave one of them out"
        )
    check_cname(name, checked, records)
    return checked, records


SOME_RECORDS: Final = f"MX={RECORD_EXAMPLES['MX']!r}"


def check_cname(name: str, answer: object, records: Records) -> None:
    """Refuse a CNAME beside anything else of its name (RFC 1034, section 3.6.2), or one that leads to itself."""
    if not (found := records.get("CNAME")):
        return
    (cname,) = found
    others = [type for type in records if type != "CNAME"]
    if others or any(each.addresses or not each.is_synthetic for each in plain(answer)):
        other = f"{others[0]}=" if others else "an address"
        raise ValueError(
            f"CNAME={cname.text!r} beside {other}: a name with a CNAME has nothing else (RFC 1034, section 3.6.2). "
            f"Declare that for the name it leads to: egress.dns({cname.host!r}, ...)"
        )
    if cname.host == parse_address(name, default_port=None).host:
        raise ValueError(f"CNAME={cname.text!r}: {name!r} leads to itself")


def plain(answer: object) -> list[NameAnswer]:
    """The answers without an error in a checked answer."""
    parts: tuple[Any, ...] = answer.answers if isinstance(answer, AnswerSequence) else (answer,)
    found = []
    for part in parts:
        while isinstance(part, Delayed):
            part = part.answer
        if not part.is_error:
            found.append(part)
    return found


def name_address(address: Address, types: Mapping[str, object]) -> Address:
    """The address of a DNS route; where an IP address has a PTR record, that of the name for reverse lookups.

    Raises:
        AddressError: It has a port, or is an IP address without that, or a network.
    """
    if address.port is not None:
        raise AddressError(f"{address.text!r}: names have no port in DNS; leave it out")
    host = address.host
    if "/" in host:
        raise AddressError(f"{address.text!r}: DNS is asked for names, and this is no name")
    if not is_ip_address(host):
        return address
    if set(types) != {"PTR"}:
        raise AddressError(
            f"{address.text!r}: DNS is asked for names, and this is no name; for the name of that address: "
            f"egress.dns({address.text!r}, PTR={RECORD_EXAMPLES['PTR']!r})"
        )
    reverse = parse_address(ip_address(host).reverse_pointer, default_port=None)
    return replace(reverse, text=address.text)
