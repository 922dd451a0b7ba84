"""`Order`: what a user has asked to be run, read from the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_egress.base.clock import check_seconds
from pytest_egress.traffic.address import Address, parse_address
from pytest_egress.traffic.redaction.redactor import BY_NAMES, Redactor

SECONDS: Final = 60.0  # for one run of the image
LONG_NAME: Final = 12  # characters of a name in lower case


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be run.

    Attributes:
        command: Empty for the image's own.
        env: Its environment variables.
        named: The variables of `env` that were given by name, and have the value that they have here.
        timeout: Seconds for one run.
        report: The folder of an audit's report, with a page for each run; None for none.
        clear: The addresses that an audit allows to be asked in the clear.
    """

    image: str
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    named: frozenset[str] = frozenset()
    timeout: float = SECONDS
    report: Path | None = None
    clear: tuple[Address, ...] = ()

    @property
    def redactor(self) -> Redactor:
        """What hides its secrets."""
        return BY_NAMES.knowing(self.env)


def order_of(
    image: str,
    command: Sequence[str],
    variables: Sequence[str],
    timeout: float,
    report: str | None = None,
    clear: Sequence[str] = (),
) -> Order:
    """Raise ValueError where a variable or an address is none, and TypeError where a time is none.

    The text has no value of a variable.
    """
    check_seconds(timeout)
    env, named = {}, set()
    for variable in variables:
        name, equals, value = variable.partition("=")
        if not name:
            raise ValueError("-e takes NAME=VALUE, or NAME alone for the value that it has here")
        if not equals:
            if name not in os.environ:
                # It may be a value whose name was forgotten.
                told = name if name == name.upper() or len(name) < LONG_NAME else f"{name[:4]}..."
                raise ValueError(f"-e {told}: it is not set here; give its value, -e {told}=VALUE")
            value = os.environ[name]
            named.add(name)
        env[name] = value
    return Order(
        image=image,
        command=tuple(command[1:] if command[:1] == ["--"] else command),
        env=env,
        named=frozenset(named),
        timeout=timeout,
        report=None if report is None else Path(report),
        clear=tuple(parse_address(each, default_port=None) for each in clear),
    )


def without_secrets(order: Order, text: str) -> str:
    """A text that may quote what was given on the command line."""
    return order.redactor.text(order.redactor.hidden(text))
