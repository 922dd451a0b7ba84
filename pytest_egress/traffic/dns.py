"""DNS in which every name exists, with addresses of its own that tell the name when dialled.

Rule: messages are bytes in and bytes out, and this module never touches a socket. `answer` gives an
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
"""Where synthetic addresses are: benchmarking, RFC 2544 and RFC 6890. Nothing on the internet has
one."""

IPV6_NETWORK = ipaddress.IPv6Network("fd00:198:18::/64")
"""The same for IPv6: unique local addresses, RFC 4193."""

MAX_NAMES = 65536
"""Names that have addresses at a time: half of the /15, some 30 MB. A container that asks for
random names for ever then forgets its own oldest ones."""

MAX_ALIASES = 4096
"""Addresses of DNS routes that tell their name when they are dialled: half a megabyte."""

MAX_KNOWN_ANSWERS = 4096
"""Answers kept as bytes for a target: about a megabyte, and three at most."""

MAX_KNOWN_BYTES = 512
"""Of a query whose answer is kept: a name has 255."""

TTL_SECONDS = 10
"""How long a client may keep an address. It bounds for how long one can hold the address of a
forgotten name; a second attempt after it shows as a second query."""

EDNS_PAYLOAD_BYTES = 1232
"""The UDP size we announce: what DNS Flag Day 2020 agreed on."""

MAX_QUERY_BYTES = 4096
"""What is longer is no query: honest clients send none, and 64 KB of records take a tenth of a second."""

UDP_BYTES = 512
"""Of an answer over UDP to a client that does not say how many it takes (RFC 1035, section 4.2.1)."""

MAX_UDP_BYTES = 65507
"""Of any answer over UDP: what an IPv4 packet carries."""

MAX_TCP_BYTES = 65535
"""Of an answer over TCP: its length has two bytes (RFC 1035, section 4.2.2)."""

Rules = Callable[[str], NameAnswer | None]
"""What is to be answered for a name; None for its synthetic addresses."""

_LOOPBACK = ("127.0.0.1", "::1")
_HOSTS_IN_BLOCK = (
    254  # of each 256 addresses; some software takes .0 and .255 for network and broadcast
)
_HEADER_BYTES = 12
_RECORD_BYTES = {False: 12 + 4, True: 12 + 16}  # of an address, by whether it is IPv6
_IS_RESPONSE = 0x80  # QR, in the third byte
_ECHOED_FLAGS = 0x7800 | dns.flags.RD  # the opcode, and whether recursion was desired
_ANSWERED_TYPES = {
    dns.rdatatype.A: (True, False),
    dns.rdatatype.AAAA: (False, True),
    dns.rdatatype.ANY: (True, True),
}
_BESIDES = (dns.rdatatype.SIG, dns.rdatatype.TKEY)
"""Records that a query may have in its additional section, beside OPT and TSIG: RFC 2931, RFC 2930."""

_ANSWERED_CLASSES = (dns.rdataclass.IN, dns.rdataclass.ANY)


def without_service(name: str) -> str:
    """The host in the name of a service of its: `_https._tcp.api.test` is about `api.test` (RFC 8552)."""
    while name.startswith("_") and "." in name:
        name = name.partition(".")[2]
    return name


def reversed_address(name: str) -> str | None:
    """The address that the name of one is about: `9.113.0.203.in-addr.arpa` (RFC 1035, section 3.5; RFC 3596)."""
    if not name.endswith(".arpa"):
        return None
    try:
        return dns.reversename.to_address(dns.name.from_text(name))
    except (dns.exception.DNSException, ValueError):
        return None


class SyntheticNames:
    """Names, each with an IPv4 and an IPv6 address of its own, which have the same number.

    A name keeps its addresses until `MAX_NAMES` others have been used since; then they go to a new
    name. Both methods count as use. Not locked: threads that share one call it under a lock of
    theirs.
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
        """Whose address this is, or None for one that no name has (or no longer)."""
        name = self._names.get(address)
        if name is not None:
            self._addresses.move_to_end(name)
        return name

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
    """A response, and what it says.

    Attributes:
        wire: The message to send. Empty where there is to be silence.
        question: The name asked for, normalised; one that is no host name in the escapes of a zone
            file; empty where none could be read.
        type: The type asked for, such as `A`; empty where none could be read.
        rcode: `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `FORMERR`, `NOTIMP`, `REFUSED` or `BADVERS`; empty
            where there is to be silence.
        addresses: The addresses given, as many as fit.
        no_query: Why what was to be answered is no query, as a sentence; empty for a query.
    """

    wire: bytes
    question: str
    type: str
    rcode: str
    addresses: tuple[str, ...]
    no_query: str = ""


def no_rule(name: str) -> NameAnswer | None:
    """Every name has its synthetic addresses."""
    return None


class _NoQueryError(Exception):
    """What was sent is no query; the text says why.

    Attributes:
        rcode: Of the refusal; None where there is to be silence.
    """

    def __init__(self, why: str, rcode: dns.rcode.Rcode | None) -> None:
        super().__init__(f"it is no DNS query: {why}")
        self.rcode = rcode


def why_no_query(message: bytes) -> str:
    """Why a message is no query, as a sentence; "" for one that is."""
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

    Every name has an A and an AAAA record and no other, so HTTPS, SRV or TXT are empty answers, and
    never cached, for want of an SOA (RFC 2308, section 5). `localhost` is loopback (RFC 6761,
    section 6.3). A name that ends in a number, as an IP address does, does not exist, as in the
    real root zone.

    Args:
        query: A message without its TCP length.
        names: Where names get their addresses.
        rules: What else is to be answered.
        ipv6: Whether the client can use IPv6; if not, there are no AAAA records.
        over_tcp: Whether it has come over TCP; over UDP what does not fit is left out, and the client told so (TC).

    Returns:
        The answer; an empty one to what must not be answered: a response, or less than a header.
    """
    try:
        message = _read(query)
    except _NoQueryError as error:
        return _refuse(query, error)
    return _answer_question(message, names, rules, ipv6, over_tcp)


class Resolver:
    """Answers the queries of one target; the same question gets the same bytes again, without being parsed.

    Not locked, like the names that it gives addresses to.

    Attributes:
        names: Those that have been asked for.
    """

    def __init__(self, *, ipv6: bool = True) -> None:
        self.names = SyntheticNames()
        self._ipv6 = ipv6
        self._aliases: dict[str, str] = {}  # of addresses that rules gave out
        self._known: dict[bytes, Answer] = {}  # by the query without its ID

    def name(self, address: str) -> str | None:
        """Whose synthetic address this is, or None for one that was not given out."""
        return self.names.name(address)

    def alias(self, address: str) -> str | None:
        """The name that a rule gave this address to, the latest; None where none did."""
        return self._aliases.get(address)

    def answer(self, query: bytes, rules: Rules = no_rule, *, over_tcp: bool = False) -> Answer:
        """As the function `answer`."""
        known = self._known.get(query[2:])
        if known is not None and self._still_holds(known) and rules(known.question) is None:
            return replace(known, wire=query[:2] + known.wire[2:])
        found = answer(query, self.names, rules, ipv6=self._ipv6, over_tcp=over_tcp)
        if self._still_holds(found):
            self._remember(query, found)
        else:
            self._take_aliases(found)
        return found

    def _remember(self, query: bytes, found: Answer) -> None:
        if len(query) > MAX_KNOWN_BYTES:
            return
        if len(self._known) >= MAX_KNOWN_ANSWERS:
            self._known.clear()
        self._known[query[2:]] = found

    def _take_aliases(self, found: Answer) -> None:
        """The latest name that an address was given out for counts."""
        for address in set(found.addresses).difference(_LOOPBACK):
            self._aliases.pop(address, None)
            self._aliases[address] = found.question
            if len(self._aliases) > MAX_ALIASES:
                del self._aliases[next(iter(self._aliases))]

    def _still_holds(self, known: Answer) -> bool:
        """Whether its addresses are those of its name; an answer without a synthetic one is not kept."""
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
    """The query, whole.

    Raises:
        _NoQueryError: It is a response, of another opcode, or holds what no query holds.
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
    except Exception:  # of dnspython's, whichever
        raise _NoQueryError("it cannot be read", dns.rcode.FORMERR) from None
    if any(not isinstance(each.exception, dns.message.UnknownTSIGKey) for each in message.errors):
        raise _NoQueryError("it cannot be read", dns.rcode.FORMERR)
    incremental = message.question[0].rdtype == dns.rdatatype.IXFR  # RFC 1995: with the SOA it has
    besides = [record for record in message.additional if record.rdtype not in _BESIDES]
    if (message.authority and not incremental) or besides:
        raise _NoQueryError("it has records of its own", dns.rcode.FORMERR)
    return message


def _refuse(query: bytes, error: _NoQueryError) -> Answer:
    """An answer made from the header alone, where the rest is not understood."""
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
    """Bytes that an answer may have; over UDP what the client says by EDNS (RFC 6891, section 6.2.3)."""
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
    """The message, and the addresses that are in it: TC is set where there is no room for all (RFC 2181, section 9).

    It has RA set: glibc takes an empty answer without it for a lame server's.
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
    """The first addresses, as many as have room."""
    for number, address in enumerate(addresses):
        room -= _RECORD_BYTES[":" in address]
        if room < 0:
            return addresses[:number]
    return addresses


def _record(name: dns.name.Name, address: str) -> dns.rrset.RRset:
    kind, rdtype = (AAAA, dns.rdatatype.AAAA) if ":" in address else (A, dns.rdatatype.A)
    record = kind(dns.rdataclass.IN, rdtype, address)
    return dns.rrset.from_rdata(name, TTL_SECONDS, record)
