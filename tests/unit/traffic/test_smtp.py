"""SMTP as values: commands, and a session that answers them, whatever its client sends and in whatever pieces."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.smtp import (
    MAX_LINE_BYTES,
    MAX_RECIPIENTS,
    Command,
    Envelope,
    SmtpError,
    SmtpSession,
    SmtpStep,
    parse_command,
    parse_path,
)

REPLY = re.compile(rb"(?:\d{3}-[^\r\n]*\r\n)*\d{3} [^\r\n]*\r\n")
MAIL = b"EHLO client.test\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\n"


def steps(session: SmtpSession, data: bytes) -> list[SmtpStep]:
    """All steps that follow from some bytes."""
    session.feed(data)
    found = []
    while (step := session.step()) is not None:
        found.append(step)
        if step.then == "starttls":
            session.start_tls()
    return found


def replies(data: bytes, session: SmtpSession | None = None) -> list[str]:
    """The replies to some commands, each its first line's code and enhanced code."""
    found = steps(session or SmtpSession("mail.test"), data)
    return [" ".join(step.reply.decode().split("\r\n")[-2].split()[:2]) for step in found]


def mails(data: bytes, session: SmtpSession | None = None) -> list[Envelope]:
    return [
        step.mail
        for step in steps(session or SmtpSession("mail.test"), data)
        if step.mail is not None
    ]


# A mail.


def test_a_mail_is_its_envelope_and_its_content() -> None:
    (mail,) = mails(MAIL + b"RCPT TO:<c@x.test>\r\nDATA\r\nSubject: hi\r\n\r\nhello\r\n.\r\n")
    assert mail == Envelope(
        sender="a@x.test",
        recipients=("b@x.test", "c@x.test"),
        content=b"Subject: hi\r\n\r\nhello\r\n",
        user=None,
    )


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b".\r\n", b""),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..two\r\n...three\r\none.\r\n.\r\n", b".two\r\n..three\r\none.\r\n"),
        (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n"),
        (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\nb\r\n"),
        (b"\r\n.\r\n", b"\r\n"),
    ],
)
def test_dots_are_as_their_author_wrote_them_and_only_crlf_ends_a_mail(
    sent: bytes, content: bytes
) -> None:
    (mail,) = mails(MAIL + b"DATA\r\n" + sent)
    assert mail.content == content


def test_two_mails_come_on_one_connection() -> None:
    again = b"MAIL FROM:<>\r\nRCPT TO:<d@x.test>\r\nDATA\r\nbounce\r\n.\r\n"
    first, second = mails(MAIL + b"DATA\r\nhello\r\n.\r\n" + again)
    assert (first.sender, first.recipients) == ("a@x.test", ("b@x.test",))
    assert (second.sender, second.recipients) == ("", ("d@x.test",))


def test_a_mail_that_is_too_large_is_refused_at_its_end_and_is_not_kept() -> None:
    session = SmtpSession("mail.test", max_bytes=100)
    assert replies(MAIL + b"DATA\r\n", session)[-1] == "354 End"
    told = [step for _ in range(1000) for step in steps(session, b"x" * 98 + b"\r\n")]
    assert len(session._unread) < 300
    (refused,) = told  # as soon as it is known
    assert refused.reply == b""
    assert refused.mail == Envelope(sender="a@x.test", recipients=("b@x.test",), content=b"")
    assert refused.refusal == "it was refused with 552, since it has over 100 bytes"
    assert "broke off within DATA, after 100000 bytes" in session.unfinished
    (step,) = steps(session, b".\r\n")
    assert (step.mail, step.reply[:9]) == (None, b"552 5.3.4")
    assert session.unfinished == ""
    again = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nshort\r\n.\r\n"
    (mail,) = mails(again, session)
    assert mail.content == b"short\r\n"


def test_a_mail_may_be_as_large_as_size_says() -> None:
    session = SmtpSession("mail.test", max_bytes=10)
    (mail,) = mails(MAIL + b"DATA\r\n" + b"12345678\r\n.\r\n", session)
    assert len(mail.content) == 10
    again = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n123456789\r\n.\r\n"
    step = steps(session, again)[-1]
    assert step.reply.startswith(b"552 5.3.4 ")
    assert (step.mail and step.mail.content, bool(step.refusal)) == (b"", True)


@pytest.mark.parametrize("size", [b"SIZE=11", b"SIZE=99999999999999999999"])
def test_a_mail_that_is_announced_as_too_large_is_refused_at_once(size: bytes) -> None:
    session = SmtpSession("mail.test", max_bytes=10)
    (_, step) = steps(session, b"EHLO c\r\nMAIL FROM:<a@x.test> " + size + b"\r\n")
    assert step.reply == b"552 5.3.4 A mail has at most 10 bytes\r\n"
    assert step.mail == Envelope(sender="a@x.test", recipients=(), content=b"")
    assert step.refusal == "it was refused with 552, since it has over 10 bytes"
    assert replies(b"MAIL FROM:<a@x.test>\r\n", session) == ["250 2.1.0"]


def test_a_mail_whose_end_has_not_come_is_told_with_its_size() -> None:
    session = SmtpSession("mail.test")
    assert session.unfinished == ""
    steps(session, MAIL)
    assert session.unfinished == ""
    steps(session, b"DATA\r\n")
    steps(session, b"Subject: half\r\n")
    assert session.unfinished == "a mail from 'a@x.test' broke off within DATA, after 15 bytes"


# Replies.


def test_ehlo_says_what_there_is_and_helo_does_not() -> None:
    (step,) = steps(SmtpSession("mail.test", max_bytes=1000), b"EHLO client.test\r\n")
    assert step.reply.decode().split("\r\n") == [
        "250-mail.test",
        "250-8BITMIME",
        "250-AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER",
        "250-ENHANCEDSTATUSCODES",
        "250-PIPELINING",
        "250-SMTPUTF8",
        "250-SIZE 1000",
        "250 STARTTLS",
        "",
    ]
    (step,) = steps(SmtpSession("mail.test", is_secure=True), b"EHLO client.test\r\n")
    assert b"STARTTLS" not in step.reply
    (step,) = steps(SmtpSession("mail.test"), b"helo client.test\n")
    assert step.reply == b"250 mail.test\r\n"


@pytest.mark.parametrize(
    ("commands", "last"),
    [
        (b"MAIL FROM:<a@x.test>\r\n", "503 5.5.1"),
        (b"EHLO c\r\nRCPT TO:<b@x.test>\r\n", "503 5.5.1"),
        (b"EHLO c\r\nDATA\r\n", "503 5.5.1"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test>\r\nDATA\r\n", "503 5.5.1"),
        (MAIL + b"MAIL FROM:<a@x.test>\r\n", "503 5.5.1"),
        (MAIL + b"RSET\r\nRCPT TO:<b@x.test>\r\n", "503 5.5.1"),
        (MAIL + b"EHLO c\r\nRCPT TO:<b@x.test>\r\n", "503 5.5.1"),
        (MAIL + b"DATA now\r\n", "501 5.5.4"),
        (MAIL + b"AUTH PLAIN AHUAcA==\r\n", "503 5.5.1"),
        (b"EHLO\r\n", "501 5.5.4"),
        (b"EHLO c\r\nMAIL\r\n", "501 5.5.4"),
        (b"EHLO c\r\nMAIL TO:<a@x.test>\r\n", "501 5.5.4"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test\r\n", "501 5.5.4"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test> SIZE=99999999999999999999\r\n", "552 5.3.4"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test> SIZE=67108865\r\n", "552 5.3.4"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test> SIZE=67108864\r\n", "250 2.1.0"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test> SIZE=-1\r\n", "501 5.5.4"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test> SIZE=\xd9\xa1\r\n", "501 5.5.4"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test> BODY=8bitmime SMTPUTF8 AUTH=<>\r\n", "250 2.1.0"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test> BODY=BINARYMIME\r\n", "501 5.5.4"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test> SMTPUTF8=1\r\n", "501 5.5.4"),
        (b"EHLO c\r\nMAIL FROM:<a@x.test> RET=HDRS\r\n", "555 5.5.4"),
        (b"EHLO c\r\nMAIL FROM:<\xc3\xbc@x.test>\r\n", "553 5.6.7"),
        (b"EHLO c\r\nMAIL FROM:<\xc3\xbc@x.test> SMTPUTF8\r\n", "250 2.1.0"),
        (MAIL + b"RCPT TO:<\xc3\xbc@x.test>\r\n", "553 5.6.7"),
        (MAIL + b"RCPT TO:<>\r\n", "501 5.1.3"),
        (MAIL + b"RCPT TO:<c@x.test> NOTIFY=NEVER\r\n", "555 5.5.4"),
        (b"VRFY someone\r\n", "252 2.1.5"),
        (b"HELP\r\n", "214 2.0.0"),
        (b"noop whatever\r\n", "250 2.0.0"),
        (b"QUIT\r\n", "221 2.0.0"),
        (b"EXPN list\r\n", "502 5.5.1"),
        (b"GET / HTTP/1.1\r\n", "500 5.5.1"),
        (b"\x16\x03\x01\r\n", "500 5.5.2"),
        (b"\xff\r\n", "500 5.5.2"),
        (b"\r\n", "500 5.5.2"),
        (b"STARTTLS now\r\n", "501 5.5.4"),
        (b"EHLO c\r\nSTARTTLS\r\n", "220 2.0.0"),
        (b"AUTH PLAIN AHUAcA==\r\n", "503 5.5.1"),
        (b"EHLO c\r\nAUTH CRAM-MD5\r\n", "504 5.5.4"),
        (b"EHLO c\r\nAUTH PLAIN ?\r\n", "501 5.5.2"),
        (b"EHLO c\r\nAUTH PLAIN AHU=\r\n", "501 5.5.2"),
        (b"EHLO c\r\nAUTH PLAIN\r\n*\r\n", "501 5.7.0"),
        (b"EHLO c\r\nAUTH LOGIN\r\ndQ==\r\n*\r\n", "501 5.7.0"),
        (b"EHLO c\r\nAUTH PLAIN AHUAcA==\r\nAUTH LOGIN\r\n", "503 5.5.1"),
    ],
)
def test_each_command_has_its_reply(commands: bytes, last: str) -> None:
    assert replies(commands)[-1] == last


def test_recipients_have_a_limit() -> None:
    more = b"".join(b"RCPT TO:<u%d@x.test>\r\n" % number for number in range(MAX_RECIPIENTS))
    found = replies(MAIL + more + b"DATA\r\n")
    assert (found[-3], found[-2], found[-1]) == ("250 2.1.5", "452 4.5.3", "354 End")


def test_a_line_that_is_too_long_is_refused_as_one_command() -> None:
    session = SmtpSession("mail.test")
    for _ in range(4):
        assert replies(b"x" * MAX_LINE_BYTES, session) == []
    assert replies(b"QUIT\r\nNOOP\r\n", session) == ["500 5.5.2", "250 2.0.0"]


def test_white_space_within_a_command_costs_no_more_than_any_other() -> None:
    # Each of these lines once took a second or more.
    line = b"NOOP x" + b" " * (MAX_LINE_BYTES - 10) + b"y\r\n"
    assert replies(line * 200) == ["250 2.0.0"] * 200
    assert parse_command(b"NOOP \t x \t ") == Command(verb="NOOP", argument="x")
    assert parse_command(b"NOOP \t ") == Command(verb="NOOP")


def test_what_a_reply_quotes_is_short_and_printable() -> None:
    (step,) = steps(SmtpSession("mail.test"), b"\x1b[31m" + b"x" * 200 + b"\r\n")
    assert step.reply == b"500 5.5.2 No command: '?[31m%b...'\r\n" % (b"x" * 55)


# Addresses.


@pytest.mark.parametrize(
    ("argument", "address", "parameters"),
    [
        ("FROM:<a@x.test>", "a@x.test", ()),
        ("from: <a@x.test> SIZE=5", "a@x.test", (("SIZE", "5"),)),
        ("FROM:<>", "", ()),
        ("FROM:a@x.test", "a@x.test", ()),
        ('FROM:<"a >b\\""@x.test>', '"a >b\\""@x.test', ()),
        ("FROM:<@one.test,@two.test:a@x.test>", "a@x.test", ()),
        ("FROM:<postmaster>", "postmaster", ()),
        ("FROM:<a@[IPv6:2001:db8::1]> SMTPUTF8", "a@[IPv6:2001:db8::1]", (("SMTPUTF8", None),)),
    ],
)
def test_a_path_is_an_address_and_parameters(
    argument: str, address: str, parameters: tuple[tuple[str, str | None], ...]
) -> None:
    path = parse_path(argument, "FROM")
    assert (path.address, path.parameters) == (address, parameters)


@pytest.mark.parametrize("argument", ["", "FROM", "FROM:", "FROM:<a b>", "FROM:<a>b", "TO:<a>"])
def test_what_is_no_path_is_refused_with_what_was_expected(argument: str) -> None:
    with pytest.raises(SmtpError, match=r"501 5\.5\.4 Expected FROM:<address>, not "):
        parse_path(argument, "FROM")


# Logins and TLS.


def plain(text: str) -> bytes:
    return base64.b64encode(text.encode())


@pytest.mark.parametrize(
    "login",
    [
        b"AUTH PLAIN " + plain("\0ann\0secret"),
        b"auth plain\r\n" + plain("admin\0ann\0secret"),
        b"AUTH LOGIN\r\n" + plain("ann") + b"\r\n" + plain("secret"),
        b"AUTH LOGIN " + plain("ann") + b"\r\n" + plain("secret"),
        b"AUTH LOGIN " + plain("ann") + b"\r\n=",
    ],
)
def test_a_mail_has_the_user_that_logged_in(login: bytes) -> None:
    session = SmtpSession("mail.test")
    assert replies(b"EHLO client.test\r\n" + login + b"\r\n", session)[-1] == "235 2.7.0"
    (mail,) = mails(MAIL + b"DATA\r\nhi\r\n.\r\n", session)
    assert mail.user == "ann"
    assert "secret" not in repr(vars(session))


def test_after_starttls_the_session_knows_nothing_and_what_was_injected_is_dropped() -> None:
    session = SmtpSession("mail.test")
    login = b"EHLO c\r\nAUTH PLAIN " + plain("\0ann\0secret") + b"\r\n"
    found = replies(login + b"STARTTLS\r\nMAIL FROM:<eve@x.test>\r\n", session)
    assert found[-1] == "220 2.0.0"  # the MAIL behind it has no reply
    assert replies(b"MAIL FROM:<a@x.test>\r\n", session) == ["503 5.5.1"]
    assert replies(b"STARTTLS\r\n", session) == ["503 5.5.1"]
    (mail,) = mails(MAIL + b"DATA\r\nhi\r\n.\r\n", session)
    assert (mail.user, mail.sender) == (None, "a@x.test")


# Any bytes.

PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            *(b"EHLO c\r\n", b"MAIL FROM:<a@x.test>\r\n", b"RCPT TO:<b@x.test>\r\n"),
            *(b"DATA\r\n", b"\r\n.\r\n", b"..", b"STARTTLS\r\n", b"AUTH LOGIN\r\n", b"QUIT\r\n"),
        ]
    ),
)


@given(st.lists(PIECES, max_size=30))
def test_any_bytes_have_replies_that_are_replies_and_never_raise(pieces: list[bytes]) -> None:
    session = SmtpSession("mail.test", max_bytes=200)
    for piece in pieces:
        for step in steps(session, piece):
            assert REPLY.fullmatch(step.reply)
            assert step.mail is None or len(step.mail.content) <= 200


@given(st.binary(max_size=200))
def test_any_line_is_a_command_or_an_smtp_error(line: bytes) -> None:
    told = "250 Ok"
    try:
        command = parse_command(line)
        parse_path(command.argument, "FROM")
    except SmtpError as error:
        told = str(error)
    assert REPLY.fullmatch(f"{told}\r\n".encode())


@given(st.lists(PIECES, max_size=15), st.integers(1, 7))
def test_replies_do_not_depend_on_the_pieces_in_which_bytes_come(
    pieces: list[bytes], size: int
) -> None:
    # After STARTTLS the rest of a piece is dropped, so that there the pieces do matter.
    data = b"".join(piece for piece in pieces if piece != b"STARTTLS\r\n")
    if b"STARTTLS" in data.upper():
        return
    whole, cut = SmtpSession("mail.test", max_bytes=200), SmtpSession("mail.test", max_bytes=200)
    expected = steps(whole, data)
    found = [step for at in range(0, len(data), size) for step in steps(cut, data[at : at + size])]
    assert found == expected


BEARER = "auth=Bearer ya29.secret\1"


@pytest.mark.parametrize(
    ("mechanism", "said", "user"),
    [
        ("XOAUTH2", f"user=ann@x.test\1{BEARER}\1", "ann@x.test"),
        ("OAUTHBEARER", f"n,a=ann@x.test,\1host=mail.test\1port=587\1{BEARER}\1", "ann@x.test"),
        ("OAUTHBEARER", f"y,a=a=2Cb=3Dc,\1{BEARER}\1", "a,b=c"),
        ("OAUTHBEARER", f"n,,\1{BEARER}\1", ""),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_token_logs_in(mechanism: str, said: str, user: str, at_once: bool) -> None:
    session = SmtpSession("mail.test")
    given = plain(said)
    login = (
        f"AUTH {mechanism} ".encode() + given
        if at_once
        else f"AUTH {mechanism}\r\n".encode() + given
    )
    found = replies(b"EHLO c\r\n" + login + b"\r\n", session)
    assert found[-1] == "235 2.7.0"
    assert at_once or found[-2] == "334"
    (mail,) = mails(MAIL.partition(b"\r\n")[2] + b"DATA\r\n.\r\n", session)
    assert mail.user == user


@pytest.mark.parametrize(
    ("mechanism", "said"),
    [
        ("XOAUTH2", ""),
        ("XOAUTH2", "user=ann@x.test"),
        ("XOAUTH2", f"user=\1{BEARER}\1"),
        ("XOAUTH2", f"user=ann@x.test\1{BEARER}"),
        ("XOAUTH2", "user=ann@x.test\1auth=Bearer \1\1"),
        ("XOAUTH2", f"n,a=ann@x.test,\1{BEARER}\1"),
        ("OAUTHBEARER", f"user=ann@x.test\1{BEARER}\1"),
        ("OAUTHBEARER", f"n,a=ann@x.test\1{BEARER}\1"),
        ("OAUTHBEARER", f"p=tls-unique,,\1{BEARER}\1"),
        ("OAUTHBEARER", "n,a=ann@x.test,\1host=mail.test\1\1"),
    ],
)
def test_a_token_that_is_not_in_its_form_is_refused(mechanism: str, said: str) -> None:
    login = f"EHLO c\r\nAUTH {mechanism} ".encode() + (plain(said) or b"=") + b"\r\n"
    assert replies(login)[-1] == "501 5.5.2"
