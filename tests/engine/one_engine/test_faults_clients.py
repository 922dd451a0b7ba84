"""What real clients report of each fault: the field's table, with curl, Python, Node, Java and Go in containers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pytest

from pytest_egress import (
    Egress,
    Response,
    blackhole,
    delayed,
    disconnect,
    raw,
    refuse,
    reset,
    sequence,
    silence,
    throttled,
    truncated,
)
from pytest_egress.targets.handle import Container
from tests.support.project import ROOT

pytestmark = [pytest.mark.runtimes, pytest.mark.slow]

HOST: Final = "api.example.test"
SECONDS: Final = 2  # the time-out of every client
PAGE: Final = ROOT / "docs/faults.md"
BODY: Final = b"0123456789" * 10
ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x28"  # handshake_failure (RFC 8446 section 6)

FAULTS: Final[Mapping[str, Callable[[], Any]]] = {
    "`reset()`": reset,
    "`disconnect()`": disconnect,
    "`silence()`": silence,
    '`truncated(b"...", 10)`': lambda: truncated(BODY, 10),
    "`truncated(...)` of a stream": lambda: truncated(lambda request: iter([BODY]), 10),
    "`raw(...)`, not HTTP": lambda: raw(b"\x00\x01nonsense\r\n\r\n"),
    "`raw(...)`, a body that is too short": lambda: raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    ),
    "`raw(...)`, a broken chunk": lambda: raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"
    ),
    '`delayed(b"...", 30)`': lambda: delayed(BODY, 30),
}
"""Faults of a request, by the first cell of their row in the page."""

OF_CONNECTIONS: Final = {
    "`refuse()`": refuse(),
    "`blackhole()`": blackhole(),
    "`silence()`": silence(),
    "`reset()`": reset(),
    "`raw(...)`, an alert": raw(ALERT),
}
"""Faults of a connection, before its TLS."""

HARMLESS: Final[Mapping[str, tuple[Callable[[], Any], str]]] = {
    "late": (lambda: delayed(BODY, 0.2), f"200 {BODY.decode()}"),
    "slow": (lambda: throttled(BODY, 400), f"200 {BODY.decode()}"),
    "quota": (
        lambda: Response(429, headers={"Retry-After": "1"}, text="slow down"),
        "429 slow down",
    ),
    "closed": (lambda: sequence(disconnect({"id": 1}), {"id": 2}), '200 {"id": 1}'),
}
"""Answers that each client takes, and what it reports then."""

PYTHON: Final = f"""
import sys
if sys.argv[1] == "requests":
    import requests
    session = requests.Session()
    def get(url):
        return session.get(url, timeout={SECONDS})
else:
    import httpx
    session = httpx.Client(timeout={SECONDS})
    get = session.get
for argument in sys.argv[2:]:
    name, _, url = argument.partition("=")
    try:
        answer = get(url)
        text = f"{{answer.status_code}} {{answer.text}}"
    except Exception as error:
        text = f"{{type(error).__name__}}: {{error}}"
    print(name, text, sep="\\t", flush=True)
"""
NODE: Final = f"""
const https = require('https'), agent = new https.Agent({{keepAlive: true}});
const requested = (url) => new Promise((done) => {{
  let status = '', body = '';
  const request = https.get(url, {{agent, timeout: {SECONDS * 1000}}}, (answer) => {{
    status = answer.statusCode + ' ';
    answer.on('data', (piece) => body += piece).on('end', () => done(status + body));
    answer.on('error', (error) => done(status.trim() + ', then ' + error.code + ': ' + error.message));
  }});
  request.on('timeout', () => request.destroy(new Error('time-out')));
  request.on('error', (error) => done((error.code || 'Error') + ': ' + error.message));
}});
const fetched = async (url) => {{
  try {{
    const answer = await fetch(url, {{signal: AbortSignal.timeout({SECONDS * 1000})}});
    return answer.status + ' ' + await answer.text();
  }} catch (error) {{
    const cause = error.cause ? `: ${{error.cause.code || ''}} ${{error.cause.message}}` : '';
    return `${{error.name}}: ${{error.message}}${{cause}}`;
  }}
}};
(async () => {{
  const get = process.argv[1] === 'fetch' ? fetched : requested;
  for (const argument of process.argv.slice(2)) {{
    const at = argument.indexOf('=');
    console.log(argument.slice(0, at) + '\\t' + await get(argument.slice(at + 1)));
  }}
  process.exit(0);
}})();
"""
JAVA: Final = f"""
import java.net.*;
import java.net.http.*;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

public class Report {{
    static HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1)
        .connectTimeout(Duration.ofSeconds({SECONDS})).build();

    static String byClient(URI uri) throws Exception {{
        var request = HttpRequest.newBuilder(uri).timeout(Duration.ofSeconds({SECONDS})).build();
        var answer = client.send(request, BodyHandlers.ofString());
        return answer.statusCode() + " " + answer.body();
    }}

    static String byConnection(URI uri) throws Exception {{
        var connection = (HttpURLConnection) uri.toURL().openConnection();
        connection.setConnectTimeout({SECONDS * 1000});
        connection.setReadTimeout({SECONDS * 1000});
        int status = connection.getResponseCode();
        var stream = status < 400 ? connection.getInputStream() : connection.getErrorStream();
        return status + " " + new String(stream.readAllBytes());
    }}

    public static void main(String[] args) {{
        for (int i = 1; i < args.length; i++) {{
            int at = args[i].indexOf('=');
            String text;
            try {{
                URI uri = URI.create(args[i].substring(at + 1));
                text = args[0].equals("HttpClient") ? byClient(uri) : byConnection(uri);
            }} catch (Exception error) {{
                text = error.toString();
            }}
            System.out.println(args[i].substring(0, at) + "\\t" + text);
        }}
        System.exit(0);
    }}
}}
"""
SHELL: Final = f"""
version=$1; shift
for argument in "$@"; do
  printf '%s\\t' "${{argument%%=*}}"
  if answer=$(curl "$version" -sS --max-time {SECONDS} -w '%{{http_code}} ' -o /tmp/body "${{argument#*=}}" 2>&1); then
    printf '%s%s\\n' "$answer" "$(cat /tmp/body)"
  else
    printf '%s\\n' "$(printf '%s' "$answer" | tr '\\n' ' ')"
  fi
done
"""
PROGRAMS: Final = {
    "/srv/report.py": PYTHON.encode(),
    "/srv/report.sh": SHELL.encode(),
    "/srv/Report.java": JAVA.encode(),
}
COMMANDS: Final = {
    "curl": ["sh", "/srv/report.sh", "--http1.1"],
    "curl, HTTP/2": ["sh", "/srv/report.sh", "--http2"],
    "requests": ["python3", "/srv/report.py", "requests"],
    "httpx": ["python3", "/srv/report.py", "httpx"],
    "Node `https`": ["node", "-e", NODE, "https"],
    "Node `fetch`": ["node", "-e", NODE, "fetch"],
    "Java `HttpClient`": ["/usr/lib/jvm/21/bin/java", "/srv/Report.java", "HttpClient"],
    "Java `HttpURLConnection`": ["/usr/lib/jvm/21/bin/java", "/srv/Report.java", "connection"],
}


@pytest.fixture(scope="module")
def machine(module_egress: Egress, runtimes_image: str) -> Container:
    """A container with all clients but those of Java and Go that waits for commands."""
    return module_egress.start(runtimes_image, ["sleep", "infinity"], files=PROGRAMS)


@pytest.fixture(scope="module")
def java_machine(module_egress: Egress, java_image: str) -> Container:
    """A container with a JDK that waits for commands."""
    return module_egress.start(java_image, ["sleep", "infinity"], files=PROGRAMS)


def tables() -> list[dict[str, dict[str, str]]]:
    """The tables of the page with what clients report: a cell by its row and its column."""
    found: list[dict[str, dict[str, str]]] = []
    header: list[str] = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if not cells:
            header = []
        elif not header and cells[1:] == [*COMMANDS, "Go"]:
            header = cells[1:]
            found.append({})
        elif header and set(cells[0]) != {"-"}:
            found[-1][cells[0]] = dict(zip(header, cells[1:], strict=True))
    return found


def report(output: str) -> dict[str, str]:
    """What a client printed, by the names of faults."""
    return dict(line.split("\t", 1) for line in output.splitlines() if "\t" in line)


def unlike(cell: str, told: str) -> str:
    """How a report is other than a cell of the page says: it lacks a quoted part. "" where it is alike."""
    return "" if all(part in told for part in re.findall("`([^`]+)`", cell)) else f"{cell}: {told}"


def test_the_page_has_a_row_for_each_fault() -> None:
    of_requests, of_connections = tables()
    assert [*of_requests] == [*FAULTS]
    assert [*of_connections] == [*OF_CONNECTIONS]


@pytest.mark.parametrize("client", [*COMMANDS, "Go"])
def test_a_client_reports_of_each_fault_what_the_page_says(
    egress: Egress, request: pytest.FixtureRequest, client: str
) -> None:
    urls = [f"warm=https://{HOST}/late"]  # the first request of a JVM takes long
    for number, fault in enumerate(OF_CONNECTIONS.values()):
        egress.intercept_tcp(f"fault{number}.example.test:443", fault)
        urls.append(f"connection {number}=https://fault{number}.example.test/")
    for number, make in enumerate(FAULTS.values()):
        egress.intercept_https(HOST, make(), path=f"/{number}")
        urls.append(f"request {number}=https://{HOST}/{number}")
    for name, (make, _) in HARMLESS.items():
        egress.intercept_https(HOST, make(), path=f"/{name}", optional=True)
        urls.append(f"{name}=https://{HOST}/{name}")
    urls.append(f"again=https://{HOST}/closed")

    told = report(ask(egress, request, client, urls))

    assert {name: told[name] for name in HARMLESS} == {
        name: text for name, (_, text) in HARMLESS.items()
    }
    of_requests, of_connections = tables()
    # A pool may find that its connection was closed only by the next request, which then meets a disconnect().
    late = not unlike(of_requests["`disconnect()`"][client], told["again"])
    assert told["again"] == '200 {"id": 2}' or late or told["again"].endswith("EOF")
    wrong = [
        *(unlike(of_requests[row][client], told[f"request {n}"]) for n, row in enumerate(FAULTS)),
        *(
            unlike(of_connections[row][client], told[f"connection {n}"])
            for n, row in enumerate(OF_CONNECTIONS)
        ),
    ]
    assert not [*filter(None, wrong)]


def ask(egress: Egress, request: pytest.FixtureRequest, client: str, urls: Sequence[str]) -> str:
    """Have a client ask for URLs, and return what it prints."""
    if client == "Go":
        return egress.run(
            request.getfixturevalue("go_image"), ["-report", *urls], check=False
        ).stdout
    name = "java_machine" if client.startswith("Java") else "machine"
    machine: Container = request.getfixturevalue(name)
    return machine.exec([*COMMANDS[client], *urls], timeout=600, check=False).stdout
