"""Repeats a copy from or to a container that Podman has broken off.

Podman copies by a process of its own for each call, `buildah-copier`, which the kernel ends together with the thread
that started it (PR_SET_PDEATHSIG of prctl(2); golang/go#27505). It then answers with an error that names this process,
or has sent an archive without its end. That is so of one call alone: a read is asked for again, and so is a write. The
archive that is extracted twice leaves what it leaves if it is extracted once, since it has whole files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

from docker.errors import APIError

from pytest_egress.engine.archive import CutArchiveError
from pytest_egress.engine.failures import explanation

Copied = TypeVar("Copied")

TRIES: Final = 5  # of 2,000 calls beside starts of containers one or none was broken off
BROKEN_OFF: Final = re.compile("error (?:decoding|encoding) .* copier subprocess")
"""Podman's message, such as "error decoding response from copier subprocess: EOF".

One of "error in copier subprocess" is what that process has said itself, and would say again.
"""


def again(copy: Callable[[], Copied]) -> Copied:
    """Copy, and copy again where the engine has broken it off, at most `TRIES` times in all.

    Raises:
        APIError: The engine has refused, or has broken off each time.
        CutArchiveError: The archive had no end each time.
    """
    for _ in range(TRIES - 1):
        try:
            return copy()
        except CutArchiveError:
            pass
        except APIError as error:
            if BROKEN_OFF.search(explanation(error)) is None:
                raise
    return copy()
