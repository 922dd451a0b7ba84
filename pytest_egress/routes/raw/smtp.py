"""`smtp()`: a mail server that takes every mail, as the answer of a raw route.

The rule: each mail is a call of the route, and takes one of its turns; a connection is none, and takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.routes.answers import Desk, Receipt, Service
from pytest_egress.traffic.entries import Mail
from pytest_egress.traffic.smtp import CLOSING, NO_ROOM, NO_ROUTE, Envelope, SmtpSession, SmtpStep

REFUSALS: Final[Mapping[Receipt, bytes]] = {
    "elsewhere": CLOSING,
    "used up": NO_ROUTE,
    "no room": NO_ROOM,
}


def smtp() -> SmtpServer:
    """Take every mail: an SMTP server (RFC 5321) as the answer of `intercept_tcp`, or of `intercept_tls` (port 465).

    Each mail is a call of the route, a `Mail`: its envelope, and its `message`, an `email.message.EmailMessage`. So
    `times=` and `sequence()` count mails, however many come on one connection; a connection without one is no call.

    Any recipient and any login (AUTH PLAIN, LOGIN, XOAUTH2, OAUTHBEARER) is accepted, in the clear and in TLS, which
    clients begin by STARTTLS (RFC 3207). A mail has at most 64 MiB; a larger one is refused, and fails the test.
    """
    return SmtpServer()


class SmtpServer(Service[Mail]):
    """The server that `smtp()` returns holds nothing: any number of routes and connections may use it at once."""

    deliveries = Envelope.kind
    none_came = "it sent no mail"

    def serve(self, sock: Any, name: str, port: int, desk: Desk) -> None:
        session = SmtpSession(name, is_secure=not hasattr(sock, "starttls"))
        try:
            converse(sock, session, desk)
        finally:
            desk.has_room(0)
            if session.unfinished:
                desk.note(session.unfinished, "end within a mail, and are not kept")
            elif session.has_said_more or session.has_envelope:
                desk.note("", "are in commands that led to no mail, and are not kept")

    def __repr__(self) -> str:
        return "smtp()"


def converse(sock: Any, session: SmtpSession, desk: Desk) -> None:
    """Answer commands, until the client quits or closes, or its next mail is for another connection."""
    sock.sendall(session.greeting)
    while data := sock.recv(READ_BYTES):
        session.feed(data)
        if not desk.has_room(session.size):
            sock.sendall(NO_ROOM)
            return
        while (step := session.step()) is not None:
            desk.has_room(session.size)
            reply = hand_over(step, desk)
            sock.sendall(reply)
            if step.then == "quit" or reply is CLOSING:
                return
            if step.then == "starttls":
                sock = sock.starttls()
                session.start_tls()


def hand_over(step: SmtpStep, desk: Desk) -> bytes:
    if step.mail is None:
        return step.reply
    if step.refusal:
        desk.refuse(step.mail, step.refusal)
        return step.reply
    return REFUSALS.get(desk.take(step.mail), step.reply)
