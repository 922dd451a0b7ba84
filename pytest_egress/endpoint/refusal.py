"""`RefusedCall`: a request that is not passed on to the engine, with the status and the sentence that a tool prints."""

from __future__ import annotations

import json
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
