"""`smtp()`: a mail server that takes every mail, as the answer of a raw route. Each mail is a call of the route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pytest_egress.routes.answers import Service
from pytest_egress.traffic.smtp import NO_ROOM, Envelope, Session

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

READ_BYTES: Final = 64 * 1024


def smtp() -> SmtpServer:
    """Take every mail: an SMTP server (RFC 5321) as the answer of `intercept_tcp`, or of `intercept_tls` (port 465).

    Each mail is a call of the route, a `Mail`: its envelope, and its `message`, an `email.message.EmailMessage`. A
    connection without a mail is no call. Any recipient and any login (AUTH PLAIN, AUTH LOGIN) is accepted, in the clear
    and in TLS, which clients begin by STARTTLS (RFC 3207). A mail has at most 64 MiB.
    """
    return SmtpServer()


class SmtpServer(Service):
    """What `smtp()` returns. It holds nothing: any number of routes and connections may use it at once."""

    def serve(self, sock: Any, name: str, deliver: Callable[[Envelope], bool]) -> None:
        """Serve one connection, until the client quits or closes."""
        session = Session(name, is_secure=not hasattr(sock, "starttls"))
        sock.sendall(session.greeting)
        while data := sock.recv(READ_BYTES):
            session.feed(data)
            while (step := session.step()) is not None:
                is_taken = step.mail is None or deliver(step.mail)
                sock.sendall(step.reply if is_taken else NO_ROOM)
                if step.then == "quit":
                    return
                if step.then == "starttls":
                    sock = sock.starttls()
                    session.start_tls()

    def __repr__(self) -> str:
        return "smtp()"
