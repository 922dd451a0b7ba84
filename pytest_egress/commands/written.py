"""The test about an image, as text: routes for what it attempted, the run, and how often each was called.

Nothing of a request is in it but its host and method. A secret of the command or the environment is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from pytest_egress.commands.order import Order
from pytest_egress.ledger.declaring import declaration, imported, is_declarable
from pytest_egress.ledger.remedies import string_literal, typed
from pytest_egress.ledger.watched import is_undeclared
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange
from pytest_egress.traffic.redaction.redactor import Redactor, redactor_of
from pytest_egress.traffic.shown import SCHEME_PORTS, host_port

WIDTH: Final = 100  # of a line, from which on a call has a line for each argument
BEARER: Final = re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{4,}")
IN_URL: Final = re.compile(r"(://[^/\s:@]{0,256}:)[^@\s/]{1,256}@")
PAIR: Final = re.compile(r"([\w-]{1,64})(=|: ?)(?!(?i:bearer|basic) )([^\s\"'&;$<][^\s\"'&;]*)")
"""A name and what it names, as in a header field, a query or an assignment; a variable of a shell is no secret."""

SECRET: Final = "<secret>"
NOT_NAMES: Final = re.compile(r"\W+", re.ASCII)
FLAG: Final = re.compile(r"--?([\w-]+)")
LEFT_OUT: Final = "# What may be a secret was left out of the command: put in what the test needs."
SHOWN_ROUTES: Final = 200  # of an image that asks more, the test says so, and fails
AGAIN: Final = "  # it was refused, and may have asked again"


@dataclass(frozen=True, kw_only=True)
class WrittenRoute:
    """A line that declares a route.

    Attributes:
        line: The line, without the variable that it is assigned to.
        name: The variable; "" for none.
        calls: How often it was called; of a client that may have repeated itself, at least once.
        repeats: Whether its client may have.
        address: Its address, as `assert_only` takes it; "" where it is none that was dialled.
    """

    line: str
    name: str = ""
    calls: int = 0
    repeats: bool = False
    address: str = ""


def test_text(order: Order, entries: Sequence[Entry], redactor: Redactor) -> str:
    """The text of a test whose routes answer as little as they can."""
    routes = [*routes_of([entry for entry in entries if is_undeclared(entry)])]
    about = f"What {order.image} asks, as `pytest-egress watch` saw it. Each answer is empty: give it yours."
    return whole_test(about, order, routes, redactor, "check=False")


def whole_test(
    about: str,
    order: Order,
    routes: Sequence[WrittenRoute],
    redactor: Redactor,
    check: str,
    exit_code: int | None = None,
) -> str:
    """The text of the file.

    Args:
        about: Its docstring.
        check: The last argument of the run: "check=False", or "".
        exit_code: The exit code that the run is asserted to have; None for any.
    """
    if len(routes) > SHOWN_ROUTES:
        more = f"# and {len(routes) - SHOWN_ROUTES} more: declare them by globs, such as *.api.test"
        routes = [*routes[:SHOWN_ROUTES], WrittenRoute(line=more)]
    imports = imported([route.line for route in routes])
    env = [*env_items(order, redactor)]
    body = [(f"{route.name} = " if route.name else "") + route.line for route in routes]
    body += [""] if body else []
    body += [*run_lines(order, env, redactor, check, "" if exit_code is None else "result = "), ""]
    if exit_code is not None:
        body.append(f"assert result.exit_code == {exit_code}")
    body += [*count_lines(routes)]
    addresses = dict.fromkeys(route.address for route in routes if route.address)
    listed = ", ".join(map(string_literal, addresses))
    body.append(f"egress.assert_only({listed})" if addresses else "egress.assert_no_egress()")
    needs_os = any("os.environ" in item for item in env)
    head = [f'"""{escaped_doc(about)}"""', "", *(["import os", ""] if needs_os else [])]
    head += [*([imports, ""] if imports else []), "", f"def test_{name_of(order.image)}(egress):"]
    return "\n".join([*head, *(f"    {line}".rstrip() for line in body), ""])


def routes_of(entries: Iterable[Entry]) -> Iterator[WrittenRoute]:
    """A route for each destination and method of requests, and for each other attempt."""
    requests: dict[tuple[str, str, str], list[Exchange]] = {}
    others: dict[str, Entry] = {}
    for entry in entries:
        if not is_declarable(entry):
            continue
        if isinstance(entry, Exchange) and entry.grpc is None:
            key = (entry.request.scheme, address_of(entry), entry.request.method)
            requests.setdefault(key, []).append(entry)
        else:
            others.setdefault(declaration(entry), entry)
    taken: Counter[str] = Counter()
    for (scheme, address, method), calls in requests.items():
        name = variable_for(address, taken)
        line = f'egress.intercept_{scheme}("{address}", {{}}, method={string_literal(method)})'
        yield WrittenRoute(
            line=line,
            name=name,
            calls=len(calls),
            repeats=repeats(calls),
            address=with_port(calls[0]),
        )
    for line, entry in others.items():
        if line.startswith("#"):
            yield WrittenRoute(line=line)
        else:
            dialled = "" if isinstance(entry, DnsQuery) else host_port(typed(entry), entry.port)
            yield WrittenRoute(line=line, address=dialled)


def address_of(entry: Exchange) -> str:
    request = entry.request
    port = None if request.port == SCHEME_PORTS[request.scheme] else request.port
    return host_port(redactor_of(request).host_glob(request.host), port)


def with_port(entry: Exchange) -> str:
    return host_port(redactor_of(entry.request).host_glob(entry.request.host), entry.request.port)


def repeats(calls: Sequence[Exchange]) -> bool:
    """Whether two of these requests are equal, as those of a client are that tries again."""
    made = Counter(
        (call.request.path, call.request.query_string, call.request.content) for call in calls
    )
    return max(made.values()) > 1


def variable_for(address: str, taken: Counter[str]) -> str:
    """A name of Python for a host: `api_stripe_com`, and `api_stripe_com_2` for the second."""
    name = name_of(address)
    taken[name] += 1
    return name if taken[name] == 1 else f"{name}_{taken[name]}"


def name_of(text: str) -> str:
    """A part of a name of Python: of an image without its registry, tag and digest."""
    last = text.rpartition("/")[2].partition("@")[0].partition(":")[0]
    name = NOT_NAMES.sub("_", last).strip("_").lower() or "image"
    return f"_{name}" if name[0].isdigit() else name


def count_lines(routes: Sequence[WrittenRoute]) -> Iterator[str]:
    for route in routes:
        if route.name:
            sign, why = (">= 1", AGAIN) if route.repeats else (f"== {route.calls}", "")
            yield f"assert len({route.name}.calls) {sign}{why}"


def run_lines(
    order: Order, env: Sequence[str], redactor: Redactor, check: str, before: str
) -> Iterator[str]:
    command = [without_secrets(arg, before, redactor) for before, arg in preceded(order.command)]
    if command != [*order.command]:
        yield LEFT_OUT
    arguments = [string_literal(order.image)]
    arguments += [f"[{', '.join(map(string_literal, command))}]"] if command else []
    arguments += [f"env={{{', '.join(env)}}}"] if env else []
    arguments += [check] if check else []
    line = f"{before}egress.run({', '.join(arguments)})"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"{before}egress.run("
    for argument in arguments:
        yield f"    {argument},"
    yield ")"


def preceded(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each argument after the one before it, which may be the name of what it is."""
    return zip(["", *command], command, strict=False)


def without_secrets(argument: str, before: str, redactor: Redactor) -> str:
    """An argument of the command with its secrets masked, told by value, by name and by form."""
    flag = FLAG.fullmatch(before)
    if flag is not None and redactor.is_secret(flag[1]):
        return redactor.masked(argument)
    text = redactor.hidden(IN_URL.sub(rf"\1{SECRET}@", redactor.known(argument)))
    return PAIR.sub(partial(pair, redactor), BEARER.sub(rf"\1 {SECRET}", text))


def pair(redactor: Redactor, found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}{SECRET}" if redactor.is_secret(found[1]) else found[0]


def env_items(order: Order, redactor: Redactor) -> Iterator[str]:
    """The variables: a secret, and one that was given by name, is taken from the environment of the test."""
    for name, value in order.env.items():
        is_told = name not in order.named and redactor.value(name, value) == value
        given = string_literal(value) if is_told else f'os.environ.get("{name}", "-")'
        yield f"{string_literal(name)}: {given}"


def escaped_doc(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
