"""Mails of `smtp()`: each is a call of its route, in the window that is open then, whatever its connection is."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from pytest_egress import UnroutedError
from pytest_egress.base import account
from pytest_egress.base.account import OBJECT_BYTES
from pytest_egress.ledger.encryption import IN_CLEAR_FIRST, weak
from pytest_egress.ledger.report import never_called_text
from pytest_egress.ledger.timeline import ledger_lines
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.faults import delayed, refuse
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.raw.smtp import smtp
from pytest_egress.traffic.entries import Mail, TcpConnection, TlsFailure
from pytest_egress.traffic.smtp import SmtpSession
from tests.support.echo import read_line
from tests.support.stage import ADDRESS, SECONDS, Stage, end_of, eventually

PASSWORD = "correct horse battery"


def welcome(subject: str = "Welcome") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@x.test", "ann@x.test", subject
    message.set_content("Hello Ann,\n.\n..dots\n")
    message.add_attachment(b"\0\1", maintype="application", subtype="pdf", filename="a.pdf")
    return message


@pytest.fixture
def mailbox(stage: Stage) -> InnerRoute:
    return stage.tcp("mail.test:5432", smtp())


class MailClient(smtplib.SMTP):
    """smtplib's client, at the stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        super().__init__("mail.test", 5432, local_hostname="client.test")

    def _get_socket(self, *_: object) -> socket.socket:
        sock = self.stage.dial(self.stage.resolve("mail.test"), 5432)
        sock.settimeout(SECONDS)
        return sock


@contextlib.contextmanager
def connected(stage: Stage) -> Iterator[MailClient]:
    with contextlib.closing(MailClient(stage)) as client:
        yield client


def test_a_mail_is_a_call_with_its_envelope_and_its_message(
    stage: Stage, mailbox: InnerRoute
) -> None:
    with connected(stage) as client:
        client.send_message(welcome(), "bounces@x.test", ["ann@x.test", "archive@x.test"])
        mail = mailbox.assert_called_once()
        client.quit()
    assert isinstance(mail, Mail)
    assert (mail.sender, mail.recipients) == ("bounces@x.test", ("ann@x.test", "archive@x.test"))
    assert (mail.host, mail.port, mail.user, mail.tls) == ("mail.test", 5432, None, None)
    assert isinstance(mail.message, EmailMessage)
    assert mail.message["subject"] == "Welcome"
    body = mail.message.get_body()
    assert body is not None
    assert body.get_content() == "Hello Ann,\n.\n..dots\n"
    (attached,) = mail.message.iter_attachments()
    assert attached.get_content() == b"\0\1"
    assert str(mail) == (
        "mail 'Welcome' from <bounces@x.test> to ann@x.test, archive@x.test at mail.test:5432 "
        f"({mail.address})"
    )


def test_each_mail_of_a_connection_counts_before_its_client_is_told(
    stage: Stage, mailbox: InnerRoute
) -> None:
    with connected(stage) as client:
        for number in (1, 2, 3):
            client.send_message(welcome(f"number {number}"))
            assert mailbox.call_count == number
    assert [call.message["subject"] for call in mailbox.calls] == [
        "number 1",
        "number 2",
        "number 3",
    ]
    assert mailbox.wait_for_call(2, timeout=SECONDS).subject == "number 2"


def test_a_mail_belongs_to_the_test_in_which_it_came(stage: Stage, mailbox: InnerRoute) -> None:
    with connected(stage) as client:
        client.send_message(welcome("of the first test"))
        first, second = stage.window, stage.next_window()
        client.send_message(welcome("of the second"))
        mail = mailbox.assert_called_once()
    assert mail.subject == "of the second"
    for window, subject in ((first, "of the first test"), (second, "of the second")):
        assert [e.subject for e in window.entries if isinstance(e, Mail)] == [subject]


def test_starttls_and_a_login_are_told_by_the_mail(stage: Stage, mailbox: InnerRoute) -> None:
    with connected(stage) as client:
        client.starttls(context=stage.trusting)
        client.login("ann", PASSWORD)
        client.send_message(welcome())
        mail = mailbox.assert_called_once()
    assert mail.user == "ann"
    assert mail.tls.version == "TLSv1.3"
    connection = stage.entries(TcpConnection)[0]
    assert (connection.sni, connection.tls) == ("mail.test", mail.tls)
    told = [repr(stage.window.entries), *ledger_lines(stage.window.entries)]
    assert not any(PASSWORD in text for text in told)


def test_only_a_login_within_tls_is_encrypted(stage: Stage, mailbox: InnerRoute) -> None:
    with connected(stage) as client:
        client.starttls(context=stage.trusting)
        client.login("ann", PASSWORD)
        client.send_message(welcome())
    assert weak(stage.window.entries, 2, []) == []
    with connected(stage) as client:
        client.login("ann", PASSWORD)
        client.starttls(context=stage.trusting)
        client.send_message(welcome("of a client that logs in too early"))
    _, early = stage.entries(TcpConnection)
    assert weak(stage.window.entries, 2, []) == [(early, IN_CLEAR_FIRST)]


def test_a_client_that_distrusts_the_ca_fails_the_test(stage: Stage, mailbox: InnerRoute) -> None:
    with connected(stage) as client, pytest.raises(ssl.SSLCertVerificationError):
        client.starttls(context=ssl.create_default_context())
    assert eventually(lambda: any(isinstance(e, TlsFailure) for e in stage.window.entries))
    stage.settle()
    verdict = judge(stage.window, [])
    assert "OpenSSL, by its ClientHello) does not trust the CA of this run for 'mail.test'" in str(
        verdict
    )


def test_within_tls_from_the_begin_it_offers_no_starttls(stage: Stage) -> None:
    route = stage.tls_route("mail.test:5432", smtp())
    sock = stage.tls("mail.test", stage.resolve("mail.test"), 5432)
    assert read_line(sock) == b"220 mail.test ESMTP pytest-egress\r\n"
    sock.sendall(b"EHLO c\r\n")
    lines = [read_line(sock) for _ in range(7)]
    assert lines[-1].startswith(b"250 ")
    assert not any(b"STARTTLS" in line for line in lines)
    sock.sendall(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n\r\n.\r\nQUIT\r\n")
    assert [read_line(sock)[:3] for _ in range(5)] == [b"250", b"250", b"354", b"250", b"221"]
    mail = route.assert_called_once()
    assert isinstance(mail, Mail)
    assert mail.tls is not None
    assert (mail.sender, mail.subject, mail.content) == ("", "", b"\r\n")


def test_a_connection_without_a_mail_is_no_call_and_says_so(
    stage: Stage, mailbox: InnerRoute
) -> None:
    with connected(stage) as client:
        client.noop()
        client.quit()
    assert eventually(lambda: stage.entries(TcpConnection)[0].note)
    (entry,) = stage.entries(TcpConnection)
    assert (entry.outcome, entry.note) == ("routed", "it sent no mail")
    assert mailbox.call_count == 0
    told = never_called_text([mailbox], stage.window.entries, any_container=True)
    assert "TCP mail.test:5432" in told
    assert "it sent no mail" in told


def test_a_port_probe_is_none_and_gives_its_turn_back(stage: Stage) -> None:
    route = stage.tcp("mail.test:5432", smtp(), times=1)
    stage.dial(stage.resolve("mail.test"), 5432).close()
    assert eventually(lambda: any(e.outcome == "recorded" for e in stage.entries(TcpConnection)))
    with connected(stage) as client:
        client.send_message(welcome())
    route.assert_called_once()
    assert judge(stage.window, [route]) is None


def test_a_server_that_is_busy_once_is_a_sequence(stage: Stage) -> None:
    route = stage.tcp("mail.test:5432", sequence(b"421 4.3.2 busy\r\n", smtp()))
    with pytest.raises(smtplib.SMTPConnectError, match="busy"):
        MailClient(stage)
    with connected(stage) as client:
        client.send_message(welcome())
    assert eventually(lambda: len(route.calls) == 2)
    assert {type(call) for call in route.calls} == {TcpConnection, Mail}


@pytest.mark.parametrize("whole", [0, 1])
def test_a_mail_that_breaks_off_is_none_and_leaves_a_trace(
    stage: Stage, mailbox: InnerRoute, whole: int
) -> None:
    with connected(stage) as client:
        client.docmd("EHLO", "c")
        for _ in range(whole):
            client.send_message(welcome())
        client.docmd("MAIL", "FROM:<a@x.test>")
        client.docmd("RCPT", "TO:<b@x.test>")
        client.docmd("DATA")
        client.send(b"Subject: half\r\n")
    assert eventually(lambda: not list(stage.gateway.connections))
    assert mailbox.call_count == whole
    (entry,) = stage.entries(TcpConnection)
    trace = "a mail from 'a@x.test' broke off within DATA, after 15 bytes"
    assert entry.note == (trace if whole else f"it sent no mail; {trace}")
    assert trace in " ".join("\n".join(ledger_lines(stage.window.entries)).split())
    assert judge(stage.window, []) is None


def test_a_client_that_resets_its_connection_fails_no_test(
    stage: Stage, mailbox: InnerRoute
) -> None:
    with connected(stage) as client:
        client.noop()
        assert client.sock is not None
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert eventually(lambda: not list(stage.gateway.connections))
    assert judge(stage.window, []) is None


def test_mails_that_would_fill_the_memory_are_refused_and_fail_the_test(
    stage: Stage, mailbox: InnerRoute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "MAX_HELD_BYTES", 1000 + OBJECT_BYTES)
    with connected(stage) as client:
        client.sendmail("a@x.test", ["b@x.test"], b"x" * 900)
        with pytest.raises(smtplib.SMTPDataError, match="No room for more mails"):
            client.sendmail("a@x.test", ["b@x.test"], b"x" * 900)
    mailbox.assert_called_once()
    assert "bytes of mails were cut" in str(judge(stage.window, []))


@pytest.mark.parametrize("later", [(), (b"421 4.3.2 busy\r\n",)])
def test_a_mail_that_there_is_no_room_for_takes_no_turn(
    stage: Stage, later: tuple[bytes, ...]
) -> None:
    route: InnerRoute = stage.tcp("mail.test:5432", sequence(smtp(), *later))
    with connected(stage) as client:
        full = stage.next_window()
        full.account.keep(account.MAX_HELD_BYTES, "requests")
        with pytest.raises(smtplib.SMTPDataError, match="No room for more mails"):
            client.send_message(welcome("one"))
        assert "bytes of mails were cut" in str(judge(full, []))
        stage.next_window()
        client.send_message(welcome("two"))
    assert [call.subject for call in route.calls] == ["two"]


def test_a_cut_ends_a_session(stage: Stage, mailbox: InnerRoute) -> None:
    client = MailClient(stage)
    mailbox.remove()
    stage.gateway.revise()
    assert client.sock is not None
    assert end_of(client.sock) in ("closed", "reset")
    assert judge(stage.window, []) is None
    client.close()


@pytest.mark.parametrize(
    "field", [b"Subject: =?utf-8?q?=C3=BCber?=", "Subject: über".encode(), b"Subject: =?bad?"]
)
def test_a_line_about_a_mail_never_raises(stage: Stage, mailbox: InnerRoute, field: bytes) -> None:
    with connected(stage) as client:
        client.sendmail("a@x.test", ["b@x.test"], field + b"\r\n\r\nhi")
    assert str(mailbox.assert_called_once()).startswith("mail '")


def test_many_recipients_are_shortened_in_a_line() -> None:
    mail = Mail(
        container="c",
        started=0,
        outcome="routed",
        host="mail.test",
        port=25,
        address="198.18.0.1",
        sender="a@x.test",
        recipients=tuple(f"{n}@x.test" for n in range(9)),
        content=b"Subject: x\r\n\r\n",
    )
    assert "4@x.test and 4 more at mail.test:25" in str(mail)


# A mail is a turn.


def outcomes(stage: Stage) -> list[str]:
    """The outcomes of the mails, in order."""
    return [mail.outcome for mail in stage.entries(Mail)]


def test_times_counts_mails_however_many_come_on_a_connection(stage: Stage) -> None:
    route = stage.tcp("mail.test:5432", smtp(), times=2)
    with connected(stage) as client:
        client.send_message(welcome("one"))
        assert "called 1 of 2 times" in str(judge(stage.window, [route]))
        client.send_message(welcome("two"))
        assert judge(stage.window, [route]) is None
        with pytest.raises(smtplib.SMTPDataError, match="554"):
            client.send_message(welcome("three"))
    assert route.call_count == 2
    (refused,) = [e for e in stage.entries(Mail) if e.outcome == "unrouted"]
    assert (refused.subject, refused.note) == ("three", "its route has no turn left for it")
    verdict = judge(stage.window, [route])
    assert isinstance(verdict, UnroutedError)
    assert "mail 'three' from <shop@x.test>" in str(verdict)
    assert "times: it has answered 2 of 2" in str(verdict)
    assert "egress." not in str(verdict).partition("nearest route")[2].partition("times:")[2]


def test_a_connection_without_a_mail_takes_no_turn(stage: Stage) -> None:
    route = stage.tcp("mail.test:5432", smtp(), times=2)
    with connected(stage) as idle:
        idle.noop()
        for number in (1, 2):
            with connected(stage) as client:
                client.send_message(welcome(f"number {number}"))
        idle.quit()
    assert route.call_count == 2
    assert judge(stage.window, [route]) is None
    with pytest.raises(smtplib.SMTPServerDisconnected):
        MailClient(stage)
    assert isinstance(judge(stage.window, [route]), UnroutedError)


def test_two_connections_never_take_one_turn(stage: Stage) -> None:
    route = stage.tcp("mail.test:5432", smtp(), times=1)
    with connected(stage) as first, connected(stage) as second:
        first.send_message(welcome())
        with pytest.raises(smtplib.SMTPDataError, match="554"):
            second.send_message(welcome())
    assert route.call_count == 1
    assert isinstance(judge(stage.window, [route]), UnroutedError)


def test_a_sequence_counts_mails_and_its_other_answers_connections(stage: Stage) -> None:
    busy = b"421 4.3.2 busy\r\n"
    route = stage.tcp("mail.test:5432", sequence(smtp(), smtp(), busy, delayed(smtp(), 0)))
    with connected(stage) as client:
        for _ in range(2):
            client.send_message(welcome())
        with pytest.raises(smtplib.SMTPDataError, match="next mail is for another connection"):
            client.send_message(welcome())
    assert outcomes(stage) == ["routed", "routed", "recorded"]
    with pytest.raises(smtplib.SMTPConnectError, match="busy"):
        MailClient(stage)
    with connected(stage) as client:
        client.send_message(welcome("the last"))
    assert [type(call) for call in route.calls] == [Mail, Mail, TcpConnection, Mail]
    assert judge(stage.window, [route]) is None


@pytest.mark.parametrize("by_its_route", [True, False])
def test_a_mail_for_another_connection_is_in_the_ledger_though_its_client_never_dials_again(
    stage: Stage, by_its_route: bool
) -> None:
    busy = b"421 4.3.2 busy\r\n"
    stage.tcp("mail.test:5432", busy, optional=True)
    if by_its_route:
        stage.tcp("mail.test:5432", sequence(smtp(), busy))
    else:
        stage.tcp("mail.test:5432", smtp(), times=1)
    with connected(stage) as client:
        client.send_message(welcome("one"))
        with pytest.raises(smtplib.SMTPDataError, match="next mail is for another connection"):
            client.send_message(welcome("two"))
    assert outcomes(stage) == ["routed", "recorded"]
    mail = stage.entries(Mail)[-1]
    assert (mail.subject, mail.sender, mail.route) == ("two", "shop@x.test", None)
    assert mail.note == (
        "it was not taken, since the next answer is for another connection, on which it can be sent again"
    )
    (told,) = (line for line in ledger_lines(stage.window.entries) if "mail 'two'" in line)
    assert told.endswith(f"[{mail.note}]")
    assert judge(stage.window, []) is None


def test_a_mail_that_makes_a_fault_of_connecting_the_next_turn_tells_the_kernels(
    stage: Stage,
) -> None:
    route: InnerRoute = stage.tcp("mail.test:5432", sequence(smtp(), refuse(), smtp()))
    with connected(stage) as client:
        told: list[object] = []
        stage.ledger.turns_changed = lambda: told.append(route.turns.next_fault)
        client.send_message(welcome())
        assert told == [refuse()]
        with pytest.raises(smtplib.SMTPDataError, match="next mail is for another connection"):
            client.send_message(welcome())


def test_a_mail_whose_route_has_no_turn_left_may_be_the_next_routes(stage: Stage) -> None:
    later: InnerRoute = stage.tcp("mail.test:5432", smtp())
    first: InnerRoute = stage.tcp("mail.test:5432", smtp(), times=1)
    with connected(stage) as client:
        client.send_message(welcome("one"))
        with pytest.raises(smtplib.SMTPDataError, match="next mail is for another connection"):
            client.send_message(welcome("two"))
    with connected(stage) as client:
        client.send_message(welcome("two"))
    assert [call.subject for call in (*first.calls, *later.calls)] == ["one", "two"]
    assert judge(stage.window, [first, later]) is None


def test_an_answer_that_is_replaced_is_so_for_the_next_mail(stage: Stage) -> None:
    route = stage.tcp("mail.test:5432", smtp())
    with connected(stage) as client:
        client.send_message(welcome())
        route.respond(b"421 4.3.2 busy\r\n")
        with pytest.raises(smtplib.SMTPDataError, match="next mail is for another connection"):
            client.send_message(welcome())
    with pytest.raises(smtplib.SMTPConnectError, match="busy"):
        MailClient(stage)


@pytest.mark.parametrize("announced", [True, False])
def test_a_mail_that_is_too_large_is_recorded_and_fails_the_test(
    stage: Stage, mailbox: InnerRoute, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    defaults = SmtpSession.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "max_bytes", 1000)
    with connected(stage) as client:
        client.ehlo()
        if announced:
            with pytest.raises(smtplib.SMTPSenderRefused, match="552"):
                client.sendmail("a@x.test", ["b@x.test"], b"x" * 1001)
        else:
            client.esmtp_features.pop("size")
            with pytest.raises(smtplib.SMTPDataError, match="552"):
                client.sendmail("a@x.test", ["b@x.test"], b"x" * 200_000)
    (refused,) = stage.entries(Mail)
    assert (refused.outcome, refused.sender, refused.content) == ("unrouted", "a@x.test", b"")
    assert refused.note == "it was refused with 552, since it has over 1000 bytes"
    verdict = str(judge(stage.window, []))
    assert refused.note in verdict
    assert f"from <a@x.test> to {'nobody yet' if announced else 'b@x.test'} at" in verdict
    assert mailbox.call_count == 0


def test_it_answers_by_the_name_that_was_dialled(stage: Stage) -> None:
    stage.tcp(ADDRESS, smtp())
    assert read_line(stage.dial(ADDRESS, 5432)) == b"220 203.0.113.9 ESMTP pytest-egress\r\n"


@pytest.mark.parametrize(
    "commands",
    [
        ["MAIL FROM:<shop@x.test>", "RCPT TO:<ann@x.test>", "QUIT"],
        ["MAIL FROM:<shop@x.test>", "RCPT TO:<ann@x.test>", "RSET", "QUIT"],
        ["MAIL FROM:<shop@x.test>", "RCPT TO:<ann@x.test>"],
        ["VRFY ann@x.test", "QUIT"],
        ["ANN ann@x.test", "QUIT"],
    ],
)
def test_what_led_to_no_mail_is_said_to_be_missing(
    stage: Stage, mailbox: InnerRoute, commands: list[str]
) -> None:
    with connected(stage) as client:
        client.ehlo()
        for command in commands:
            client.docmd(command)
    assert eventually(lambda: [e for e in stage.entries(TcpConnection) if e.unread])
    (entry,) = stage.entries(TcpConnection)
    assert entry.unread == "are in commands that led to no mail, and are not kept"


def test_of_a_conversation_that_led_to_its_mails_nothing_is_missing(
    stage: Stage, mailbox: InnerRoute
) -> None:
    with connected(stage) as client:
        client.send_message(welcome())
        client.rset()
        client.noop()
        client.send_message(welcome())
        client.quit()
    assert eventually(lambda: [e for e in stage.entries(TcpConnection) if e.duration is not None])
    assert [entry.unread for entry in stage.entries(TcpConnection)] == [""]
