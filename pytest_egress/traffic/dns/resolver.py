"""DNS answers: every name exists, with synthetic addresses that identify the name when they are dialled.

What a test declares for a name comes as a `Resolution`, with records of any type.

Rule: messages are bytes in and bytes out, and this module never touches a socket. `Resolver.answer` returns an
`Answer` for any bytes whatever, and never raises. dnspython reads and writes the wire format.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
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

from pytest_egress.traffic.address import is_localhost
from pytest_egress.traffic.dns.answers import Record, Resolution, host_of

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

SYNTHETIC_ADDRESSES = Resolution()
"""What a name has that no route is declared for."""

_LOOPBACK = ("127.0.0.1", "::1")
_HOSTS_IN_BLOCK = 254  # used of each 256 addresses: some software refuses .0 and .255
_HEADER_BYTES = 12
_RECORD_BYTES = {False: 12 + 4, True: 12 + 16}  # of the record of an address, by whether it is IPv6
_IS_RESPONSE = 0x80  # QR, in the third byte
_ECHOED_FLAGS = 0x7800 | dns.flags.RD  # the opcode, and whether recursion was desired
_ANSWERED_TYPES = {"A": (False,), "AAAA": (True,), "ANY": (False, True)}
"""The families of the addresses that answer a question, by its type: whether they are IPv6."""

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
        # The least recently used is first.
        self._addresses: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._names: dict[str, str] = {}

    def addresses(self, name: str) -> tuple[str, str]:
        """IPv4 first, in the form that `normalise_host` gives."""
        if name not in self._addresses:
            is_full = len(self._addresses) >= MAX_NAMES
            addresses = self._addresses.popitem(last=False)[1] if is_full else self._new_addresses()
            self._addresses[name] = addresses
            self._names.update(dict.fromkeys(addresses, name))
        self._addresses.move_to_end(name)
        return self._addresses[name]

    def name(self, address: str) -> str | None:
        name = self._names.get(address)
        if name is not None:
            self._addresses.move_to_end(name)
        return name

    def given(self) -> dict[str, str]:
        """The name of each address that was given out. This counts as no use."""
        return self._names.copy()

    def _new_addresses(self) -> tuple[str, str]:
        block, host = divmod(len(self._addresses), _HOSTS_IN_BLOCK)
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
        records: The texts of the other records in it, without those of CNAMEs that lead elsewhere.
        cnames: The names that CNAMEs lead to, in order.
        is_truncated: Whether something did not fit, so that the client has to ask over TCP.
        no_query: A sentence that says why the message is no query; empty for a query.
    """

    wire: bytes = b""
    question: str = ""
    type: str = ""
    rcode: str = ""
    addresses: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    cnames: tuple[str, ...] = ()
    is_truncated: bool = False
    no_query: str = ""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The question of a query; `name` and `type` as in `Answer`.

    Attributes:
        has_rules: Whether the rules for names are asked: not for `localhost`, nor for what is an error in any case.
    """

    id: int
    name: str
    type: str
    has_rules: bool
    _message: dns.message.Message | None = None
    _rcode: dns.rcode.Rcode = dns.rcode.NOERROR


class _NoQueryError(Exception):
    """The text says why a message is no query; it is refused with `rcode`, or not answered where that is None."""

    def __init__(self, why: str, rcode: dns.rcode.Rcode | None) -> None:
        super().__init__(f"it is no DNS query: {why}")
        self.rcode = rcode


def why_no_query(message: bytes) -> str:
    """A sentence; "" for a query."""
    try:
        _read(message)
    except _NoQueryError as error:
        return str(error)
    return ""


def read_question(query: bytes) -> Question | Answer:
    """The question of a query; for a message that is none, the answer that refuses it."""
    try:
        message = _read(query)
    except _NoQueryError as error:
        return _refuse(query, error)
    asked = message.question[0]
    name, rcode = host_of(asked.name), _rcode(message)
    is_error = rcode != dns.rcode.NOERROR or asked.name == dns.name.root
    return Question(
        id=message.id,
        name=name,
        type=dns.rdatatype.to_text(asked.rdtype),
        has_rules=not (is_error or is_localhost(name)),
        _message=message,
        _rcode=rcode,
    )


class Resolver:
    """Answers the queries of one target. A repeated query gets its kept answer without being parsed again.

    There is no lock: threads that share an instance hold one of their own around each call.
    """

    def __init__(self, *, ipv6: bool = True) -> None:
        self.names = SyntheticNames()
        self._ipv6 = ipv6
        self._aliases: dict[str, str] = {}  # of an address that a rule gave out
        self._known: dict[bytes, Answer] = {}  # by the query without its ID

    def name(self, address: str) -> str | None:
        return self.names.name(address)

    def alias(self, address: str) -> str | None:
        """The name that was asked for when a rule gave this address out last; None where it is no such address."""
        return self._aliases.get(address)

    def given(self) -> tuple[dict[str, str], dict[str, str]]:
        """The name of each synthetic address that was given out, and the `alias` of each that a rule gave out."""
        return self.names.given(), self._aliases.copy()

    def question(self, query: bytes) -> Question | Answer:
        """As `read_question`, but a query whose answer is kept is not parsed."""
        known = self._known.get(query[2:])
        if known is None:
            return read_question(query)
        id = int.from_bytes(query[:2], "big")
        return Question(id=id, name=known.question, type=known.type, has_rules=True)

    def answer(
        self,
        query: bytes,
        resolution: Resolution = SYNTHETIC_ADDRESSES,
        question: Question | Answer | None = None,
        *,
        over_tcp: bool = False,
    ) -> Answer:
        """Answer a query (RFC 1035, section 4.1; EDNS by RFC 6891), from the kept answers where possible.

        A name without a rule has an A and an AAAA record and no other. Queries for HTTPS, SRV or TXT get empty
        answers, which clients do not cache, as they have no SOA (RFC 2308, section 5). `localhost` is loopback (RFC
        6761, section 6.3). A name that ends in a number, as an IP address does, does not exist, as in the real root
        zone.

        Args:
            query: A message without its TCP length.
            question: What the method `question` has returned of it, where that was called.
            over_tcp: Over UDP, addresses that do not fit are left out, and TC is set.

        Returns:
            The answer. It is empty for a message that must not be answered: a response, or less than a header.
        """
        is_plain = resolution == SYNTHETIC_ADDRESSES
        known = self._known.get(query[2:]) if is_plain else None
        if known is not None and self._still_holds(known):
            self._forget_aliases(known)
            return replace(known, wire=query[:2] + known.wire[2:])
        if question is None or (isinstance(question, Question) and question._message is None):
            question = read_question(query)
        if isinstance(question, Answer):
            return question
        found = _answer_question(question, self.names, resolution, self._ipv6, over_tcp)
        if not self._still_holds(found):
            self._remember_aliases(found)
            return found
        self._forget_aliases(found)
        if is_plain:
            self._remember(query, found)
        return found

    def _remember(self, query: bytes, found: Answer) -> None:
        if len(query) > MAX_KNOWN_BYTES:
            return
        if len(self._known) >= MAX_KNOWN_ANSWERS:
            self._known.clear()
        self._known[query[2:]] = found

    def _remember_aliases(self, found: Answer) -> None:
        """A later name replaces an earlier one."""
        for address in set(found.addresses).difference(_LOOPBACK):
            self._aliases.pop(address, None)
            self._aliases[address] = found.question
            if len(self._aliases) > MAX_ALIASES:
                del self._aliases[next(iter(self._aliases))]

    def _forget_aliases(self, found: Answer) -> None:
        """Synthetic addresses go back to their own name, which is answered with them: a rule may have used them."""
        if self._aliases:
            for address in found.addresses:
                self._aliases.pop(address, None)

    def _still_holds(self, known: Answer) -> bool:
        """Whether an answer's synthetic addresses are still those of its name; False for an answer without any."""
        return bool(known.addresses) and self.names.name(known.addresses[0]) == known.question


def query_for(name: str, type: str) -> bytes:
    """A query for the records of a host name, as a message."""
    return dns.message.make_query(name, type).to_wire()


def tcp_frames(buffer: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """Split what a TCP client has sent into whole messages and the rest; see `tcp_frame`."""
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
    """A _NoQueryError is raised for a response, another opcode, and records that no query has."""
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
    """The refusal is made from the header alone."""
    if error.rcode is None:
        return Answer(no_query=str(error))
    response = dns.message.Message(id=int.from_bytes(query[:2], "big"))
    response.flags = dns.flags.QR | (int.from_bytes(query[2:4], "big") & _ECHOED_FLAGS)
    response.set_rcode(error.rcode)
    rcode = dns.rcode.to_text(error.rcode)
    return Answer(wire=response.to_wire(), rcode=rcode, no_query=str(error))


def _answer_question(
    question: Question, names: SyntheticNames, resolution: Resolution, ipv6: bool, over_tcp: bool
) -> Answer:
    query, rcode, rule = question._message, question._rcode, resolution.answer
    assert query is not None
    if question.has_rules and rule is not None:
        rcode = dns.rcode.from_text(rule.rcode or "NOERROR")
    is_silent = question.has_rules and rule is not None and rule.rcode is None
    content = holds = _held(question, names, resolution, ipv6)
    if rcode != dns.rcode.NOERROR:  # RFC 6604, section 3: NXDOMAIN is of the last name of CNAMEs
        content = _Content(cnames=holds.cnames) if rcode == dns.rcode.NXDOMAIN else _Content()
    is_cut = resolution.is_truncated and not over_tcp
    room = 0 if is_cut else _room(query, over_tcp)
    wire, given = _response(query, rcode, content, room)
    return Answer(
        wire=b"" if is_silent else wire,
        question=question.name,
        type=question.type,
        rcode="" if is_silent else dns.rcode.to_text(rcode),
        addresses=given.addresses,
        records=tuple(record.text for record in given.records),
        cnames=tuple(record.host for record in given.cnames),
        is_truncated=is_cut or given != content,
    )


@dataclass(frozen=True, kw_only=True)
class _Content:
    """The records of an answer, in its order."""

    cnames: tuple[Record, ...] = ()
    records: tuple[Record, ...] = ()
    addresses: tuple[str, ...] = ()


def _room(query: dns.message.Message, over_tcp: bool) -> int:
    """How many bytes an answer may have: over UDP as many as the client announces by EDNS (RFC 6891, section 6.2.3)."""
    if over_tcp:
        return MAX_TCP_BYTES
    return max(UDP_BYTES, min(query.payload, MAX_UDP_BYTES)) if query.edns >= 0 else UDP_BYTES


def _rcode(query: dns.message.Message) -> dns.rcode.Rcode:
    asked = query.question[0]
    if query.edns > 0:
        return dns.rcode.BADVERS
    if asked.rdclass not in _ANSWERED_CLASSES:
        return dns.rcode.REFUSED
    if len(asked.name) > 1 and asked.name[-2].isdigit():
        return dns.rcode.NXDOMAIN
    return dns.rcode.NOERROR


def _held(
    question: Question, names: SyntheticNames, resolution: Resolution, ipv6: bool
) -> _Content:
    """All that answers a question without an error, whether there is room for it or not."""
    name, rule = question.name, resolution.answer
    if not question.has_rules:
        is_here = is_localhost(name) and question._rcode == dns.rcode.NOERROR
        return _Content(addresses=_wanted(question.type, _LOOPBACK, ipv6) if is_here else ())
    # Where CNAMEs lead to another name, the addresses are still those of the name that was asked for: they tell what
    # dials them from what dials the other name.
    last = resolution.cnames[-1].host if resolution.cnames else name
    records = () if rule is None else rule.of_type(question.type)
    given: tuple[str, ...] = () if rule is None else rule.addresses
    is_own = rule is None or (rule.is_synthetic and rule.cname is None)
    if question.type in _ANSWERED_TYPES and is_own:
        given = _LOOPBACK if is_localhost(last) else names.addresses(name)
    addresses = _wanted(question.type, given, ipv6)
    return _Content(cnames=resolution.cnames, records=records, addresses=addresses)


def _wanted(type: str, addresses: tuple[str, ...], ipv6: bool) -> tuple[str, ...]:
    families = _ANSWERED_TYPES.get(type, ())
    return tuple(
        each for each in addresses if (":" in each) in families and (ipv6 or ":" not in each)
    )


def _response(
    query: dns.message.Message, rcode: dns.rcode.Rcode, content: _Content, room: int
) -> tuple[bytes, _Content]:
    """The message, and what is in it. TC is set where there is no room for all (RFC 2181, section 9).

    RA is set too: glibc takes an empty answer without it for that of a lame server, and asks on.
    """
    response = dns.message.QueryMessage(id=query.id)
    response.flags = dns.flags.QR | dns.flags.RA | (query.flags & dns.flags.RD)
    response.question = query.question
    if query.edns >= 0:  # RFC 3225, section 3: DO is copied
        response.use_edns(0, query.ednsflags & dns.flags.DO, EDNS_PAYLOAD_BYTES)
    response.set_rcode(rcode)
    owner = _append_records(response, query.question[0].name, content)
    if (size := _size(response)) > room and (content.cnames or content.records or not room):
        response.answer.clear()
        given = _Content()
    else:
        fitting = _fitting(content.addresses, room - size)
        given = replace(content, addresses=fitting)
    if given != content or not room:
        response.flags |= dns.flags.TC
    for address in given.addresses:
        response.answer.append(_record(owner, address))
    return response.to_wire(max_size=MAX_TCP_BYTES), given


def _append_records(
    response: dns.message.Message, owner: dns.name.Name, content: _Content
) -> dns.name.Name:
    """Add the records of an answer that are no addresses; return the name that the addresses are of."""
    for cname in content.cnames:
        response.answer.append(dns.rrset.from_rdata(owner, TTL_SECONDS, cname.rdata))
        owner = cname.target or owner
    by_type: dict[str, list[Record]] = {}
    for record in content.records:
        by_type.setdefault(record.type, []).append(record)
    for records in by_type.values():
        rdatas = [record.rdata for record in records]
        response.answer.append(dns.rrset.from_rdata_list(owner, TTL_SECONDS, rdatas))
    return owner


def _size(response: dns.message.Message) -> int:
    try:
        return len(response.to_wire(max_size=MAX_TCP_BYTES))
    except dns.exception.TooBig:
        return MAX_TCP_BYTES + 1


def _fitting(addresses: tuple[str, ...], room: int) -> tuple[str, ...]:
    for number, address in enumerate(addresses):
        room -= _RECORD_BYTES[":" in address]
        if room < 0:
            return addresses[:number]
    return addresses


def _record(name: dns.name.Name, address: str) -> dns.rrset.RRset:
    kind, rdtype = (AAAA, dns.rdatatype.AAAA) if ":" in address else (A, dns.rdatatype.A)
    record = kind(dns.rdataclass.IN, rdtype, address)
    return dns.rrset.from_rdata(name, TTL_SECONDS, record)
