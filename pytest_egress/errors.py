"""Every error of the package. This module holds no text of verdicts (see `report`) and imports nothing.

* `EgressError`, an `AssertionError`: a test is failed by what its containers did
    * `HandlerError`: a handler raised, returned what is no answer, or never returned
    * `UnroutedError`: a container attempted what no route claims
    * `NeverCalledError`: a route that this test declared was never called
    * `HandshakeError`: a client never got through TLS to a host that a route claims
    * `TamperingError`: a container changed the capture rules, or attempted more than can be recorded
    * `CallError`: an `assert_*` method or a wait of a route does not hold
* `EngineError`: the container engine did not do what it was asked
    * `ImageError`: the image cannot be had
    * `LinkError`: the sidecar cannot hand over its sockets, or died
* `ContainerError`: a target ended otherwise than the call expected, with its logs
    * `CommandError`: it exited with another code than 0 (`check=True`), or before it was ready
    * `ContainerTimeoutError`: it went on for longer than it may
* `UpstreamError`: a real server, or what `forward` names, did not answer
* `AddressError`, `ClientHelloError`: `ValueError`s of the parsers

Each carries its whole text as its only argument, so that it crosses process borders (pytest-xdist pickles it).
"""

from __future__ import annotations


class EgressError(AssertionError):
    """The test is failed by what its containers did; the text is the whole report.

    Attributes:
        headline: What happened in one line, which begins with what was attempted; "" where the text is that short.
    """

    headline = ""


class HandlerError(EgressError):
    """A handler raised (its exception is the `__cause__`), answered nonsense, or never returned."""


class UnroutedError(EgressError):
    """A container attempted something that no route claims."""


class NeverCalledError(EgressError):
    """A route that was declared for this test alone was never called."""


class HandshakeError(EgressError):
    """A client broke off TLS with a host that a route claims, and no later handshake of it succeeded."""


class TamperingError(EgressError):
    """A container changed what brings its traffic to us, or attempted too much. Nothing left; some may be unseen."""


class CallError(EgressError):
    """An assertion about calls, or a wait for one, does not hold."""


class EngineError(Exception):
    """The container engine did not do what it was asked; the text says what to type."""


class ImageError(EngineError):
    """The image is not there and cannot be pulled."""


class LinkError(EngineError):
    """The sidecar did not hand over its sockets, or ended. No target runs without them."""


class ContainerError(Exception):
    """A target ended otherwise than the call expected.

    Attributes:
        logs: What the container wrote, both streams, as text.
        exit_code: Its exit code, or None while it has none.
        container: Its name, as in the ledger.
    """

    def __init__(
        self, text: str, *, logs: str = "", exit_code: int | None = None, container: str = ""
    ) -> None:
        super().__init__(text)
        self.logs = logs
        self.exit_code = exit_code
        self.container = container


class CommandError(ContainerError):
    """The container's command failed (`check=True`), or ended before the container was ready."""


class ContainerTimeoutError(ContainerError, TimeoutError):
    """The container did not end, or was not ready, in time. It has been removed."""


class UpstreamError(Exception):
    """A real server, or what a `forward` names, cannot be reached, fails verification, or broke off."""


class AddressError(ValueError):
    """An address that is not in the one format; raised where it is declared."""


class ClientHelloError(ValueError):
    """Bytes that cannot begin a TLS ClientHello."""
