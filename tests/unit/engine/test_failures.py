"""An error that a start meets says what to type, whatever has wrapped its reason."""

from __future__ import annotations

import errno
import os
import resource

import pytest
import requests.exceptions

from pytest_egress import EngineError
from pytest_egress.engine.failures import descriptor_errors, engine_errors


def fail(number: int, wrapped: bool = False) -> None:
    try:
        raise OSError(number, os.strerror(number))
    except OSError as error:
        if not wrapped:
            raise
        with engine_errors("create the sidecar"):
            raise requests.exceptions.ConnectionError(error) from error


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_start_without_a_descriptor_says_how_to_get_more(
    monkeypatch: pytest.MonkeyPatch, wrapped: bool
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (256, 256))
    with pytest.raises(EngineError) as caught, descriptor_errors("app"):
        fail(errno.EMFILE, wrapped)
    assert str(caught.value) == (
        "no descriptor is left to start app: this process may have 256, and each container that runs takes "
        "about twenty, and two for a connection. Raise the limit: `ulimit -n 4096` before pytest"
    )


def test_another_error_of_a_start_stays_as_it_is() -> None:
    with pytest.raises(ConnectionRefusedError), descriptor_errors("app"):
        fail(errno.ECONNREFUSED)
