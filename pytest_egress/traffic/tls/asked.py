"""Whether what a client has sent before TLS in mid-connection did no more than ask for it.

What is not known to be of that kind counts as data: a login, a mail, or a query that went out in the clear.
"""

from __future__ import annotations

import re
from typing import Final

MAX_ASKED_BYTES: Final = 1024  # EHLO with a name, twice, and a stream of XMPP are shorter

REQUESTS: Final = re.compile(
    rb"\0\0\0\x08\x04\xd2\x16[\x2f\x30](?:\0\0\0\x08\x04\xd2\x16\x2f)?"  # PostgreSQL, for GSS before TLS too
    rb"|\x20\0\0\x01.{9}\0{19}.{4}"  # MySQL: SSLRequest, which has no user yet
    rb"|\x30(?:.|\x84.{4})\x02(?:\x01.|\x02.{2}|\x03.{3}|\x04.{4})\x77(?:\x18|\x84\0{3}\x18)"
    rb"\x80\x161\.3\.6\.1\.4\.1\.1466\.20037"  # LDAP (RFC 4511 section 4.14)
    rb"|AMQP\x02\x01\0\0"
    rb"|\s*(?:<\?xml [^<>]*\?>)?\s*<stream:stream [^<>]*>\s*<starttls [^<>]*(?:/>|>\s*</starttls>)\s*",  # XMPP
    re.DOTALL,
)
LINE: Final = re.compile(
    rb"(?i)(?:EHLO|HELO|LHLO) [\w.:\[\]-]{1,255}"  # SMTP (RFC 3207)
    rb"|(?:[a-z0-9.]{1,32} )?(?:STARTTLS|CAPABILITY|NOOP)"  # IMAP, after a tag, and ManageSieve
    rb"|CAPA|STLS|CAPABILITIES|MODE READER"  # POP3 and NNTP
    rb"|AUTH (?:TLS|TLS-C|SSL)|FEAT|SYST"  # FTP (RFC 4217)
    rb"|CAP LS(?: [0-9]{1,4})?|HELP|RSET"  # IRC, SMTP
)


def asks_alone(data: bytes) -> bool:
    """Whether these bytes of a client only ask for TLS, in a protocol that is known here; empty ones do."""
    if len(data) > MAX_ASKED_BYTES:
        return False
    if REQUESTS.fullmatch(data) is not None:
        return True
    return all(
        LINE.fullmatch(line.strip()) is not None for line in data.split(b"\n") if line.strip()
    )
