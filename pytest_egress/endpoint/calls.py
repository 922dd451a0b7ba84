"""The calls of the Docker Engine API that are known: method and decoded path, and what is done with each.

Paths and queries are decoded once, matched as a whole, and written anew. So no other spelling of a path, and no
parameter that is not in its row, reaches the engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.traffic.shown import shown

MAX_TARGET: Final = 16 * 1024  # characters of a path with its query; filters are in it
MAX_FIELDS: Final = 100


class Act(Enum):
    """What is done with a request."""

    PASS = "pass"  # to the engine, without a body
    UPLOAD = "upload"  # to the engine, with its body as it is
    CREATE = "create"  # a container behind a sidecar
    INSPECT = "inspect"
    LIST = "list"  # containers, without sidecars
    ATTACH = "attach"  # a stream takes the connection over
    EXEC_CREATE = "exec create"
    EXEC_START = "exec start"  # a stream, unless it is detached
    REMOVE = "remove"
    WAIT = "wait"
    START = "start"  # with its published ports
    EVENTS = "events"  # without those of sidecars
    NETWORK = "network"  # of the networks that we keep
    VOLUME = "volume"


class Whose(Enum):
    """Which name a path has."""

    NONE = "none"
    CAPTURED = "captured"  # a container made through the endpoint
    ANY = "any"  # any container or image, which is looked at
    EXEC = "exec"  # a command in a container made through the endpoint


@dataclass(frozen=True, kw_only=True)
class Row:
    """A call of the API.

    Attributes:
        path: Without the version; `*` is one segment, `**` at least one.
        query: The parameters that are passed on.
    """

    method: str
    path: str
    act: Act = Act.PASS
    whose: Whose = Whose.NONE
    query: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineCall:
    """A request that is in the table.

    Attributes:
        version: As `/v1.45`; "" where the path has none.
        name: Of the container, image or command; "" where the path has none.
        query: The parameters, each once.
    """

    row: Row
    version: str
    name: str
    query: Mapping[str, str]

    def target(self, name: str = "") -> str:
        """The request-target, written anew; `name` replaces the one that was asked for."""
        wild = "**" if "**" in self.row.path else "*"
        path = self.row.path.replace(wild, quote(name or self.name, safe="/:@"))
        query = urlencode(self.query)
        return f"{self.version}{path}{'?' if query else ''}{query}"


STREAM: Final = ("stream", "stdin", "stdout", "stderr", "logs", "detachKeys")
LOGS: Final = ("follow", "stdout", "stderr", "since", "until", "timestamps", "tail", "details")
EVENTS: Final = ("since", "until", "filters")
PULL: Final = ("fromImage", "tag", "platform")
ONE: Final = "/containers/*"
ONE_NETWORK: Final = "/networks/*"


def captured(method: str, path: str, *query: str, act: Act = Act.PASS) -> Row:
    return Row(method=method, path=path, act=act, whose=Whose.CAPTURED, query=query)


ROWS: Final = (
    Row(method="GET", path="/_ping"),
    Row(method="HEAD", path="/_ping"),
    Row(method="GET", path="/version"),
    Row(method="GET", path="/info"),
    Row(method="GET", path="/events", act=Act.EVENTS, query=EVENTS),
    Row(method="GET", path="/images/json", query=("all", "filters", "digests", "shared-size")),
    Row(method="GET", path="/images/**/json", whose=Whose.ANY, query=("manifests",)),
    Row(method="POST", path="/images/create", query=PULL),
    Row(
        method="GET",
        path="/containers/json",
        act=Act.LIST,
        query=("all", "limit", "size", "filters", "since", "before", "trunc_cmd"),
    ),
    Row(method="POST", path="/containers/create", act=Act.CREATE, query=("name", "platform")),
    Row(method="GET", path=f"{ONE}/json", act=Act.INSPECT, whose=Whose.ANY, query=("size",)),
    captured("GET", f"{ONE}/logs", *LOGS),
    captured("GET", f"{ONE}/top", "ps_args"),
    captured("GET", f"{ONE}/stats", "stream", "one-shot"),
    captured("GET", f"{ONE}/changes"),
    captured("GET", f"{ONE}/archive", "path"),
    captured("HEAD", f"{ONE}/archive", "path"),
    captured("PUT", f"{ONE}/archive", "path", "noOverwriteDirNonDir", "copyUIDGID", act=Act.UPLOAD),
    captured("POST", f"{ONE}/start", "detachKeys", act=Act.START),
    captured("POST", f"{ONE}/stop", "t", "signal"),
    captured("POST", f"{ONE}/restart", "t", "signal", act=Act.START),
    captured("POST", f"{ONE}/kill", "signal"),
    captured("POST", f"{ONE}/pause"),
    captured("POST", f"{ONE}/unpause"),
    captured("POST", f"{ONE}/resize", "h", "w"),
    captured("POST", f"{ONE}/wait", "condition", act=Act.WAIT),
    captured("POST", f"{ONE}/attach", *STREAM, act=Act.ATTACH),
    captured("POST", f"{ONE}/exec", act=Act.EXEC_CREATE),
    captured("DELETE", ONE, "v", "force", "link", act=Act.REMOVE),
    Row(method="GET", path="/volumes", act=Act.VOLUME, query=("filters",)),
    Row(method="GET", path="/volumes/*", act=Act.VOLUME),
    Row(method="DELETE", path="/volumes/*", act=Act.VOLUME, query=("force",)),
    Row(method="POST", path="/volumes/create", act=Act.VOLUME),
    Row(method="GET", path="/networks", act=Act.NETWORK, query=("filters",)),
    Row(method="GET", path=ONE_NETWORK, act=Act.NETWORK, query=("verbose", "scope")),
    Row(method="DELETE", path=ONE_NETWORK, act=Act.NETWORK),
    Row(method="POST", path="/networks/create", act=Act.NETWORK),
    Row(method="POST", path="/networks/prune", act=Act.NETWORK, query=("filters",)),
    Row(method="POST", path=f"{ONE_NETWORK}/connect", act=Act.NETWORK),
    Row(method="POST", path=f"{ONE_NETWORK}/disconnect", act=Act.NETWORK),
    Row(method="POST", path="/exec/*/start", act=Act.EXEC_START, whose=Whose.EXEC),
    Row(method="POST", path="/exec/*/resize", whose=Whose.EXEC, query=("h", "w")),
    Row(method="GET", path="/exec/*/json", whose=Whose.EXEC),
)

LATER: Final[Mapping[str, str]] = {
    "build": "builds are not captured here: build the image before the test, without DOCKER_HOST",
    "session": "builds are not captured here: build the image before the test, without DOCKER_HOST",
    "grpc": "builds are not captured here: build the image before the test, without DOCKER_HOST",
    "commit": "images of captured containers are not made here",
    "swarm": "swarm starts containers that nobody captures",
    "services": "swarm starts containers that nobody captures",
    "plugins": "plugins run on the host, where nobody captures them",
}
"""Why calls are not in the table, by the first segment of their path."""

VERSION: Final = re.compile(r"v[0-9]{1,3}\.[0-9]{1,3}")
SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*")


def call_of(method: str, target: str) -> EngineCall:
    """The call that a request makes; RefusedCall (501) if it is none of the table."""
    path, _, query = target[: MAX_TARGET + 1].partition("?")
    if len(target) > MAX_TARGET:
        raise RefusedCall("the path is too long", HTTPStatus.REQUEST_URI_TOO_LONG)
    segments = segments_of(path)
    version = ""
    if segments and VERSION.fullmatch(segments[0]):
        version = f"/{segments.pop(0)}"
    for row in ROWS:
        if row.method == method and (name := matched(row.path, segments)) is not None:
            return EngineCall(row=row, version=version, name=name, query=query_of(row, query))
    why = LATER.get(segments[0], "") if segments else ""
    raise RefusedCall(
        f"{shown(method)} {shown(path)} is not among the calls that egress.engine() answers"
        f"{'; ' if why else ''}{why}",
        HTTPStatus.NOT_IMPLEMENTED,
    )


def segments_of(path: str) -> list[str]:
    """The decoded segments of a path; none where it is no path of the API."""
    try:
        decoded = unquote_to_bytes(path).decode("ascii")
    except UnicodeError:
        return []
    empty, *segments = decoded.split("/")
    return segments if not empty and all(map(SEGMENT.fullmatch, segments)) else []


def matched(pattern: str, segments: list[str]) -> str | None:
    """The name in a path of this pattern, "" where it has none; None for a path of another one."""
    _, *wanted = pattern.split("/")
    if "**" in wanted:
        tail = len(wanted) - wanted.index("**") - 1
        start = wanted.index("**")
        middle = segments[start : len(segments) - tail]
        is_it = (
            bool(middle)
            and segments[:start] == wanted[:start]
            and segments[len(segments) - tail :] == wanted[start + 1 :]
        )
        return "/".join(middle) if is_it else None
    if len(wanted) != len(segments):
        return None
    if any(want not in ("*", got) for want, got in zip(wanted, segments, strict=True)):
        return None
    return "".join(got for want, got in zip(wanted, segments, strict=True) if want == "*")


def query_of(row: Row, query: str) -> dict[str, str]:
    """The parameters of a query; RefusedCall for one that is not in the row, or is there twice."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise RefusedCall(f"the query {shown(query)}: {error}") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise RefusedCall(f"the parameter {shown(name)} is there twice")
        if name in row.query:
            found[name] = value
        elif value not in ("", "0", "false"):
            known = f"known are {', '.join(row.query)}" if row.query else "none is known"
            raise RefusedCall(
                f"{row.method} {row.path} has the parameter {shown(name)}; {known}",
                HTTPStatus.NOT_IMPLEMENTED,
            )
    return found
