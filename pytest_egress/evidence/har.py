"""The HTTP of a test as HAR 1.2 (http://www.softwareishard.com/blog/har-12-spec), of its lines.

It has an entry a line. What HAR has no field for begins with `_`: `_webSocketMessages` and `_resourceType` are of
Chrome, the others are ours. Without a response the status is 0, as Chrome has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final
from urllib.parse import unquote_plus

from pytest_egress.evidence.lines import line_of

PAGE: Final = "test"
UNKNOWN: Final = -1  # a time or a size that nobody has measured
TEXT, BINARY = 1, 2  # opcodes of RFC 6455 section 5.2


def har_head(test: str, opened: float) -> str:
    """What comes before the first entry. The test is the page of all: some readers take no HAR without one.

    Args:
        opened: When its window opened, in seconds since the epoch.
    """
    timings = {"onContentLoad": UNKNOWN, "onLoad": UNKNOWN}
    page = {"startedDateTime": moment(opened), "id": PAGE, "title": test, "pageTimings": timings}
    log = {"version": "1.2", "creator": {"name": "pytest-egress", "version": "1"}}
    return line_of({"log": log | {"comment": test, "pages": [page]}})[:-2] + ',"entries":[\n'


HAR_END: Final = "\n]}}\n"
BETWEEN: Final = ",\n"


def har_entry(line: Mapping[str, Any], connection: Mapping[str, Any], opened: float) -> str:
    """The entry of a request, as a line.

    Args:
        line: Its dict, as `LineEncoder.encoded` makes it.
        connection: The facts of its connection; empty where it has none.
        opened: When the window opened, in seconds since the epoch.
    """
    request, response = line["request"], line["response"]
    timings = timings_of(line, connection)
    made: dict[str, Any] = {
        "pageref": PAGE,
        "startedDateTime": moment(opened + line["at"] / 1000),
        "time": round(sum(v for k, v in timings.items() if v > 0 and k != "ssl"), 3),
        "request": request_of(request),
        "response": response_of(response, request["http_version"]),
        "cache": {},
        "timings": timings,
        "serverIPAddress": connection.get("address") or "",
        "connection": str(line["connection"] or ""),
        "_resourceType": "fetch",
        "_container": line["container"],
        "_outcome": line["outcome"],
        "_entry": line["n"],
    }
    made |= {f"_{name}": line[name] for name in ("fault", "note", "problem") if line[name]}
    if line["route_text"]:
        made["_route"] = line["route_text"]
    return line_of(made | messages_of(line, opened))


def moment(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timings_of(line: Mapping[str, Any], connection: Mapping[str, Any]) -> dict[str, float]:
    """The parts of its time in milliseconds, of its marks; `ssl` is within `connect`."""
    marks, duration = line["marks"], line["duration"]
    answered = None if duration is None else line["at"] + duration
    opens = connection.get("first") == line["n"]
    hello, secured = connection.get("hello"), connection.get("secured")
    return {
        "blocked": UNKNOWN,
        "dns": UNKNOWN,
        "connect": between(connection.get("opened"), secured or hello) if opens else UNKNOWN,
        "ssl": between(hello, secured) if opens else UNKNOWN,
        "send": max(between(marks.get("begun"), marks.get("whole")), 0),
        "wait": max(between(marks.get("whole") or line["at"], answered), 0),
        "receive": max(between(answered, marks.get("sent")), 0),
    }


def between(start: float | None, end: float | None) -> float:
    return UNKNOWN if start is None or end is None else round(max(end - start, 0), 3)


def request_of(request: Mapping[str, Any]) -> dict[str, Any]:
    body = request["body"] or {}
    made = {
        "method": request["method"],
        "url": request["url"],
        "httpVersion": f"HTTP/{request['http_version']}",
        "cookies": [],
        "headers": named(request["headers"]),
        "queryString": [*map(parameter, filter(None, request["query"].split("&")))],
        "headersSize": UNKNOWN,
        "bodySize": size_of(body),
    }
    if "text" in body or "base64" in body:
        text, encoding = content_of(body)
        made["postData"] = {"mimeType": request["type"], "text": text, "params": []} | encoding
    return made


def response_of(response: Mapping[str, Any] | None, http_version: str) -> dict[str, Any]:
    if response is None:
        none = {"status": 0, "statusText": "", "httpVersion": "", "cookies": [], "headers": []}
        content = {"size": 0, "mimeType": "x-unknown"}
        return none | {
            "content": content,
            "redirectURL": "",
            "headersSize": UNKNOWN,
            "bodySize": UNKNOWN,
        }
    body, fields = response["body"] or {}, response["headers"]
    content = {"size": max(size_of(body), 0), "mimeType": response["type"] or "x-unknown"}
    if "text" in body or "base64" in body:
        text, encoding = content_of(body)
        content |= {"text": text, **encoding}
    leads_to = (value for name, value in fields if name.lower() == "location")
    return {
        "status": response["status"],
        "statusText": response["reason"],
        "httpVersion": f"HTTP/{http_version}",
        "cookies": [],
        "headers": named(fields),
        "content": content,
        "redirectURL": next(leads_to, ""),
        "headersSize": UNKNOWN,
        "bodySize": size_of(body),
    }


def size_of(body: Mapping[str, Any]) -> int:
    """The size of a body as it was sent; that of none is 0."""
    size = body.get("size", 0)
    return UNKNOWN if size is None else int(size)


def content_of(body: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Its text, and the field that says how that is encoded."""
    if "text" in body:
        return body["text"], {}
    return body["base64"], {"encoding": "base64"}


def named(fields: list[list[str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in fields]


def parameter(pair: str) -> dict[str, str]:
    name, _, value = pair.partition("=")
    return {"name": unquote_plus(name), "value": unquote_plus(value)}


def messages_of(line: Mapping[str, Any], opened: float) -> dict[str, Any]:
    """The messages, in the fields of what they are messages of."""
    if line["kind"] == "websocket":
        said = [
            {
                "type": "send" if each["from_client"] else "receive",
                "time": opened + each["at"] / 1000,
                "opcode": BINARY if "base64" in each else TEXT,
                "data": each.get("base64", each["text"]),
            }
            for each in line["messages"]
        ]
        return {"_resourceType": "websocket", "_webSocketMessages": said}
    said = [
        {"time": opened + each["at"] / 1000, "data": each["text"]}
        | ({"from_client": each["from_client"]} if line["kind"] == "grpc" else {})
        for each in line["messages"]
    ]
    if line["kind"] == "grpc":
        call = line["grpc"] or {}
        return {"_grpc": {"path": call.get("path"), "status": call.get("status"), "messages": said}}
    return {"_eventSourceMessages": said} if said else {}
