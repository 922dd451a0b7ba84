"""A web server for a container, and its clients."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

import docker
import pytest

from pytest_egress import Egress

SERVER = """
import http.server, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = {"/size": b"x" * 5_000_000, "/broken": b"no"}.get(self.path, self.path.encode())
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("", 8000), Handler)
print("listening", flush=True)
server.serve_forever()
"""


def error_text(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """The whole text of an error."""
    return str(caught.value)


def get(url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, data, timeout=10) as response:
        return bytes(response.read())


WithClient = Callable[[Callable[[], docker.DockerClient]], Egress]
