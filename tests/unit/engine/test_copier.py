"""What Podman breaks off is asked for again, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from docker.errors import APIError

from pytest_egress.engine.archive import CutArchiveError
from pytest_egress.engine.copier import TRIES, again


def refused(explanation: str) -> APIError:
    return APIError("500 Server Error", explanation=explanation)


def broken_off() -> APIError:
    return refused("error decoding response from copier subprocess: EOF")


def copy(*results: Exception | str) -> Callable[[], str]:
    left = iter(results)

    def one() -> str:
        result = next(left)
        if isinstance(result, Exception):
            raise result
        return result

    return one


@pytest.mark.parametrize("error", [broken_off(), CutArchiveError("cut")])
@pytest.mark.parametrize("times", [0, 1, TRIES - 1])
def test_what_was_broken_off_is_asked_for_again(error: Exception, times: int) -> None:
    assert again(copy(*[error] * times, "the file")) == "the file"


@pytest.mark.parametrize("error", [broken_off(), CutArchiveError("cut")])
def test_what_is_broken_off_each_time_is_an_error(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        again(copy(*[error] * TRIES, "too late"))
    assert caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        refused("no space left on device"),
        refused("error in copier subprocess: chdir /tmp/resolv.conf: not a directory"),
        ValueError("no archive"),
    ],
)
def test_any_other_error_is_raised_at_once(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        again(copy(error, "not asked for"))
    assert caught.value is error
