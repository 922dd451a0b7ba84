"""`RefusedCall`: a request that is not passed on to the engine, with the status and the sentence that a tool prints."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http import HTTPStatus


class RefusedCall(Exception):
    """A request that is not passed on to the engine.

    Attributes:
        status: The status of the response.
    """

    def __init__(self, text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(text)
        self.status = status

    @property
    def body(self) -> bytes:
        return json.dumps({"message": f"pytest-egress: {self}"}).encode()


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Refuse for the reason for which a method of ours does."""
    try:
        yield
    except ValueError as error:
        raise RefusedCall(str(error)) from None
