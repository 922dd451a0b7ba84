"""What real clients report of each fault: the field's table, with curl, Python, Node, Java and Go in containers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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

pytestmark = [pytest.mark.runtimes, pytest.mark.slow]

HOST: Final = "api.example.test"
SECONDS: Final = 2  # the time-out of every client
BODY: Final = b"0123456789" * 10
ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x28"  # handshake_failure (RFC 8446 section 6)

CONNECTIONS: Final = {
    "refuse": refuse(),
    "blackhole": blackhole(),
    "stall": silence(),
    "cut": reset(),
    "alert": raw(ALERT),
}
"""Faults of a connection, before its TLS: each has a host of its own."""

REQUESTS: Final[Mapping[str, Callable[[], Any]]] = {
    "reset": reset,
    "disconnect": disconnect,
    "silence": silence,
    "truncated": lambda: truncated(BODY, 10),
    "chunk": lambda: truncated(lambda request: iter([BODY]), 10),
    "no-http": lambda: raw(b"\x00\x01nonsense\r\n\r\n"),
    "short": lambda: raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
    "bad-chunk": lambda: raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"
    ),
    "late": lambda: delayed(BODY, 30),
    "delayed": lambda: delayed(BODY, 0.2),
    "throttled": lambda: throttled(BODY, 400),
    "quota": lambda: Response(429, headers={"Retry-After": "1"}, text="slow down"),
    "stale": lambda: sequence(disconnect({"id": 1}), {"id": 2}),
}
"""Faults of a request: each has a path of its own."""

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
for argument in "$@"; do
  printf '%s\\t' "${{argument%%=*}}"
  if answer=$(curl -sS --max-time {SECONDS} -w '%{{http_code}} ' -o /tmp/body "${{argument#*=}}" 2>&1); then
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
    "curl": ["sh", "/srv/report.sh"],
    "requests": ["python3", "/srv/report.py", "requests"],
    "httpx": ["python3", "/srv/report.py", "httpx"],
    "Node https": ["node", "-e", NODE, "https"],
    "Node fetch": ["node", "-e", NODE, "fetch"],
    "Java HttpClient": ["/usr/lib/jvm/21/bin/java", "/srv/Report.java", "HttpClient"],
    "Java HttpURLConnection": ["/usr/lib/jvm/21/bin/java", "/srv/Report.java", "connection"],
}
TOLD: Final[Mapping[str, Mapping[str, str]]] = {}
"""For each fault, what each client says of it, as an expression that its report has to match."""


@pytest.fixture(scope="module")
def machine(module_egress: Egress, runtimes_image: str) -> Container:
    """A container with all clients but those of Java and Go that waits for commands."""
    return module_egress.start(runtimes_image, ["sleep", "infinity"], files=PROGRAMS)


@pytest.fixture(scope="module")
def java_machine(module_egress: Egress, java_image: str) -> Container:
    """A container with a JDK that waits for commands."""
    return module_egress.start(java_image, ["sleep", "infinity"], files=PROGRAMS)


def urls() -> list[str]:
    """The arguments of a client: a name and a URL for each fault; the last is asked for twice."""
    of_connections = [f"{name}=https://{name}.example.test/" for name in CONNECTIONS]
    of_requests = [f"{name}=https://{HOST}/{name}" for name in REQUESTS]
    return [*of_connections, *of_requests, f"again=https://{HOST}/stale"]


def report(output: str) -> dict[str, str]:
    """What a client printed, by the names of faults."""
    return dict(line.split("\t", 1) for line in output.splitlines() if "\t" in line)


@pytest.mark.parametrize("client", [*COMMANDS, "Go"])
def test_what_a_client_reports_of_each_fault(
    egress: Egress, request: pytest.FixtureRequest, client: str
) -> None:
    for name, fault in CONNECTIONS.items():
        egress.intercept_tcp(f"{name}.example.test:443", fault)
    routes = {
        name: egress.intercept_https(HOST, make(), path=f"/{name}", name=name)
        for name, make in REQUESTS.items()
    }
    if client == "Go":
        output = egress.run(request.getfixturevalue("go_image"), ["-report", *urls()]).stdout
    else:
        name = "java_machine" if client.startswith("Java") else "machine"
        machine: Container = request.getfixturevalue(name)
        done = machine.exec([*COMMANDS[client], *urls()])
        output = done.stdout
    print(output)
