"""Turns errors of docker-py, of pytest-socket and of a full process into an `EngineError` that says what to type."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from typing import Final

import requests.exceptions
from docker.errors import APIError, ImageNotFound

from pytest_egress.base.sockets import descriptor_limit
from pytest_egress.engine.endpoint import engine_address
from pytest_egress.errors import EngineError

FORBIDDEN: Final = "A test tried to use socket."  # the start of pytest-socket's message
NOT_EXECUTED: Final = re.compile(
    r'exec: "(?P<runc>[^"]+)": (?P<why>[^:]+(?:: no such file or directory)?)'
    r"|executable file `(?P<crun>[^`]+)` not found"
)
"""The message of the runtimes runc and crun about a command that cannot be executed."""

FORBIDS: Final = (RuntimeError, UserWarning)  # pytest-socket's error; which one depends on -W


class engine_errors:  # used as a statement; a generator's frames would show in tracebacks
    """Turn docker-py's errors into an `EngineError` that names the action, as in "start it", and quotes the engine."""

    def __init__(self, action: str, *, passing: tuple[type[Exception], ...] = ()) -> None:
        self.action = action
        self.passing: tuple[type[Exception], ...] = (ImageNotFound, *passing)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or isinstance(error, self.passing):
            return
        if isinstance(error, APIError):
            raise EngineError(f"the engine did not {self.action}: {explanation(error)}") from None
        check_allowed(error, engine_address())
        if isinstance(error, requests.exceptions.RequestException):
            where = engine_address()
            raise EngineError(
                f"the engine at {where} did not {self.action}: {root_cause(error)}"
            ) from None


class descriptor_errors:  # as above
    """Turn any error by which a start found no descriptor left into an `EngineError` that says how to get more."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or getattr(root_cause(error), "errno", None) != errno.EMFILE:
            return
        raise EngineError(
            f"no descriptor is left to start {self.name}: this process may have {descriptor_limit()}, and each "
            "container that runs takes about twenty, and two for a connection. Raise the limit: "
            "`ulimit -n 4096` before pytest"
        ) from error


def check_allowed(error: BaseException, address: str) -> None:
    """Raise EngineError where pytest-socket has kept a test from the engine."""
    if FORBIDDEN not in str(root_cause(error)):
        return
    unix = address.startswith("unix://")
    allow = "start pytest with --allow-unix-socket" if unix else "name its host with --allow-hosts"
    raise EngineError(
        f"pytest-socket keeps this test from the Docker engine at {address}: {root_cause(error)}\n"
        f"To let tests reach it and nothing else, {allow}; to lift the ban for this test, mark it with "
        "@pytest.mark.enable_socket."
    ) from None


def explanation(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)


def start_failure(image: str, command: Sequence[str] | str | None, error: Exception) -> str:
    """The text about a container that did not start begins with the program if that cannot be executed."""
    said = explanation(error)
    with_command = f"with {command!r}" if command else "with its own command"
    text = f"the engine did not start {image!r} {with_command}: {said}\n"
    if (found := NOT_EXECUTED.search(said)) is not None:
        program, why = found["runc"] or found["crun"], found["why"] or "not found"
        absent = "not found" in why or "no such file" in why
        missing = f"there is no {program!r} in {image!r}"
        text = f"{missing if absent else f'{program!r} in {image!r} cannot be run: {why}'}\n{text}"
    return f"{text}Look at what the image has: `docker run --rm -it --entrypoint sh {image}`."


def root_cause(error: BaseException) -> BaseException:
    """docker-py and requests wrap the exception that has the reason."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error
