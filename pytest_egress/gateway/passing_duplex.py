"""`PassingDuplex`: a `Duplex` that has another one receive. A subclass sends in a way of its own."""

from __future__ import annotations

from collections.abc import Callable

from pytest_egress.routes.duplex import Duplex
from pytest_egress.traffic.messages import NO_FIELDS, Headers


class PassingDuplex:
    """What each `Duplex` that stands before another one has in common."""

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex

    @property
    def trailers(self) -> Headers:
        return self._duplex.trailers

    @property
    def disconnected(self) -> bool:
        return self._duplex.disconnected

    def receive(self, timeout: float | None = None) -> bytes:
        return self._duplex.receive(timeout)

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._duplex.on_disconnect(callback)

    def send_interim(self, status_code: int, headers: Headers = NO_FIELDS) -> None:
        self._duplex.send_interim(status_code, headers)
