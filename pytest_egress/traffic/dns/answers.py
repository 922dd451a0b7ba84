"""`NameAnswer`, the answer of a DNS route, and its checks. Values only.

dnspython is not imported here, since markers are checked in runs without containers too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from pytest_egress.errors import AddressError
from pytest_egress.traffic.address import normalise_host
from pytest_egress.traffic.shown import shown

NamesAnswer = str | IPv4Address | IPv6Address | Sequence[str | IPv4Address | IPv6Address]
"""What type checkers accept of `egress.dns`, besides what other rooms make of these."""

RecordTexts = str | Sequence[str]
RCODES: Final = ("NXDOMAIN", "SERVFAIL", "REFUSED")
SILENCE: Final = "silence"
TRUNCATED: Final = "truncated"
SYNTHETIC: Final = "synthetic"
ADDRESS_TYPES: Final = ("A", "AAAA")
ANY_TYPE: Final = "ANY"  # of a question about all records (RFC 1035, section 3.2.3)

RECORD_EXAMPLES: Final[Mapping[str, str]] = {
    "SRV": "0 0 27017 db0.cluster.test",
    "TXT": "v=spf1 -all",
    "MX": "10 mail.shop.test",
    "CNAME": "db.shop.test",
    "PTR": "db.shop.test",
    "HTTPS": '1 . alpn="h2,http/1.1"',
    "SVCB": '1 api.shop.test alpn="h2"',
    "CAA": '0 issue "ca.test"',
    "NS": "ns1.shop.test",
    "SOA": "ns1.shop.test hostmaster.shop.test 1 7200 3600 1209600 300",
}
"""The types of records that a DNS route declares by keyword, each with the text of one."""

TARGETS: Final = ("target", "exchange")
"""The attributes of dnspython's records that are the name to which a record leads."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record without its name and TTL: its text as it was declared, and its rdata as dnspython has it."""

    type: str
    text: str
    rdata: Any = field(compare=False, repr=False)

    @property
    def target(self) -> Any:
        """The name that the record leads to, such as that of a mail server; None where its type has none."""
        found = (getattr(self.rdata, name) for name in TARGETS if hasattr(self.rdata, name))
        return next(found, None)

    @property
    def host(self) -> str:
        """As routes are declared for it; "" where there is none."""
        return "" if self.target is None else host_of(self.target)


def host_of(name: Any) -> str:
    """A name of dnspython's that is no host name is in a zone file's notation."""
    text = name.to_text(omit_final_dot=True)
    try:
        return normalise_host(text)
    except AddressError:
        return str(text).lower()


Records = Mapping[str, tuple[Record, ...]]
"""Records by type."""

NO_RECORDS: Final[Records] = {}


@dataclass(frozen=True, kw_only=True, repr=False)
class NameAnswer:
    """The answer of a DNS route.

    Attributes:
        addresses: IP addresses in normal form, of both families; with none the answer is empty.
        rcode: "NOERROR" or one of `RCODES`; None where no response is to be sent.
        is_synthetic: Whether the addresses are those that the name has without the route.
        is_truncated: Whether a client has to ask over TCP: over UDP the answer is empty, with TC set.
        records: The records of other types. An empty tuple says that there is none of the type.
    """

    addresses: tuple[str, ...] = ()
    rcode: str | None = "NOERROR"
    is_synthetic: bool = False
    is_truncated: bool = False
    records: Records = field(default_factory=dict)

    @property
    def is_error(self) -> bool:
        """Whether it is the answer to questions of every type: an error, or none at all."""
        return self.rcode != "NOERROR"

    @property
    def leaves_all(self) -> bool:
        """Whether the name has what it has without the route."""
        return self.is_synthetic and not self.records

    @property
    def cname(self) -> Record | None:
        return next(iter(self.records.get("CNAME", ())), None)

    def of_type(self, type: str) -> tuple[Record, ...]:
        if type == ANY_TYPE:
            return tuple(record for records in self.records.values() for record in records)
        return tuple(self.records.get(type, ()))

    def answers(self, type: str) -> bool:
        """Whether it says which records of a type the name has, or that it has none."""
        if self.is_error or self.cname is not None or type in self.records:
            return True
        if type == ANY_TYPE:
            return not self.leaves_all
        return not self.is_synthetic and type in ADDRESS_TYPES

    def __repr__(self) -> str:
        if self.is_truncated or self.is_synthetic:
            return repr(TRUNCATED if self.is_truncated else SYNTHETIC)
        if self.is_error:
            return repr(self.rcode or SILENCE)
        return repr(self.addresses[0] if len(self.addresses) == 1 else [*self.addresses])


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What the rules for names say to a question.

    Attributes:
        answer: The answer for the name, or for the last one of `cnames`; None where that has its synthetic addresses.
        cnames: The CNAME records that lead to that name, in order.
        is_truncated: Whether a client has to ask over TCP.
        note: A sentence about it for the ledger, or "".
    """

    answer: NameAnswer | None = None
    cnames: tuple[Record, ...] = ()
    is_truncated: bool = False
    note: str = ""


def check_name_answer(answer: object, records: Records = NO_RECORDS) -> NameAnswer:
    """Make a `NameAnswer` of an address, a list of them, or a word; TypeError or ValueError lists what it takes."""
    words: Mapping[Any, NameAnswer] = {
        **{rcode: NameAnswer(rcode=rcode) for rcode in RCODES},
        SILENCE: NameAnswer(rcode=None),
        TRUNCATED: NameAnswer(is_synthetic=True, is_truncated=True),
        SYNTHETIC: NameAnswer(is_synthetic=True),
    }
    if isinstance(answer, str) and answer in words:
        return replace(words[answer], records=records)
    addresses = answer if isinstance(answer, (list, tuple)) else [answer]
    try:
        texts = tuple(str(ip_address(text)) for text in map(text_of, addresses))
    except ValueError:
        raise ValueError(f"{shown(answer)} is no answer of DNS: {NAME_ANSWERS}") from None
    return NameAnswer(addresses=texts, records=records)


NO_ADDRESS: Final = NameAnswer()
NO_SUCH_NAME: Final = NameAnswer(rcode="NXDOMAIN")
LAME: Final = NameAnswer(rcode="SERVFAIL")
NAME_ANSWERS: Final = (
    f"it takes an IP address, a list of them ([] is no address), {', '.join(map(repr, RCODES))}, {SILENCE!r} (no "
    f"answer at all), {TRUNCATED!r} (the whole over TCP alone), {SYNTHETIC!r} (what the name has without the route), "
    "delayed(answer, seconds), or sequence(...) of these"
)


def text_of(address: object) -> str:
    """Other types are refused: `ip_address` would read a number as an address."""
    if not isinstance(address, (str, IPv4Address, IPv6Address)):
        raise TypeError(f"{shown(address)} is no answer of DNS: {NAME_ANSWERS}")
    return str(address)
