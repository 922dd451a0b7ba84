"""SMTP as a server speaks it (RFC 5321): commands as values, and `SmtpSession`, which answers them. No socket here.

A session takes every mail and every login. It gets bytes by `feed`, and has a step for each command that is whole: the
reply, and what is to be done. Commands that a client sends without waiting (RFC 2920) are steps one after the other.

It is written by hand, because aiosmtpd 1.4.6 would save about 20 of these lines. Its dots and its pipelining are right,
but MAIL, RCPT, DATA, AUTH and EHLO have to be replaced all the same: a bounce has the sender "<>", a mechanism in lower
case and an empty password are refused, addresses beyond ASCII need no SMTPUTF8, replies have no enhanced codes. It has
one limit for command lines and for lines of mails, keeps a mail where no account sees its size, and tells nobody of a
mail that is too large. A mail of 13 MB in short lines took it 2.2 s of CPU, here 8 ms.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pytest_egress.base.account import OBJECT_BYTES

MAX_MAIL_BYTES: Final = 64 << 20  # 64 MiB: twice what large providers take
MAX_LINE_BYTES: Final = 12288  # of a command, with CRLF: as long as AUTH (RFC 4954 section 4)
MAX_RECIPIENTS: Final = 1000  # of one mail; RFC 5321 section 4.5.3.1.8 has 100 as the least
SHOWN_BYTES: Final = 60  # of a command that a reply quotes

WORD: Final = r'[^<>"\\\s\x00-\x1f]*'
QUOTED: Final = r'"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"'
PATH: Final = re.compile(
    rf"(?:<(?:@[^:<>\s]+:)?((?:{QUOTED})?{WORD})>|([^<>\s\x00-\x1f]+))(?: +(.*))?"
)
"""A path after FROM: or TO:, with its parameters. A route before the address is ignored (RFC 5321 appendix C)."""

COMMAND: Final = re.compile(r"([A-Za-z]{1,16})(?:[ \t]+(.*))?", re.DOTALL)
GS2_HEADER: Final = re.compile(r"[ny],(?:a=((?:[^,=]|=2C|=3D)+))?,")  # RFC 5801 section 4
FORGETTING: Final = ("RSET", "EHLO", "HELO", "QUIT")  # commands that give up an envelope
END_OF_MAIL: Final = b"\r\n.\r\n"


class SmtpError(ValueError):
    """The refusal of a command: the code of a reply (RFC 5321 section 4.2), an enhanced one (RFC 3463), a sentence."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")


@dataclass(frozen=True, kw_only=True)
class Command:
    """The verb is in capitals, and what follows it has no spaces around."""

    verb: str
    argument: str = ""


@dataclass(frozen=True, kw_only=True)
class Path:
    """The address "" is that of a bounce."""

    address: str
    parameters: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A mail as it was handed over."""

    sender: str  # the address in MAIL FROM; "" of a bounce
    recipients: tuple[str, ...]  # the addresses in RCPT TO, in order
    content: bytes  # the mail, with CRLF, dots as its author wrote them
    user: str | None = None  # the name that the client had logged in with, or None
    kind: ClassVar = "mails"

    @property
    def size(self) -> int:
        return len(self.content) + size_of(self.recipients)

    @property
    def fields(self) -> dict[str, Any]:
        """What an entry of the ledger has of it."""
        return {"sender": self.sender, "recipients": self.recipients, "content": self.content}


def size_of(recipients: Sequence[str]) -> int:
    """As an `Account` counts memory."""
    return sum(map(len, recipients)) + OBJECT_BYTES * len(recipients)


@dataclass(frozen=True, kw_only=True)
class SmtpStep:
    """What follows from a command.

    Attributes:
        reply: The lines to send.
        mail: The mail to take before the reply is sent, or to record as refused.
        refusal: Why the mail is refused, and has no content, as a sentence without its full stop; "" of one to take.
        then: What to do after the reply: "starttls" makes the connection TLS, "quit" ends it.
    """

    reply: bytes
    mail: Envelope | None = None
    refusal: str = ""
    then: Literal["", "starttls", "quit"] = ""


NO_ROOM: Final = b"452 4.3.1 No room for more mails in this test\r\n"
"""The reply to a mail that would be kept beside too many."""

NO_ROUTE: Final = b"554 5.7.1 The route for mails has answered as often as it may\r\n"
"""The reply to a mail for which no turn is left."""

CLOSING: Final = b"421 4.3.2 The next mail is for another connection\r\n"
"""The reply to a mail whose turn has another answer than this server. It ends the connection."""


class TooLargeError(SmtpError):
    """A client announces a mail that is larger than `most`; `sender` is the address in MAIL FROM."""

    def __init__(self, sender: str, most: int) -> None:
        super().__init__(552, too_large(most))
        self.sender = sender


def too_large(most: int) -> str:
    return f"5.3.4 A mail has at most {most} bytes"


def parse_command(line: bytes) -> Command:
    """The line is without its end. One that is no command raises SmtpError."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise SmtpError(500, f"5.5.2 No UTF-8: {quoted(line)}") from None
    found = COMMAND.fullmatch(text.rstrip(" \t"))
    if found is None:
        raise SmtpError(500, f"5.5.2 No command: {quoted(line)}")
    return Command(verb=found[1].upper(), argument=found[2] or "")


def parse_path(argument: str, keyword: str) -> Path:
    """`argument` follows the verb; `keyword` is "FROM" or "TO". SmtpError: no path, or a malformed parameter."""
    name, colon, rest = argument.partition(":")
    found = PATH.fullmatch(rest.strip()) if colon and name.strip().upper() == keyword else None
    if found is None:
        raise SmtpError(501, f"5.5.4 Expected {keyword}:<address>, not {quoted(argument.encode())}")
    parameters = [word.partition("=") for word in (found[3] or "").split()]
    return Path(
        address=found[1] if found[2] is None else found[2],
        parameters=tuple((key.upper(), value if sign else None) for key, sign, value in parameters),
    )


def parse_base64(text: str) -> bytes:
    """The text for AUTH; "=" is the empty one (RFC 4954 section 4). By "*" a client gives up: an SmtpError."""
    if text == "*":
        raise SmtpError(501, "5.7.0 Authentication cancelled")
    try:
        return b"" if text == "=" else b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: of a text that is not ASCII
        raise SmtpError(501, "5.5.2 No base64") from None


def parse_plain(text: str) -> str:
    """The user of AUTH PLAIN: authorisation identity, user, password, with NUL between them (RFC 4616)."""
    parts = parse_base64(text).split(b"\0")
    if len(parts) != 3 or not parts[1]:
        raise SmtpError(501, "5.5.2 Expected [identity] NUL user NUL password, in base64")
    return parts[1].decode("utf-8", "replace")


def parse_xoauth2(text: str) -> str:
    """The user of AUTH XOAUTH2: `user=ann@x.test`, `auth=Bearer token` and an empty one, with ^A after each.

    Google's and Microsoft's servers have it. Any token will do.
    """
    fields = parse_base64(text).decode("utf-8", "replace").split("\1")
    user = fields[0].removeprefix("user=")
    if fields[0] == user or not user or not has_bearer(fields[1:]):
        raise SmtpError(501, "5.5.2 Expected user=... ^A auth=Bearer ... ^A ^A, in base64")
    return user


def parse_oauthbearer(text: str) -> str:
    """The user of AUTH OAUTHBEARER (RFC 7628); "" where only the token would tell. Any token will do."""
    header, *fields = parse_base64(text).decode("utf-8", "replace").split("\1")
    found = GS2_HEADER.fullmatch(header)
    if found is None or not has_bearer(fields):
        raise SmtpError(501, "5.5.2 Expected n,a=user, ^A auth=Bearer ... ^A ^A, in base64")
    return (found[1] or "").replace("=2C", ",").replace("=3D", "=")


def has_bearer(fields: Sequence[str]) -> bool:
    """Whether a field has a token, and the fields are whole: there is an empty one at the end, and its end."""
    has_token = any(re.fullmatch(r"auth=bearer +\S.*", each, re.IGNORECASE) for each in fields)
    return has_token and [*fields[-2:]] == ["", ""]


def quoted(data: bytes) -> str:
    """The beginning of what a client sent, for a reply: printable ASCII."""
    shown = data[:SHOWN_BYTES].decode("ascii", "replace")
    text = "".join(char if " " <= char <= "~" else "?" for char in shown)
    return f"'{text}{'...' if len(data) > SHOWN_BYTES else ''}'"


def reply(code: int, *lines: str) -> bytes:
    """A reply of one or several lines (RFC 5321 section 4.2.1)."""
    marks = ["-"] * (len(lines) - 1) + [" "]
    return b"".join(
        f"{code}{mark}{line}\r\n".encode() for mark, line in zip(marks, lines, strict=True)
    )


class SmtpSession:
    """The server's side of one connection. `name` is the host that it says it is; mails have at most `max_bytes`.

    Attributes:
        has_said_more: Whether the client has sent what no mail has: an envelope that it gave up, an address to verify,
            or a command that was refused.
    """

    def __init__(
        self, name: str, *, is_secure: bool = False, max_bytes: int = MAX_MAIL_BYTES
    ) -> None:
        self.name, self.is_secure, self.max_bytes = name, is_secure, max_bytes
        self._unread = bytearray()
        self._is_skipping = False  # the rest of a line that is too long
        self.has_said_more = False
        self._begin()

    def _begin(self) -> None:
        """At the begin, and again after STARTTLS (RFC 3207 section 4.2), the server knows nothing of the client."""
        self._is_greeted = False
        self._user: str | None = None
        self._asks = ""  # the mechanism whose next line is awaited, or "PASSWORD"
        self._login = ""
        self._forget_mail()

    def _forget_mail(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._takes_utf8 = False
        self._is_data, self._is_too_large = False, False
        self._searched, self._dropped = 0, 0

    @property
    def greeting(self) -> bytes:
        return reply(220, f"{self.name} ESMTP pytest-egress")

    @property
    def size(self) -> int:
        """The mail that has not come whole, as an `Account` counts memory."""
        return len(self._unread) + size_of(self._recipients)

    def feed(self, data: bytes) -> None:
        self._unread += data

    def start_tls(self) -> None:
        """What the client sent in the clear after STARTTLS is dropped (CVE-2011-0411)."""
        self.is_secure = True
        self._unread.clear()
        self._begin()

    def step(self) -> SmtpStep | None:
        """None where more bytes are needed."""
        if self._is_data:
            return self._read_mail()
        try:
            if (line := self._line()) is None:
                return None
            if self._asks:
                return self._continue_login(line.decode("utf-8", "replace").strip())
            return self._obey(parse_command(line))
        except TooLargeError as error:
            return self._refusal(f"{error}\r\n".encode(), error.sender)
        except SmtpError as error:
            self._asks, self.has_said_more = "", True
            return SmtpStep(reply=f"{error}\r\n".encode())

    @property
    def unfinished(self) -> str:
        """A sentence about the mail whose end has not come; "" where none has begun."""
        if not self._is_data:
            return ""
        size = self._dropped + len(self._unread) - len(b"\r\n")
        return f"a mail from {quoted((self._sender or '').encode())} broke off within DATA, after {size} bytes"

    @property
    def has_envelope(self) -> bool:
        """Whether a mail has a sender, and has not come."""
        return self._sender is not None

    def _refusal(self, reply: bytes, sender: str) -> SmtpStep:
        """The mail is too large."""
        mail = Envelope(
            sender=sender, recipients=tuple(self._recipients), content=b"", user=self._user
        )
        why = f"it was refused with 552, since it has over {self.max_bytes} bytes"
        return SmtpStep(reply=reply, mail=mail, refusal=why)

    def _line(self) -> bytes | None:
        """The next line, without its end; None where it is not whole yet."""
        end = self._unread.find(b"\n")
        if end < 0:
            self._is_skipping = self._is_skipping or len(self._unread) >= MAX_LINE_BYTES
            if self._is_skipping:
                self._unread.clear()
            return None
        line = bytes(self._unread[:end]).removesuffix(b"\r")
        del self._unread[: end + 1]
        if self._is_skipping or end >= MAX_LINE_BYTES:
            self._is_skipping = False
            raise SmtpError(500, f"5.5.2 A line has at most {MAX_LINE_BYTES} bytes")
        return line

    # Commands.

    def _obey(self, command: Command) -> SmtpStep:
        argument = command.argument
        if command.verb == "VRFY" or (command.verb in FORGETTING and self._sender is not None):
            self.has_said_more = True
        match command.verb:
            case "EHLO" | "HELO":
                return self._greet(command)
            case "STARTTLS":
                return self._starttls(argument)
            case "AUTH":
                return self._authenticate(argument)
            case "MAIL":
                return self._mail(argument)
            case "RCPT":
                return self._recipient(argument)
            case "DATA":
                return self._data(argument)
            case "RSET":
                self._forget_mail()
                return ok("2.0.0 Forgotten")
            case "NOOP":
                return ok("2.0.0 Ok")
            case "HELP":
                return SmtpStep(reply=reply(214, f"2.0.0 {COMMANDS}"))
            case "VRFY":
                return SmtpStep(reply=reply(252, "2.1.5 Every address is taken"))
            case "EXPN":
                raise SmtpError(502, "5.5.1 There are no lists to expand")
            case "QUIT":
                return SmtpStep(reply=reply(221, "2.0.0 Bye"), then="quit")
        raise SmtpError(500, f"5.5.1 {command.verb} is not known; {COMMANDS}")

    def _greet(self, command: Command) -> SmtpStep:
        if not command.argument:
            raise SmtpError(501, f"5.5.4 Expected {command.verb} and the client's name")
        self._forget_mail()
        self._is_greeted = True
        offers = [] if self.is_secure else ["STARTTLS"]
        extensions = [*EXTENSIONS, f"SIZE {self.max_bytes}", *offers]
        return SmtpStep(
            reply=reply(250, self.name, *(extensions if command.verb == "EHLO" else ()))
        )

    def _starttls(self, argument: str) -> SmtpStep:
        if argument:
            raise SmtpError(501, "5.5.4 STARTTLS takes nothing")
        if self.is_secure:
            raise SmtpError(503, "5.5.1 This is TLS already")
        return SmtpStep(reply=reply(220, "2.0.0 Ready for TLS"), then="starttls")

    def _mail(self, argument: str) -> SmtpStep:
        self._check_greeted()
        if self._sender is not None:
            raise SmtpError(503, "5.5.1 A mail is under way: DATA ends it, RSET forgets it")
        path = parse_path(argument, "FROM")
        takes_utf8 = self._check_parameters(path)
        check_charset(path.address, takes_utf8)
        self._sender, self._takes_utf8 = path.address, takes_utf8
        return ok("2.1.0 Sender ok")

    def _check_parameters(self, path: Path) -> bool:
        """Return whether addresses may be UTF-8 (RFC 6531)."""
        for name, value in path.parameters:
            match name, (value or "").upper():
                case "SIZE", size if size.isascii() and size.isdigit():
                    if len(size) > len(str(self.max_bytes)) or int(size) > self.max_bytes:
                        raise TooLargeError(path.address, self.max_bytes)
                case "BODY", "7BIT" | "8BITMIME":
                    pass
                case "SMTPUTF8", "" if value is None:
                    pass
                case "AUTH", some if some:  # the mail's author, by another server (RFC 4954)
                    pass
                case "SIZE" | "BODY" | "SMTPUTF8" | "AUTH", _:
                    raise SmtpError(501, f"5.5.4 {name} with {quoted((value or '').encode())}")
                case _:
                    raise SmtpError(555, f"5.5.4 MAIL takes no {quoted(name.encode())}")
        return "SMTPUTF8" in dict(path.parameters)

    def _recipient(self, argument: str) -> SmtpStep:
        if self._sender is None:
            raise SmtpError(503, "5.5.1 MAIL comes first")
        path = parse_path(argument, "TO")
        if path.parameters:
            raise SmtpError(555, f"5.5.4 RCPT takes no {quoted(path.parameters[0][0].encode())}")
        if not path.address:
            raise SmtpError(501, "5.1.3 A recipient has an address")
        check_charset(path.address, self._takes_utf8)
        if len(self._recipients) >= MAX_RECIPIENTS:
            raise SmtpError(452, f"4.5.3 A mail has at most {MAX_RECIPIENTS} recipients")
        self._recipients.append(path.address)
        return ok("2.1.5 Recipient ok")

    def _data(self, argument: str) -> SmtpStep:
        if argument:
            raise SmtpError(501, "5.5.4 DATA takes nothing")
        if not self._recipients:
            raise SmtpError(503, "5.5.1 MAIL and RCPT come first")
        self._is_data = True
        self._unread[:0] = b"\r\n"  # the mail may be empty, and its end the first line
        return SmtpStep(reply=reply(354, "End with a line that is a dot"))

    def _check_greeted(self) -> None:
        if not self._is_greeted:
            raise SmtpError(503, "5.5.1 EHLO comes first")

    # A mail.

    def _read_mail(self) -> SmtpStep | None:
        """Read to the line that is a dot. Only CRLF ends a line here, so that no mail can hide another one."""
        end = self._unread.find(END_OF_MAIL, self._searched)
        if end < 0:
            self._searched = max(len(self._unread) - len(END_OF_MAIL) + 1, 0)
            if len(self._unread) > self.max_bytes + len(END_OF_MAIL):
                return self._drop()
            return None
        lines = bytes(self._unread[: end + 2])
        del self._unread[: end + len(END_OF_MAIL)]
        content = lines.replace(b"\r\n.", b"\r\n")[2:]
        sender, recipients = self._sender or "", tuple(self._recipients)
        refused = reply(552, too_large(self.max_bytes))
        if self._is_too_large:  # which has been told
            step = SmtpStep(reply=refused)
        elif len(content) > self.max_bytes:
            step = self._refusal(refused, sender)
        else:
            mail = Envelope(sender=sender, recipients=recipients, content=content, user=self._user)
            step = SmtpStep(reply=reply(250, "2.0.0 Taken"), mail=mail)
        self._forget_mail()
        return step

    def _drop(self) -> SmtpStep | None:
        """Drop what has come of a mail that is too large; the first time, tell that it is."""
        is_new, self._is_too_large = not self._is_too_large, True
        del self._unread[: self._searched]
        self._dropped += self._searched
        self._searched = 0
        return self._refusal(b"", self._sender or "") if is_new else None

    # AUTH.

    def _authenticate(self, argument: str) -> SmtpStep:
        self._check_greeted()
        if self._user is not None:
            raise SmtpError(503, "5.5.1 The client is logged in")
        if self._sender is not None:
            raise SmtpError(503, "5.5.1 A mail is under way")
        mechanism, _, initial = argument.partition(" ")
        self._asks = mechanism.upper()
        if self._asks not in MECHANISMS:
            shown = quoted(mechanism.encode())
            raise SmtpError(504, f"5.5.4 AUTH takes {', '.join(MECHANISMS)}, not {shown}")
        if given := initial.strip():
            return self._continue_login(given)
        return SmtpStep(reply=ASK_FOR_USER if self._asks == "LOGIN" else b"334 \r\n")

    def _continue_login(self, text: str) -> SmtpStep:
        if self._asks in LOGINS:
            return self._logged_in(LOGINS[self._asks](text))
        said = parse_base64(text).decode("utf-8", "replace")
        if self._asks == "PASSWORD":
            return self._logged_in(self._login)
        self._asks, self._login = "PASSWORD", said
        return SmtpStep(reply=ASK_FOR_PASSWORD)

    def _logged_in(self, user: str) -> SmtpStep:
        self._asks, self._user = "", user
        return SmtpStep(reply=reply(235, "2.7.0 Logged in"))


LOGINS: Final[Mapping[str, Callable[[str], str]]] = {
    "PLAIN": parse_plain,
    "XOAUTH2": parse_xoauth2,
    "OAUTHBEARER": parse_oauthbearer,
}
"""What gives the user of a login that is one line."""

ASK_FOR_USER: Final = b"334 VXNlcm5hbWU6\r\n"  # "Username:"
ASK_FOR_PASSWORD: Final = b"334 UGFzc3dvcmQ6\r\n"

MECHANISMS: Final = ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER")
COMMANDS: Final = "there are EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP VRFY HELP QUIT"
EXTENSIONS: Final = (
    "8BITMIME",
    f"AUTH {' '.join(MECHANISMS)}",
    "ENHANCEDSTATUSCODES",
    "PIPELINING",
    "SMTPUTF8",
)


def ok(text: str) -> SmtpStep:
    return SmtpStep(reply=reply(250, text))


def check_charset(address: str, takes_utf8: bool) -> None:
    """An address beyond ASCII needs a mail announced as such (RFC 6531 section 3.5)."""
    if not takes_utf8 and not address.isascii():
        raise SmtpError(553, "5.6.7 An address beyond ASCII needs SMTPUTF8 in MAIL")
