"""`Declaration`: the arguments of a route, checked where a test declares it.

The methods of `Egress` and the markers, at collection, call the same functions, so that both refuse the same arguments
with the same messages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

import pytest_egress.routes.answers as answers
import pytest_egress.routes.raw.libraries as raw
from pytest_egress.base.renamed import refuse_renamed
from pytest_egress.routes.answers import name_of
from pytest_egress.routes.cassette import Cassette
from pytest_egress.routes.certificates import BadCertificate, Presented, TlsVersion, check_presented
from pytest_egress.routes.datagrams import checked_datagrams
from pytest_egress.routes.duplex import DuplexAnswer
from pytest_egress.routes.faults import check_connect_faults
from pytest_egress.routes.kinds import Kind
from pytest_egress.routes.matching import ANY_REQUEST, MATCHERS, Match
from pytest_egress.routes.names import check_cname, check_declared, check_names, name_address
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.routes.turns import parts_of
from pytest_egress.traffic.address import Address, parse_address
from pytest_egress.traffic.dns.answers import NO_RECORDS, RECORD_EXAMPLES, Records
from pytest_egress.traffic.entries import Datagram
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.shown import host_port, shown

OWN_OPTIONS: Final = ("times", "optional", "name")
ClientCertificate = Literal["request", "require"]
CLIENT_CERTIFICATES: Final = ("request", "require")  # the strictest last
INSTALL_HTTP3: Final = "pip install 'pytest-egress[http3]'"
MAX_PROTOCOL_BYTES: Final = 255  # RFC 7301 section 3.1


@functools.cache
def accepted_options(kind: Kind) -> Mapping[str, None]:
    """The options are in the order in which messages list them."""
    if kind.answers_names:
        return dict.fromkeys((*RECORD_EXAMPLES, "optional"))
    if kind.is_proxy:
        return dict.fromkeys(("optional", "name"))
    if not kind.has_handler:
        return {}
    if kind.reads_datagrams:
        return dict.fromkeys(("match", *OWN_OPTIONS))
    matchers = (*MATCHERS, "stream") if kind.reads_requests else ()
    of_tls = ("client_certificate", "certificate", "tls_version") if kind.ends_tls else ()
    of_raw_tls = ("alpn",) if kind.needs_tls else ()
    of_https = ("http3",) if kind.answers_https else ()
    return dict.fromkeys((*matchers, *OWN_OPTIONS, *of_tls, *of_raw_tls, *of_https))


def declare(kind: Kind, address: object, answer: object = None, **options: Any) -> Declaration:
    """Check the arguments of a kind's method of `Egress`; errors quote the refused one and list what is accepted."""
    parsed = parse_address(address, default_port=kind.default_port)
    accepted = accepted_options(kind)
    if kind.has_handler:
        refuse_renamed(
            options, {"handler": "answer="}
        )  # the marker's; the method refuses it by itself
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
    if kind.reads_datagrams:
        options["predicate"] = checked_predicate(options.pop("match", None))
    match = {name: options.pop(name) for name in MATCHERS if name in options}
    return Declaration(
        kind=kind,
        address=parsed,
        answer=checked_answer(kind, answer),
        match=Match(**match),
        **options,
    )


def declaring(kind: Kind) -> Callable[..., Declaration]:
    """A function with the parameters of the method of `Egress` that declares a route of one kind; for markers."""

    def with_handler(address: object, answer: object = None, **options: Any) -> Declaration:
        return declare(kind, address, answer, **options)

    def with_answer(name: object, answer: object = None, **records: Any) -> Declaration:
        return declare(kind, name, answer, **records)

    def with_address(address: object) -> Declaration:
        return declare(kind, address)

    def with_options(address: object, **options: Any) -> Declaration:
        return declare(kind, address, **options)

    function: Callable[..., Declaration] = with_handler
    if kind.is_proxy:
        function = with_options
    elif not kind.has_handler:
        function = with_answer if kind.answers_names else with_address
    function.__qualname__ = kind.method  # Python's TypeError for a missing argument shows it
    return function


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The checked arguments of a route, before it belongs to a scope. `Egress.intercept_https` explains each field."""

    kind: Kind
    address: Address
    answer: object
    match: Match = ANY_REQUEST
    predicate: Callable[[Datagram], object] | None = None  # of a route of datagrams
    times: int | None = None
    optional: bool = False
    name: str | None = None
    client_certificate: ClientCertificate | None = None
    certificate: BadCertificate | None = None
    tls_version: TlsVersion | None = None
    stream: bool = False
    alpn: Sequence[str] = ()
    http3: bool = False
    records: Records = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.stream, bool):
            raise TypeError(f"stream= takes True or False, not {self.stream!r}")
        if self.stream:
            check_head_decides(self.match, "stream=True")
            if isinstance(answers.innermost(self.answer), Cassette):
                raise ValueError(
                    "stream=True with a cassette(): it compares whole bodies; leave stream= out"
                )
        if self.client_certificate not in (None, *CLIENT_CERTIFICATES):
            raise ValueError(
                f"client_certificate={self.client_certificate!r}: it takes 'request' or 'require'"
            )
        if self.presented.is_bad:
            self._check_decides_before_requests()
        if self.times is not None and isinstance(self.answer, AnswerSequence):
            raise ValueError(f"times={self.times!r}: sequence() implies it; leave it out")
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise ValueError(
                f"times={self.times!r}: a route answers 1 time or more; leave it out for any number"
            )
        if not isinstance(self.name, (str, type(None))):
            raise TypeError(f"name= takes a str, not {self.name!r}")
        check_protocols(self.alpn)
        self._check_http3()
        self._check_fits(self.answer)

    def _check_decides_before_requests(self) -> None:
        """A condition or count for requests raises ValueError on a route that is to be rejected before any."""
        given = self.presented.given
        if conditions := str(self.match):
            raise ValueError(
                f"{conditions} with {given}: the handshake comes before the request, and is the same for "
                f"all requests to {self.address.text!r}; leave the conditions out"
            )
        check_uncounted(self.presented, self.times, self.answer)

    def _check_http3(self) -> None:
        """Refuse what QUIC has not, and ask for the extra."""
        if not isinstance(self.http3, bool):
            raise TypeError(f"http3= takes True or False, not {self.http3!r}")
        if not self.http3:
            return
        if self.tls_version not in (None, "TLSv1.3"):
            raise ValueError(
                f"http3=True with tls_version={self.tls_version!r}: QUIC has TLS 1.3 alone; leave http3= out"
            )
        if self.client_certificate is not None:
            raise ValueError(
                f"http3=True with client_certificate={self.client_certificate!r}: in a handshake of QUIC no client is "
                "asked for a certificate here; leave http3= out"
            )
        check_http3_installed()

    @cached_property
    def presented(self) -> Presented:
        return check_presented(self.certificate, self.tls_version, self.client_certificate)

    def another(self, answer: object) -> object:
        """The answer in the form that the route uses. One that it cannot give raises TypeError or ValueError."""
        answer = checked_answer(self.kind, answer, self.records)
        self._check_fits(answer)
        check_uncounted(self.presented, None, answer)
        check_cname(self.address.text, answer, self.records)
        return answer

    def _check_fits(self, answer: object) -> None:
        """Refuse a fault of connecting where a connection is made first, and conditions that come after the answer."""
        kind = self.kind
        where = with_port(self.address)
        if kind.reads_datagrams:
            return
        check_connect_faults(answer, kind.method, where, takes_unread=kind.takes_unread)
        if any(isinstance(part, DuplexAnswer) for part in parts_of(answer)):
            check_head_decides(self.match, shown(answer))

    def text(self, redactor: Redactor) -> str:
        """The code of the declaration: `intercept_https("api.stripe.com", path='/v1')`."""
        parts = [f'"{redactor.host(self.address.text)}"']
        parts += filter(None, [self.match.text(redactor)])
        parts += [f"match={name_of(self.predicate)}"] if self.predicate is not None else []
        parts += [f"times={self.times}"] if self.times is not None else []
        if self.client_certificate is not None:
            parts.append(f"client_certificate={self.client_certificate!r}")
        parts += [self.presented.given] if self.presented.given else []
        parts += ["http3=True"] if self.http3 else []
        parts += [f"alpn={tuple(self.alpn)!r}"] if self.alpn else []
        parts += [f"name={self.name!r}"] if self.name is not None else []
        return f"{self.kind.method}({', '.join(parts)})"


def with_port(address: Address) -> str:
    """The text of an address, with the port that it has by default."""
    text = address.text
    has_port = not address.is_exact or parse_address(text, default_port=None).port is not None
    return text if has_port else host_port(text, address.port)


def check_uncounted(presented: Presented, times: int | None, answer: object) -> None:
    """A number of calls on a route that is to be rejected raises ValueError."""
    if presented.is_bad and (times is not None or isinstance(answer, AnswerSequence)):
        count = "sequence()" if times is None else f"times={times!r}"
        raise ValueError(
            f"{count} with {presented.given}: it counts calls, and a client that rejects makes none; leave it out"
        )


def check_http3_installed() -> None:
    """The import takes a while, and would delay the first connection so much that clients try another address."""
    try:
        import pytest_egress.traffic.http.http3  # noqa: F401
    except ImportError as error:
        raise ImportError(f"http3=True needs aioquic ({error}): {INSTALL_HTTP3}") from error


def check_protocols(alpn: object) -> None:
    """Anything but a list of the names of ALPN raises TypeError or ValueError."""
    wanted = 'it takes names of protocols, as alpn=("postgresql",)'
    if not isinstance(alpn, (tuple, list)) or not all(isinstance(name, str) for name in alpn):
        raise TypeError(f"alpn={alpn!r}: {wanted}")
    for name in alpn:
        if not name.isascii() or not 1 <= len(name) <= MAX_PROTOCOL_BYTES:
            raise ValueError(
                f"alpn={alpn!r}: {name!r} is no name of ALPN, which has 1 to {MAX_PROTOCOL_BYTES} "
                f"characters of ASCII; {wanted}"
            )


def check_head_decides(match: Match, why: str) -> None:
    """Refuse conditions about the body on a route that answers, because of `why`, before the body has come."""
    for name in ("json", "content"):
        if getattr(match, name) is not getattr(Match, name):
            raise ValueError(
                f"{name}= needs the whole body, and {why} answers before that has come: leave {name}= out, and "
                "look at the body in the handler"
            )


def checked_predicate(match: object) -> Any:
    """A `match=` of a route of datagrams that is no function raises TypeError."""
    if match is not None and not callable(match):
        raise TypeError(
            f"match={shown(match)}: it takes a function of the datagram, such as "
            'lambda datagram: datagram.content.startswith(b"shop.")'
        )
    return match


def checked_answer(kind: Kind, answer: object, records: Records = NO_RECORDS) -> object:
    """Convert the answer to the form that the route uses.

    Args:
        records: Of a DNS route: the records that it declares besides.

    Raises:
        TypeError, ValueError: A route of this kind cannot answer with it; the text lists what it takes.
    """
    if kind.answers_names:
        return check_names(answer, records)
    if kind.reads_datagrams:
        return checked_datagrams(answer)
    if kind.has_handler:
        given = raw.adapted(answer) if kind.reads_bytes else answer
        return answers.check_answer(given, raw=kind.reads_bytes)
    if answer is not None:
        raise TypeError(f"{kind.method}() has no answer, but was given {answer!r}")
    return None
