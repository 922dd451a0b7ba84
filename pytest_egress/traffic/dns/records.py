"""Parses the records that a DNS route declares by their texts, such as `SRV="0 0 27017 db0.cluster.test"`.

Values only. dnspython parses the texts, which are those of zone files (RFC 1035, section 5.1); names need no final dot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from dns.rdtypes.ANY.TXT import TXT

from pytest_egress.traffic.dns.answers import RECORD_EXAMPLES, Record
from pytest_egress.traffic.shown import shown

MAX_STRING_BYTES: Final = 255  # of a string in a TXT record (RFC 1035, section 3.3.14)
MAX_RECORDS_BYTES: Final = 65535 - 512
"""The most bytes of the records of one type: those of a message over TCP, without what else a message has."""

RECORD_BYTES: Final = 12  # of a record's name, compressed, and its type, class, TTL and length
ALONE: Final = ("CNAME", "SOA")
"""Types of which a name has one record (RFC 1034, section 3.6.2; RFC 1035, section 6.1)."""


def parse_records(given: Mapping[str, Any]) -> dict[str, tuple[Record, ...]]:
    """The texts of a type are a str, or a list of them. An empty list says that there is no record of the type.

    Raises:
        TypeError, ValueError: A text is no record of its type; the error quotes it, and has an example of one that is.
    """
    return {type: parse_type(type, texts) for type, texts in given.items()}


def parse_type(type: str, texts: object) -> tuple[Record, ...]:
    listed: Sequence[Any] = texts if isinstance(texts, (list, tuple)) else [texts]
    for text in listed:
        if not isinstance(text, str):
            raise TypeError(
                f"{type}={shown(texts)}: it takes a str, or a list of them, as {example(type)}"
            )
    if type in ALONE and len(listed) > 1:
        raise ValueError(f"{type}={shown(texts)}: a name has one {type} record, as {example(type)}")
    parsed = [parse_record(type, text) for text in listed]
    records = tuple({record.rdata: record for record in parsed}.values())  # they are a set
    size = sum(RECORD_BYTES + len(record.rdata.to_wire() or b"") for record in records)
    if size > MAX_RECORDS_BYTES:
        raise ValueError(
            f"{type}={shown(texts)}: these are {size:,} bytes, and an answer of DNS has room for {MAX_RECORDS_BYTES:,}"
        )
    return records


def parse_record(type: str, text: str) -> Record:
    try:
        rdata = plain_text(text) if is_plain(type, text) else zone_text(type, text)
    except Exception as error:  # dnspython raises many kinds
        why = " ".join(str(error).split())
        raise ValueError(
            f"{type}={shown(text)} is no {type} record{f' ({why})' if why else ''}; one is {example(type)}"
        ) from None
    record = Record(type=type, text=text, rdata=rdata)
    if record.host.rpartition(".")[2].isdigit():
        raise ValueError(
            f"{type}={shown(text)} leads to {record.host!r}, and a {type} record leads to a name, as {example(type)}"
        )
    return record


def is_plain(type: str, text: str) -> bool:
    """The form of a zone file has the text of a TXT record in quotes."""
    return type == "TXT" and not text.startswith('"')


def zone_text(type: str, text: str) -> dns.rdata.Rdata:
    """Many kinds of exceptions are raised by dnspython for a text that is not in the form of a zone file."""
    if "\n" in text:
        raise ValueError("it has several lines: several records are a list")
    rdata = dns.rdata.from_text("IN", type, text, origin=dns.name.root, relativize=False)
    rdata.to_wire()
    return rdata


def plain_text(text: str) -> dns.rdata.Rdata:
    """The text is not in a zone file's quotes. A long one is split into several strings."""
    data = text.encode()
    strings = [data[at : at + MAX_STRING_BYTES] for at in range(0, len(data), MAX_STRING_BYTES)]
    return TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings or [b""])


def example(type: str) -> str:
    return f"{type}={RECORD_EXAMPLES[type]!r}"
