"""DNS answers: every name exists, with synthetic addresses that identify the name when they are dialled.

Rule: messages are bytes in and bytes out, and this module never touches a socket. `answer` returns an
`Answer` for any bytes whatever, and never raises. dnspython reads and writes the wire format.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from pytest_egress.errors import AddressError
from pytest_egress.traffic.address import normalise_host
from pytest_egress.traffic.dns_answers import NameAnswer

IPV4_NETWORK = ipaddress.IPv4Network("198.18.0.0/15")
"""The network of synthetic addresses: that of benchmarks (RFC 2544, RFC 6890). No host on the internet
has one of them."""

IPV6_NETWORK = ipaddress.IPv6Network("fd00:198:18::/64")
"""The network of synthetic IPv6 addresses: unique local ones (RFC 4193)."""

MAX_NAMES = 65536
"""How many names can have addresses at the same time: half of the /15, some 30 MB. A container that
keeps asking for random names loses the addresses of its own oldest ones."""

MAX_ALIASES = 4096
"""How many addresses that DNS routes gave out are remembered with their name: half a megabyte."""

MAX_KNOWN_ANSWERS = 4096
"""How many answers are kept as bytes for a target: about a megabyte, and three at most."""

MAX_KNOWN_BYTES = 512
"""The longest query whose answer is kept: a name has at most 255 bytes."""

TTL_SECONDS = 10
"""How long a client may keep an address. This limits how long a client can use the address of a name
that has lost it; and a second attempt after this time shows as a second query."""

EDNS_PAYLOAD_BYTES = 1232
"""The UDP size we announce: what DNS Flag Day 2020 agreed on."""

MAX_QUERY_BYTES = 4096
"""A longer message is no query: no ordinary client sends one, and parsing 64 KB takes a tenth of a second."""

UDP_BYTES = 512
"""The longest answer over UDP to a client that announces no size by EDNS (RFC 1035, section 4.2.1)."""

MAX_UDP_BYTES = 65507
"""The longest answer over UDP to any client: the most that an IPv4 packet carries."""

MAX_TCP_BYTES = 65535
"""The longest answer over TCP, whose length takes two bytes (RFC 1035, section 4.2.2)."""

Rules = Callable[[str], NameAnswer | None]
"""A function that returns the answer for a name, or None where it has its synthetic addresses."""

_LOOPBACK = ("127.0.0.1", "::1")
_HOSTS_IN_BLOCK = 254  # used of each 256 addresses: some software refuses .0 and .255
_HEADER_BYTES = 12
_RECORD_BYTES = {False: 12 + 4, True: 12 + 16}  # of the record of an address, by whether it is IPv6
_IS_RESPONSE = 0x80  # QR, in the third byte
_ECHOED_FLAGS = 0x7800 | dns.flags.RD  # the opcode, and whether recursion was desired
_ANSWERED_TYPES = {
    dns.rdatatype.A: (True, False),
    dns.rdatatype.AAAA: (False, True),
    dns.rdatatype.ANY: (True, True),
}
_BESIDES = (dns.rdatatype.SIG, dns.rdatatype.TKEY)
"""Types of records that a query may have in its additional section besides OPT and TSIG (RFC 2931, RFC 2930)."""

_ANSWERED_CLASSES = (dns.rdataclass.IN, dns.rdataclass.ANY)


def without_service(name: str) -> str:
    """The host that a name with service labels is about: `_https._tcp.api.test` is about `api.test` (RFC 8552)."""
    while name.startswith("_") and "." in name:
        name = name.partition(".")[2]
    return name


def reversed_address(name: str) -> str | None:
    """The address of a reverse-lookup name, `9.113.0.203.in-addr.arpa` (RFC 1035, section 3.5; RFC 3596), or None."""
    if not name.endswith(".arpa"):
        return None
    try:
        return dns.reversename.to_address(dns.name.from_text(name))
    except (dns.exception.DNSException, ValueError):
        return None


class SyntheticNames:
    """Synthetic addresses of names: one of IPv4 and one of IPv6 for each, with the same number.

    A name keeps its addresses until `MAX_NAMES` other names have been used since; then a new name gets
    them. Both methods count as use. There is no lock: threads that share an instance hold one of their
    own around each call.
    """

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, tuple[str, str]] = (
            OrderedDict()
        )  # least recently used first
        self._names: dict[str, str] = {}

    def addresses(self, name: str) -> tuple[str, str]:
        """The IPv4 and the IPv6 address of a name, in the form that `normalise_host` gives."""
        if name not in self._addresses:
            self._assign(name, self._free_addresses())
        self._addresses.move_to_end(name)
        return self._addresses[name]

    def name(self, address: str) -> str | None:
        """The name that has this address, or None where no name has it (any more)."""
        name = self._names.get(address)
        if name is not None:
            self._addresses.move_to_end(name)
        return name

    def given(self) -> dict[str, str]:
        """The name of each address that was given out. This counts as no use."""
        return self._names.copy()

    def _free_addresses(self) -> tuple[str, str]:
        if len(self._addresses) < MAX_NAMES:
            return _addresses_of(len(self._addresses))
        _, addresses = self._addresses.popitem(last=False)
        return addresses

    def _assign(self, name: str, addresses: tuple[str, str]) -> None:
        self._addresses[name] = addresses
        for address in addresses:
            self._names[address] = name


def _addresses_of(index: int) -> tuple[str, str]:
    block, host = divmod(index, _HOSTS_IN_BLOCK)
    number = block * 256 + host + 1
    return str(IPV4_NETWORK[number]), str(IPV6_NETWORK[number])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response to a DNS query, as bytes and as values.

    Attributes:
        wire: The message to send; empty where none is to be sent.
        question: The name asked for, normalised. A name that is no host name is in a zone file's
            notation. Empty where none could be read.
        type: The type asked for, such as `A`; empty where none could be read.
        rcode: `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `FORMERR`, `NOTIMP`, `REFUSED` or `BADVERS`; empty
            where no message is to be sent.
        addresses: The addresses in the response, as many as fit.
        no_query: A sentence that says why the message is no query; empty for a query.
    """

    wire: bytes
    question: str
    type: str
    rcode: str
    addresses: tuple[str, ...]
    no_query: str = ""


def no_rule(name: str) -> NameAnswer | None:
    """The rules without any DNS route: every name has its synthetic addresses."""
    return None


class _NoQueryError(Exception):
    """A message is no query; the text says why.

    Attributes:
        rcode: The response code to refuse it with; None where no response is to be sent.
    """

    def __init__(self, why: str, rcode: dns.rcode.Rcode | None) -> None:
        super().__init__(f"it is no DNS query: {why}")
        self.rcode = rcode


def why_no_query(message: bytes) -> str:
    """A sentence that says why a message is no query; "" for a query."""
    try:
        _read(message)
    except _NoQueryError as error:
        return str(error)
    return ""


def answer(
    query: bytes,
    names: SyntheticNames,
    rules: Rules = no_rule,
    *,
    ipv6: bool = True,
    over_tcp: bool = False,
) -> Answer:
    """Answer a query (RFC 1035, section 4.1; EDNS by RFC 6891).

    Every name has an A and an AAAA record and no other. Queries for HTTPS, SRV or TXT get empty
    answers, which clients do not cache, as they have no SOA (RFC 2308, section 5). `localhost` is loopback (RFC 6761,
    section 6.3). A name that ends in a number, as an IP address does, does not exist, as in the
    real root zone.

    Args:
        query: A message without its TCP length.
        names: Gives names their synthetic addresses.
        rules: The answers of DNS routes.
        ipv6: Whether the client can use IPv6; if not, there are no AAAA records.
        over_tcp: Whether the query came over TCP. Over UDP, addresses that do not fit are left out, and TC is set.

    Returns:
        The answer. It is empty for a message that must not be answered: a response, or less than a header.
    """
    try:
        message = _read(query)
    except _NoQueryError as error:
        return _refuse(query, error)
    return _answer_question(message, names, rules, ipv6, over_tcp)


class Resolver:
    """Answers the queries of one target. A repeated query gets its kept answer without being parsed again.

    There is no lock: threads that share an instance hold one of their own around each call.

    Attributes:
        names: The names that have been asked for, with their addresses.
    """

    def __init__(self, *, ipv6: bool = True) -> None:
        self.names = SyntheticNames()
        self._ipv6 = ipv6
        self._aliases: dict[str, str] = {}  # the latest name of an address that a rule gave out
        self._known: dict[bytes, Answer] = {}  # by the query without its ID

    def name(self, address: str) -> str | None:
        """The name that has this synthetic address, or None where no name has it."""
        return self.names.name(address)

    def alias(self, address: str) -> str | None:
        """The latest name that a rule answered with this address; None where none did."""
        return self._aliases.get(address)

    def given(self) -> tuple[dict[str, str], dict[str, str]]:
        """The name of each synthetic address that was given out, and the latest name of each that a rule gave out."""
        return self.names.given(), self._aliases.copy()

    def answer(self, query: bytes, rules: Rules = no_rule, *, over_tcp: bool = False) -> Answer:
        """Answer a query as the function `answer` does, from the kept answers where possible."""
        known = self._known.get(query[2:])
        if known is not None and self._still_holds(known) and rules(known.question) is None:
            return replace(known, wire=query[:2] + known.wire[2:])
        found = answer(query, self.names, rules, ipv6=self._ipv6, over_tcp=over_tcp)
        if self._still_holds(found):
            self._remember(query, found)
        else:
            self._remember_aliases(found)
        return found

    def _remember(self, query: bytes, found: Answer) -> None:
        if len(query) > MAX_KNOWN_BYTES:
            return
        if len(self._known) >= MAX_KNOWN_ANSWERS:
            self._known.clear()
        self._known[query[2:]] = found

    def _remember_aliases(self, found: Answer) -> None:
        """Remember the name of each address that a rule gave out; a later name replaces an earlier one."""
        for address in set(found.addresses).difference(_LOOPBACK):
            self._aliases.pop(address, None)
            self._aliases[address] = found.question
            if len(self._aliases) > MAX_ALIASES:
                del self._aliases[next(iter(self._aliases))]

    def _still_holds(self, known: Answer) -> bool:
        """Whether an answer's synthetic addresses are still those of its name; False for an answer without any."""
        return bool(known.addresses) and self.names.name(known.addresses[0]) == known.question


def tcp_frames(buffer: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """Split what a TCP client has sent into whole messages and the rest.

    RFC 1035, section 4.2.2: each message comes after its length in two bytes.
    """
    messages = []
    offset = 0
    while len(buffer) >= offset + 2:
        end = offset + 2 + int.from_bytes(buffer[offset : offset + 2], "big")
        if end > len(buffer):
            break
        messages.append(buffer[offset + 2 : end])
        offset = end
    return tuple(messages), buffer[offset:]


def tcp_frame(wire: bytes) -> bytes:
    """A message as TCP carries it, after its length in two bytes (RFC 1035, section 4.2.2)."""
    return len(wire).to_bytes(2, "big") + wire


def _read(query: bytes) -> dns.message.Message:
    """Parse a query.

    Raises:
        _NoQueryError: It is a response, has another opcode, or contains records that no query has.
    """
    if len(query) < _HEADER_BYTES:
        raise _NoQueryError("it is shorter than the header of one", None)
    if query[2] & _IS_RESPONSE:
        raise _NoQueryError("it is a response", None)
    if (opcode := dns.opcode.from_flags(int.from_bytes(query[2:4], "big"))) != dns.opcode.QUERY:
        raise _NoQueryError(f"its opcode is {dns.opcode.to_text(opcode)}", dns.rcode.NOTIMP)
    if query[4:8] != b"\x00\x01\x00\x00":  # QDCOUNT: exactly one, RFC 9619; ANCOUNT
        raise _NoQueryError("it does not ask one question alone", dns.rcode.FORMERR)
    if len(query) > MAX_QUERY_BYTES:
        raise _NoQueryError(f"it has {len(query)} bytes", dns.rcode.FORMERR)
    try:
        message = dns.message.from_wire(query, continue_on_error=True)
    except Exception:  # dnspython raises many kinds
        raise _NoQueryError("it cannot be read", dns.rcode.FORMERR) from None
    if any(not isinstance(each.exception, dns.message.UnknownTSIGKey) for each in message.errors):
        raise _NoQueryError("it cannot be read", dns.rcode.FORMERR)
    incremental = message.question[0].rdtype == dns.rdatatype.IXFR  # RFC 1995: it carries an SOA
    unexpected = [record for record in message.additional if record.rdtype not in _BESIDES]
    if (message.authority and not incremental) or unexpected:
        raise _NoQueryError("it has records of its own", dns.rcode.FORMERR)
    return message


def _refuse(query: bytes, error: _NoQueryError) -> Answer:
    """The refusal of a message that is no query, made from its header alone."""
    if error.rcode is None:
        return Answer(wire=b"", question="", type="", rcode="", addresses=(), no_query=str(error))
    response = dns.message.Message(id=int.from_bytes(query[:2], "big"))
    response.flags = dns.flags.QR | (int.from_bytes(query[2:4], "big") & _ECHOED_FLAGS)
    response.set_rcode(error.rcode)
    rcode = dns.rcode.to_text(error.rcode)
    return Answer(
        wire=response.to_wire(),
        question="",
        type="",
        rcode=rcode,
        addresses=(),
        no_query=str(error),
    )


def _answer_question(
    query: dns.message.Message, names: SyntheticNames, rules: Rules, ipv6: bool, over_tcp: bool
) -> Answer:
    asked = query.question[0]
    name = _host(asked.name)
    rcode = _rcode(query)
    addresses: tuple[str, ...] = ()
    is_silent = False
    if rcode == dns.rcode.NOERROR and asked.name != dns.name.root:
        rule = None if _is_loopback(name) else rules(name)
        if rule is not None:
            rcode = dns.rcode.from_text(rule.rcode or "NOERROR")
            is_silent = rule.rcode is None
        addresses = _addresses(asked, name, names, rule, ipv6)
    wire, given = _response(query, rcode, addresses, _room(query, over_tcp))
    return Answer(
        wire=b"" if is_silent else wire,
        question=name,
        type=dns.rdatatype.to_text(asked.rdtype),
        rcode="" if is_silent else dns.rcode.to_text(rcode),
        addresses=given,
    )


def _room(query: dns.message.Message, over_tcp: bool) -> int:
    """How many bytes an answer may have: over UDP as many as the client announces by EDNS (RFC 6891, section 6.2.3)."""
    if over_tcp:
        return MAX_TCP_BYTES
    return max(UDP_BYTES, min(query.payload, MAX_UDP_BYTES)) if query.edns >= 0 else UDP_BYTES


def _host(name: dns.name.Name) -> str:
    text = name.to_text(omit_final_dot=True)
    try:
        return normalise_host(text)
    except AddressError:
        return text.lower()


def _rcode(query: dns.message.Message) -> dns.rcode.Rcode:
    asked = query.question[0]
    if query.edns > 0:
        return dns.rcode.BADVERS
    if asked.rdclass not in _ANSWERED_CLASSES:
        return dns.rcode.REFUSED
    if len(asked.name) > 1 and asked.name[-2].isdigit():
        return dns.rcode.NXDOMAIN
    return dns.rcode.NOERROR


def _is_loopback(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _addresses(
    asked: dns.rrset.RRset, name: str, names: SyntheticNames, rule: NameAnswer | None, ipv6: bool
) -> tuple[str, ...]:
    want_ipv4, want_ipv6 = _ANSWERED_TYPES.get(asked.rdtype, (False, False))
    if not (want_ipv4 or want_ipv6):
        return ()
    given: tuple[str, ...] = _LOOPBACK if _is_loopback(name) else ()
    if rule is not None:
        given = rule.addresses
    elif not given:
        given = names.addresses(name)
    wanted = {False: want_ipv4, True: want_ipv6 and ipv6}
    return tuple(address for address in given if wanted[":" in address])


def _response(
    query: dns.message.Message, rcode: dns.rcode.Rcode, addresses: tuple[str, ...], room: int
) -> tuple[bytes, tuple[str, ...]]:
    """The message, and the addresses that are in it. TC is set where there is no room for all (RFC 2181, section 9).

    RA is set too: glibc takes an empty answer without it for that of a lame server, and asks on.
    """
    response = dns.message.QueryMessage(id=query.id)
    response.flags = dns.flags.QR | dns.flags.RA | (query.flags & dns.flags.RD)
    response.question = query.question
    if query.edns >= 0:  # RFC 3225, section 3: DO is copied
        response.use_edns(0, query.ednsflags & dns.flags.DO, EDNS_PAYLOAD_BYTES)
    response.set_rcode(rcode)
    given = _fitting(addresses, room - len(response.to_wire())) if addresses else ()
    if len(given) < len(addresses):
        response.flags |= dns.flags.TC
    for address in given:
        response.answer.append(_record(query.question[0].name, address))
    return response.to_wire(max_size=MAX_TCP_BYTES), given


def _fitting(addresses: tuple[str, ...], room: int) -> tuple[str, ...]:
    """The first of the addresses, as many as fit into so many bytes."""
    for number, address in enumerate(addresses):
        room -= _RECORD_BYTES[":" in address]
        if room < 0:
            return addresses[:number]
    return addresses


def _record(name: dns.name.Name, address: str) -> dns.rrset.RRset:
    kind, rdtype = (AAAA, dns.rdatatype.AAAA) if ":" in address else (A, dns.rdatatype.A)
    record = kind(dns.rdataclass.IN, rdtype, address)
    return dns.rrset.from_rdata(name, TTL_SECONDS, record)
