"""A reel of a cassette named a.yaml, as a route of a test has one."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from pytest_egress.routes.recordings.reel import Reel, ToRecord
from pytest_egress.traffic.cassettes.tape import Tape


def reel_of(
    tape: Tape | None = None,
    *,
    records: ToRecord = "all",
    variables: Mapping[str, str] | None = None,
    command: str = "pytest",
) -> Reel:
    """The variables are those of the container; the command is what a failure tells to type."""
    return Reel(
        tape or Tape(),
        name="a.yaml",
        records=records,
        variables=lambda container: variables or {},
        command=command,
        lock=threading.Lock(),
    )
