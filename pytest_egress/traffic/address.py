"""Addresses of routes: their one format, what they match, and the normal form of host names.

Rule: whether a text is an address, what it matches and which of two is more specific is decided here
and nowhere else. The accepted forms are one table, `FORMS`, which error texts and documentation show.
Marker checks import this module at collection, so `idna` is imported only at the first name that is
not ASCII.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pytest_egress.base.globs import Glob
from pytest_egress.errors import AddressError

MAX_LABEL_LENGTH = 63
"""RFC 1035, section 2.3.4."""

MAX_NAME_LENGTH = 253
"""Characters of a name as text. The 255 octets of RFC 1035, section 2.3.4, count the first label's
length and the root too."""

MAX_PORT = 65535

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class AddressForm(NamedTuple):
    """An accepted form of an address, an example of it, and what the example matches."""

    form: str
    example: str
    matches: str


FORMS = (
    AddressForm("exact name", "api.example.com", "that name"),
    AddressForm(
        "glob",
        "*.example.com",
        "every name below example.com, at any depth, not example.com itself",
    ),
    AddressForm("glob, * anywhere", "*example.com", "example.com and every name that ends so"),
    AddressForm("IPv4", "192.0.2.7", "that address"),
    AddressForm("IPv6", "2001:db8::7", "that address"),
    AddressForm("IPv4 CIDR", "192.0.2.0/24", "every address of that network"),
    AddressForm("IPv6 CIDR", "2001:db8::/32", "every address of that network"),
    AddressForm("any host", "*", "every name and every address"),
    AddressForm("with a port", "api.example.com:8443", "that port alone"),
    AddressForm("IPv6 with a port", "[2001:db8::7]:8443", "brackets when a port follows"),
    AddressForm("IPv6 CIDR with a port", "[2001:db8::/32]:8443", "brackets when a port follows"),
    AddressForm("any port", "api.example.com:*", "every port"),
)
"""All accepted forms, in the order in which they are shown."""

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_GLOB_CHARACTERS = _NAME_CHARACTERS | {"*"}
_REGEX_CHARACTERS = frozenset("\\^$+|(){}[]")
_IPV4_CHARACTERS = frozenset("0123456789.")
_LABEL_SEPARATORS = "[.\u3002\uff0e\uff61]"  # RFC 3490, section 3.1
_SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
_TAILS = {"/": "path", "?": "query", "#": "fragment"}
EVERY_ADDRESS = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))
_LOOPBACK = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))
_OWN = "stays in the container and is never captured; have the container connect to a name, as 'service.test'"


class _Refusal(ValueError):
    """The public functions add the text to this reason why it is no address or no host name."""


class _Exact:
    def __init__(self, host: str) -> None:
        self.host = host
        self.rank = (3, 0)

    def matches(self, host: str) -> bool:
        return host == self.host


class _Network:
    """Matches no name."""

    def __init__(self, network: _IPNetwork) -> None:
        self.host = str(network)
        self.network = network
        self.rank = (2, network.prefixlen)

    def matches(self, host: str) -> bool:
        if not is_ip_address(host):
            return False
        try:
            return ipaddress.ip_address(host) in self.network
        except ValueError:
            return False


class _Glob:
    """Matches no address."""

    def __init__(self, glob: str) -> None:
        self.host = glob
        self.glob = Glob(glob)
        self.rank = (1, len(glob) - glob.count("*"))

    def matches(self, host: str) -> bool:
        return self.glob.matches(host) and not is_ip_address(host)


class _Any:
    host = "*"
    rank = (0, 0)

    def matches(self, host: str) -> bool:
        return True


_Pattern = _Exact | _Network | _Glob | _Any


@dataclass(frozen=True, kw_only=True)
class Address:
    """The hosts and ports that a route is declared for, made by `parse_address`.

    Two addresses are equal when their normal forms are: `text`, as it was declared, does not count.
    """

    text: str = field(compare=False)
    host: str  # the host in normal form: a name, an address, a network, a glob or `*`
    port: int | None  # the port, or None for any
    _pattern: _Pattern = field(compare=False, repr=False)

    def matches(self, host: str, port: int) -> bool:
        """`normalise_host` has normalised `host`."""
        return (self.port is None or self.port == port) and self._pattern.matches(host)

    @property
    def is_exact(self) -> bool:
        return isinstance(self._pattern, _Exact)

    @property
    def networks(self) -> tuple[_IPNetwork, ...]:
        """The IP addresses that this matches, as networks."""
        if isinstance(self._pattern, _Any):
            return EVERY_ADDRESS
        if isinstance(self._pattern, _Network):
            return (self._pattern.network,)
        return (ipaddress.ip_network(self.host),) if is_ip_address(self.host) else ()

    @property
    def by_idna2003(self) -> str:
        """The name by IDNA 2003, where that is another one; "" for any other address.

        Clients by it, such as Python's sockets, take "straße" for "strasse" (UTS 46, section 4.1.4, deviations).
        """
        if self.text.isascii() or not self.is_exact:
            return ""
        try:
            name = _split(self.text)[0].encode("idna").decode("ascii").lower().removesuffix(".")
        except UnicodeError:
            return ""
        return "" if name == self.host else name

    @property
    def specificity(self) -> tuple[int, int, bool]:
        """Sorts addresses that match the same host and port: the greatest is the most specific.

        An exact name or address, then networks by length of prefix, then globs by number of literal
        characters, then `*`; among equals a port comes before any port.
        """
        return (*self._pattern.rank, self.port is not None)

    def __str__(self) -> str:
        """`parse_address` reads it back."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{'*' if self.port is None else self.port}"


def parse_address(text: object, *, default_port: int | None) -> Address:
    """Read an address in the one format, `host[:port]`. A `default_port` of None is any port.

    Raises:
        AddressError: `text` is no `str` or no address, or could never match. The message lists the accepted forms.
    """
    try:
        if not isinstance(text, str):
            raise _Refusal(f"it is of type {type(text).__name__}, and an address is a str")
        _refuse_other_notations(text)
        host, port = _split(text)
        pattern = _parse_pattern(host)
        return Address(
            text=text,
            host=pattern.host,
            port=default_port if port is None else _parse_port(port),
            _pattern=pattern,
        )
    except _Refusal as refusal:
        raise AddressError(f"{text!r} is no address: {refusal}\n{_accepted_forms()}") from None


def normalise_host(name: str) -> str:
    """The normal form of a host, in which declared hosts are compared with those on the wire.

    Names: IDNA by UTS 46, label by label (ASCII labels pass, underscores included), lower case, no trailing dot.
    Addresses: as `ipaddress` writes them (RFC 5952), without brackets, an IPv4-mapped one as IPv4.

    Raises:
        AddressError: `name` is neither, or has an IPv6 zone, which means nothing elsewhere.
    """
    try:
        return _normalise(name)
    except _Refusal as refusal:
        raise AddressError(f"{name!r} is no host: {refusal}") from None


def _accepted_forms() -> str:
    width = max(len(form.example) for form in FORMS)
    lines = (f"  {form.example:<{width}}  {form.form}" for form in FORMS)
    return "\n".join(("An address is host[:port]:", *lines))


# Notations that are no address, and are often copied from elsewhere.


def _refuse_other_notations(text: str) -> None:
    if not text:
        raise _Refusal("it is empty")
    if (found := _SPACE_OR_CONTROL.search(text)) is not None:
        raise _Refusal(f"it contains {found[0]!r}, white space or a control character")
    if "://" in text or text.startswith("//"):
        raise _Refusal(f"it is a URL{_instead(text)}")
    if "@" in text:
        raise _Refusal(f"it names a user{_instead(text)}")
    tail = _tail(text)
    if tail and not _is_like_network(text):
        raise _Refusal(f"it has a {_TAILS[tail[0]]}, {tail!r}{_instead(text)}")


def _tail(text: str) -> str:
    """The path, query or fragment of a text, from the character that begins it; "" where it has none."""
    begins = min((text.index(mark) for mark in _TAILS if mark in text), default=len(text))
    return text[begins:]


def _is_like_network(text: str) -> bool:
    base, _, _ = text.partition("/")
    return base.count(":") > 1 or (base != "" and _IPV4_CHARACTERS.issuperset(base))


def _instead(text: str) -> str:
    """The hint to write only the host and port of a URL; "" where those would be refused too."""
    rest = text[2:] if text.startswith("//") else text.partition("://")[2] or text
    authority = rest.removesuffix(_tail(rest)).rpartition("@")[2]
    try:
        parse_address(authority, default_port=None)
    except AddressError:
        return ""
    return f"; write {authority!r}"


# Host and port.


def _split(text: str) -> tuple[str, str | None]:
    """The host without brackets, and the port as text, None where none is written."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or rest[:1] not in ("", ":"):
            raise _Refusal("brackets hold an IPv6 address or network, and a port follows them")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        if ":" in text.partition("/")[2]:
            raise _Refusal("a port comes after brackets, as in '[2001:db8::/32]:443'")
        return text, None
    host, colon, port = text.partition(":")
    if not host:
        raise _Refusal(f"it has no host; for any host write {'*' + text!r}")
    return host, port if colon else None


def _parse_port(text: str) -> int | None:
    if text == "*":
        return None
    if not _is_number(text) or not 1 <= int(text) <= MAX_PORT:
        raise _Refusal(f"its port, {text!r}, is neither a number from 1 to {MAX_PORT} nor *")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and text == str(int(text))


def _parse_pattern(host: str) -> _Pattern:
    if "/" in host:
        return _parse_network(host)
    if ":" not in host and "*" in host:
        return _parse_glob(host)
    normal = _normalise(host)
    _refuse_loopback(normal)
    return _Exact(normal)


def _refuse_loopback(host: str) -> None:
    if is_localhost(host):
        raise _Refusal(f"it is loopback (RFC 6761, section 6.3), which {_OWN}")
    if is_ip_address(host):
        _refuse_loopback_network(ipaddress.ip_network(host))


def is_localhost(name: str) -> bool:
    """Such a name is loopback (RFC 6761, section 6.3)."""
    return name == "localhost" or name.endswith(".localhost")


def _refuse_loopback_network(network: _IPNetwork) -> None:
    loopback: Any = _LOOPBACK[network.version == 6]
    if network.subnet_of(loopback):
        raise _Refusal(f"it is loopback, which {_OWN}")
    if network.num_addresses == 1 and network.network_address.is_unspecified:
        raise _Refusal(f"it is the unspecified address, which connects to loopback and {_OWN}")


def _parse_network(text: str) -> _Network:
    base, _, length = text.partition("/")
    address = _parse_ip(base)
    if not _is_number(length) or int(length) > address.max_prefixlen:
        raise _Refusal(
            f"its prefix length, {length!r}, is not a number from 0 to {address.max_prefixlen}"
        )
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    if network.network_address != address:
        raise _Refusal(f"it has bits set behind its prefix; write {str(network)!r}")
    network = _unmapped_network(network)
    _refuse_loopback_network(network)
    return _Network(network)


def _unmapped_network(network: _IPNetwork) -> _IPNetwork:
    """`::ffff:192.0.2.0/120` is `192.0.2.0/24`."""
    if network.version == 6 and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _parse_glob(text: str) -> _Pattern:
    glob = re.sub(r"\*+", "*", _to_ascii(text))
    if glob == "*":
        return _Any()
    if (
        "." in glob
        and any(map(str.isdigit, glob))
        and _IPV4_CHARACTERS.issuperset(glob.replace("*", ""))
    ):
        raise _Refusal(
            f"a glob matches names and never addresses; write a network{_network_hint(glob)}"
        )
    _check_name(glob, _GLOB_CHARACTERS)
    if _ends_in_number(glob):
        raise _Refusal("it can never match: no name ends in a number")
    _refuse_loopback(glob)
    return _Glob(glob)


def _network_hint(glob: str) -> str:
    """A hint with the network that a glob such as `192.0.2.*` was meant to be; "" where it is none."""
    octets = re.fullmatch(r"([0-9]+(?:\.[0-9]+){0,2})(?:\.\*)+", glob)
    if not octets:
        return ""
    given = octets[1].split(".")
    try:
        base = ipaddress.IPv4Address(".".join([*given, "0", "0", "0"][:4]))
    except ValueError:
        return ""
    return f": '{base}/{8 * len(given)}'"


# Names and addresses in normal form.


def _normalise(text: str) -> str:
    if ":" in text:
        return _normalise_ip(text[1:-1] if text[0] == "[" and text[-1] == "]" else text)
    name = _to_ascii(text)
    _check_name(name, _NAME_CHARACTERS)
    return _normalise_ip(name) if _ends_in_number(name) else name


def _to_ascii(name: str) -> str:
    if not name:
        raise _Refusal("it is empty")
    if len(name) > MAX_NAME_LENGTH + 1:
        raise _Refusal(f"it is longer than the {MAX_NAME_LENGTH} characters of a name")
    if not name.isascii():
        name = ".".join(_label_to_ascii(label) for label in re.split(_LABEL_SEPARATORS, name))
    return name.lower().removesuffix(".")


def _label_to_ascii(label: str) -> str:
    if label.isascii():
        return label
    import idna  # 7 ms that collection does not pay for ASCII names

    if "*" in label:
        raise _Refusal(f"a label with * must be ASCII, and {label!r} is not")
    try:
        return idna.encode(label, uts46=True).decode("ascii")
    except UnicodeError as error:
        raise _Refusal(f"its label {label!r} is no internationalised name: {error}") from None


def _check_name(name: str, allowed: frozenset[str]) -> None:
    if not allowed.issuperset(name):
        bad = next(character for character in name if character not in allowed)
        hint = "; a * is any run of characters, and nothing else is special"
        raise _Refusal(
            f"it contains {bad!r}, which is in no name{hint if bad in _REGEX_CHARACTERS else ''}"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise _Refusal(f"it is longer than the {MAX_NAME_LENGTH} characters of a name")
    for label in name.split("."):
        if not label:
            raise _Refusal("it has an empty label: a dot first, or two in a row")
        if len(label) > MAX_LABEL_LENGTH and max(map(len, label.split("*"))) > MAX_LABEL_LENGTH:
            raise _Refusal(f"its label {label!r} is longer than {MAX_LABEL_LENGTH} characters")


def _normalise_ip(text: str) -> str:
    address = _parse_ip(text)
    return str((address.version == 6 and address.ipv4_mapped) or address)


def _parse_ip(text: str) -> _IPAddress:
    if "%" in text:
        raise _Refusal("an IPv6 zone means nothing outside of its own machine")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        if ":" in text:
            raise _Refusal(
                "it has colons and is no IPv6 address; "
                "a port comes after brackets, as in '[2001:db8::7]:443'"
            ) from None
        raise _Refusal(f"{text!r} ends in a number and is no IPv4 address") from None


def _ends_in_number(name: str) -> bool:
    """Whether `name` could only be an IPv4 address: URL Standard, "ends in a number"."""
    label = name.rpartition(".")[2]
    return label.isdigit() or (
        label.startswith("0x") and set(label[2:]) <= frozenset("0123456789abcdef")
    )


def is_ip_address(host: str) -> bool:
    """No name has a colon or ends in a number."""
    return ":" in host or host.rpartition(".")[2].isdigit()
