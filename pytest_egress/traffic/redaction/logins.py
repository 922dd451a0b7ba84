r"""The logins of protocols that are no HTTP, in the bytes that are shown of a connection.

They are read as latin-1, one character for each byte. What is masked is what follows the command, to the end of its
line or of the bytes: these are a beginning, and may end anywhere.
"""

from __future__ import annotations

import re
from typing import Final

from pytest_egress.traffic.redaction.shapes import Mask

BULK: Final = r"\$\d{1,9}\r\n[^\r\n]*"
RESP: Final = re.compile(rf"(?i)(\r\n(?:AUTH|requirepass|masterauth)\r\n)({BULK}(?:\r\n{BULK})?)")
"""Arguments after AUTH, that of HELLO too, in Redis's protocol: `$4 AUTH $7 default $8 hunter22`."""

BULK_VALUE: Final = re.compile(r"(\$\d{1,9}\r\n)([^\r\n]+)")
IN_LINES: Final = re.compile(
    r"(?im)^((?:HELLO [0-9] )?AUTH (?:[A-Z0-9-]{3,20} (?=[^\r\n]))?)([^\r\n]+)"  # Redis in lines, SMTP, memcached
    r"|^(PASS )([^\r\n]+)"  # FTP (RFC 959), POP3 (RFC 1939), IRC
    r"|^([\w.]{1,32} LOGIN (?:\"[^\"\r\n]*\"|[^\s]+) )([^\r\n]+)"  # IMAP (RFC 9051)
    r"|^([\w.]{1,32} AUTHENTICATE [\w-]{1,20} )([^\r\n]+)"
)
MECHANISM: Final = re.compile(
    r"(?i)(PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5|SCRAM-SHA-[0-9]+(-PLUS)?)\Z"
)
SASL: Final = re.compile(r"(PLAIN[^\r\n]{0,12}?\x00[!-~]{0,255}\x00)([!-~]+)", re.DOTALL)
"""The mechanism PLAIN (RFC 4616) in bytes, as AMQP and memcached have it: a name and a password after NULs."""

ASKS: Final = re.compile(r"(?m:^)(?:334[ -][^\r\n]*|\+(?: [^\r\n]*)?)\r?\n?\Z")
"""The end of a server's answer that asks for the next part of a login: SMTP's 334 (RFC 4954), and "+" of others."""

FIRST_LINE: Final = re.compile(r"[^\r\n]+")


def without_logins(text: str, mask: Mask, *, is_asked: bool = False) -> str:
    """The bytes of a client without its passwords.

    Args:
        is_asked: Whether the server has just asked for a part of a login.
    """
    if is_asked:
        text = FIRST_LINE.sub(lambda found: mask(found[0]), text, count=1)
    text = RESP.sub(lambda found: found[1] + bulks_masked(found[2], mask), text)
    text = IN_LINES.sub(lambda found: line_masked(found, mask), text)
    text = SASL.sub(lambda found: found[1] + mask(found[2]), text)
    if is_password_of_postgres(text):
        text = text[:5] + mask(text[5:].rstrip("\0"))
    return text


def asks_for_login(answer: str) -> bool:
    return ASKS.search(answer) is not None


def bulks_masked(arguments: str, mask: Mask) -> str:
    return BULK_VALUE.sub(lambda found: found[1] + mask(found[2]), arguments)


def line_masked(found: re.Match[str], mask: Mask) -> str:
    command, said = (group for group in found.groups() if group is not None)
    return command + (said if MECHANISM.match(said) else mask(said))


def is_password_of_postgres(text: str) -> bool:
    """Whether these bytes are one message of PostgreSQL with a password, or with a part of SASL."""
    return (
        text[:3] == "p\0\0" and len(text) > 5 and ord(text[3]) << 8 | ord(text[4]) == len(text) - 1
    )
