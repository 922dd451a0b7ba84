"""A plugin of the suites that run in the target: pytest-httpbin's servers are those that a route answers for."""

import os

import pytest_httpbin.certs
import pytest_httpbin.serve

HOST = "httpbin.test"
PORTS = {"http": 8080, "https": 8443}  # as in __main__.py


class Routed:
    """What each server says of itself, in front of the one that listens in this process and is asked by nobody."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.host, self.port = HOST, PORTS[self.protocol]

    @property
    def url(self):
        return f"{self.protocol}://{self.host}:{self.port}"


for name in ("Server", "SecureServer"):
    theirs = getattr(pytest_httpbin.serve, name)
    setattr(pytest_httpbin.serve, name, type(name, (Routed, theirs), {}))
pytest_httpbin.certs.where = lambda: os.environ["SSL_CERT_FILE"]
