"""Every error of the package. This module holds no text of verdicts (see `report`).

* `EgressError`, an `AssertionError`: what containers attempted, or did not attempt, fails the test
    * `LeakError`: a container sent what `secret()` has made where it must not
    * `HandlerError`: a handler raised, returned something that is no answer, or never returned
    * `CertificateAcceptedError`: a client accepted the bad certificate, or old version of TLS, that a route presents
    * `UnroutedError`: a container attempted something that no route claims
    * `LockError`: a container reached what `egress.lock` does not list
    * `NeverCalledError`: a route that this test declared was never called
    * `HandshakeError`: a client's TLS handshakes with a host that a route claims failed, and none succeeded later
    * `SweepError`: what a container does where a call of it fails is wrong, or a fault sweep was not whole
    * `TamperingError`: a container changed the capture rules, or attempted more than can be recorded
    * `CallError`: an `assert_*` method failed, or a wait timed out
    * `OpenApiError`: a request, or its answer, does not fit the OpenAPI document of its route
* `EngineError`: the container engine did not do what it was asked
    * `ImageError`: the image is missing and cannot be pulled
    * `LinkError`: the sidecar cannot hand over its sockets, or died
* `ContainerError`: a target ended otherwise than the call expected, with its logs
    * `CommandError`: it exited with another code than 0 (unless `check=False`), or before it was ready
    * `ContainerTimeoutError`: it did not end, or was not ready, in time
* `UpstreamError`: a real server, or the server that `forward` names, did not answer
* `CassetteError`: a cassette is not there, cannot be read, or cannot be recorded
* `WebSocketClosedError`: a WebSocket is over, so that nothing can be sent on it or received
* `AddressError`, `ClientHelloError`, `ContentError`, `LockFileError`: `ValueError`s of the parsers
* `AbsentError`, caught as the `KeyError` that it is: a message has no field, parameter or file of that name

Each carries its whole text as its only argument, so that it crosses process borders (pytest-xdist pickles it). A text
quotes what targets have sent and written, so that `str` of an error has it escaped.
"""

from __future__ import annotations

import pytest_egress.base.escaping as escaping


class EgressError(escaping.Escaped, AssertionError):
    """The test fails because of what its containers attempted, or did not; the text is the whole report.

    Attributes:
        headline: The failure in one line, which begins with the attempt; "" where the text itself is that short.
    """

    headline = ""


class LeakError(EgressError):
    """A container sent a secret to another address than it is for, in a URL or a name, or outside of TLS."""


class HandlerError(EgressError):
    """A handler raised (its exception is the `__cause__`), returned something that is no answer, or never returned."""


class CertificateAcceptedError(EgressError):
    """A client accepted the bad certificate, or the old version of TLS, that a route presents, and made a request."""


class UnroutedError(EgressError):
    """A container attempted something that no route claims."""


class LockError(EgressError):
    """A container reached a destination that `egress.lock` does not list."""


class NeverCalledError(EgressError):
    """A route that was declared for this test alone was never called."""


class HandshakeError(EgressError):
    """A client broke off TLS with a host that a route claims, and no later handshake of that client succeeded."""


class SweepError(EgressError):
    """A container whose call a fault sweep had fail hung, crashed or hid the failure; or the sweep was not whole."""


class TamperingError(EgressError):
    """A container changed the rules that capture its traffic, or attempted more than can be recorded.

    Nothing left the container's network. Some attempts may not be in the ledger.
    """


class CallError(EgressError):
    """An assertion about calls or attempts failed, or a wait for them timed out."""


class OpenApiError(EgressError):
    """A request, or its answer, does not fit the document of `openapi(...)`. It is the cause of a `HandlerError`."""


class EngineError(escaping.Escaped, Exception):
    """The container engine did not do what it was asked; the text says what to do about it."""


class ImageError(EngineError):
    """The image is missing on the engine and cannot be pulled."""


class LinkError(EngineError):
    """The sidecar did not hand over its sockets, or it ended. No target is started without them."""


class ContainerError(escaping.Escaped, Exception):
    """A target ended otherwise than the call expected.

    Attributes:
        logs: What the container wrote to standard output and standard error last, 1,048,576 characters at most.
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
    """A command of `run` or `exec` failed, or the container's own ended before the container was ready.

    Attributes:
        stdout: The end of what a command of `run` or `exec` wrote to standard output, 1,048,576 characters at most.
        stderr: The same of standard error.
    """

    stdout = stderr = ""


class ContainerTimeoutError(ContainerError, TimeoutError):
    """The container did not end, or was not ready, in time, and has been removed; or a command of `exec` still runs."""


class UpstreamError(escaping.Escaped, Exception):
    """A real server, or the server that a `forward` names, cannot be reached, fails verification, or broke off."""


class CassetteError(escaping.Escaped, Exception):
    """A cassette is not there, cannot be read, or cannot be recorded; the text says what to type."""


class WebSocketClosedError(escaping.Escaped, Exception):
    """A WebSocket is over. Where its client has ended it, this is no error of the handler that it is raised in.

    Attributes:
        code: The code of the client's close frame (RFC 6455 section 7.4); 1005 where that had none, and 1006 where the
            client broke off without one.
        reason: The reason in that frame, or "".
    """

    def __init__(self, text: str, *, code: int = 1006, reason: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


class AddressError(escaping.Escaped, ValueError):
    """An address is not in the format that routes take; raised where the route is declared."""


class ClientHelloError(escaping.Escaped, ValueError):
    """Bytes from a client cannot begin a TLS ClientHello."""


class ContentError(escaping.Escaped, ValueError):
    """The body of a message is not what its header fields say: its content coding, or its form."""


class LockFileError(escaping.Escaped, ValueError):
    """A file is no `egress.lock`; the text says which line, and what is expected there."""


class AbsentError(KeyError):
    """A message has no field, parameter or file of that name; the text lists the names that it has."""

    def __str__(self) -> str:  # that of KeyError is the repr of the text
        return escaping.escaped(str(self.args[0]))
