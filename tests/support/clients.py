"""Programs for the container with real clients, and what came of them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pytest_egress import Egress
from pytest_egress.targets.handle import Container
from pytest_egress.traffic.entries import Entry
from tests.support.upstreams import succeed

OTHER_CA = "/other-ca.pem"


Background = Callable[..., Future[str]]


def python(client: Container, code: str, *args: str) -> str:
    """What a snippet of Python prints inside, stripped; a failure of it is one of the test."""
    command = ["python3", "-c", textwrap.dedent(code), *args]
    return succeed(client.exec(command, timeout=600))  # on however slow a machine


def attempts(egress: Egress, kind: type[Entry]) -> list[Any]:
    return [entry for entry in egress.ledger if isinstance(entry, kind)]
