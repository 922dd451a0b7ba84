"""`smtp()` asked by real clients in containers, over either link: smtplib, curl, openssl."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pytest_egress import Egress, Mail, Route, smtp
from pytest_egress.session import Session
from tests.support.stage import SECONDS

LINKS = ["descriptor", "stream"]


@pytest.fixture(params=LINKS)
def either(request: pytest.FixtureRequest) -> Iterator[Egress]:
    """An egress of a session of its own, over either link."""
    session = Session(link=request.param)
    with contextlib.closing(session), Egress(session=session) as egress:
        yield egress


def send(egress: Egress, image: str, command: str) -> None:
    egress.run(image, ["sh", "-c", command], timeout=120)


SMTPLIB = """
import smtplib, ssl
from email.message import EmailMessage

mail = EmailMessage()
mail["From"], mail["To"], mail["Subject"] = "a@x.test", "b@x.test", "Grüße"
mail.set_content("hello\\n.\\n..\\n")
with smtplib.SMTP("mail.test", 587) as client:
    client.starttls(context=ssl.create_default_context())
    client.login("ann", "correct horse")
    client.send_message(mail)
    client.send_message(mail, to_addrs=["c@x.test", "d@x.test"])
"""


def test_smtplib_sends_two_mails_over_one_connection(either: Egress, services_image: str) -> None:
    mailbox = either.intercept_tcp("mail.test:587", smtp())
    either.run(services_image, ["python3", "-c", SMTPLIB], timeout=120)
    first, second = mailbox.calls
    assert (first.recipients, second.recipients) == (("b@x.test",), ("c@x.test", "d@x.test"))
    assert first.message["subject"] == "Grüße"
    assert first.message.get_content() == "hello\n.\n..\n"
    assert first.user == "ann"
    assert first.tls is not None
    assert "correct horse" not in repr(either.ledger)


def upload(url: str, *options: str) -> str:
    """A command that sends a mail by curl."""
    mail = r"printf 'Subject: by curl\r\n\r\n.hello\r\n'"
    to = "--mail-from a@x.test --mail-rcpt b@x.test --upload-file -"
    return f"{mail} | curl -sS {to} {' '.join(options)} {url}"


@pytest.mark.parametrize("options", [["--ssl-reqd"], ["--ssl-reqd", "--user", "ann:secret"], []])
def test_curl_sends_a_mail_by_starttls_with_a_login_or_in_the_clear(
    either: Egress, services_image: str, options: list[str]
) -> None:
    mailbox = either.intercept_tcp("mail.test:25", smtp())
    send(either, services_image, upload("smtp://mail.test", *options))
    mail = mailbox.assert_called_once()
    assert (mail.subject, mail.message.get_content()) == ("by curl", ".hello\n")
    assert (mail.tls is not None) == ("--ssl-reqd" in options)
    assert mail.user == ("ann" if "--user" in options else None)


def test_curl_sends_a_mail_within_tls(either: Egress, services_image: str) -> None:
    mailbox = either.intercept_tls("mail.test:465", smtp())
    send(either, services_image, upload("smtps://mail.test"))
    mail = mailbox.assert_called_once()
    assert (mail.sender, mail.recipients) == ("a@x.test", ("b@x.test",))
    assert mail.tls is not None


def test_a_test_waits_for_each_mail_of_a_running_container(
    either: Egress, services_image: str
) -> None:
    mailbox = either.intercept_tcp("mail.test:25", smtp())
    every = f"while {upload('smtp://mail.test')}; do sleep 0.1; done"
    either.start(services_image, ["sh", "-c", every])
    third = mailbox.wait_for_call(3, timeout=60)
    assert mailbox.calls[2] is third


def test_a_pipelining_client_gets_all_replies_in_order(either: Egress, services_image: str) -> None:
    mailbox = either.intercept_tcp("mail.test:25", smtp())
    code = r"""
import socket
sock = socket.create_connection(("mail.test", 25))
mail = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nRCPT TO:<bad\r\nDATA\r\n"
sock.sendall(b"EHLO c\r\n" + mail + b"Subject: x\r\n\r\nhi\r\n.\r\nRSET\r\nQUIT\r\n")
print(*[line[:3] for line in sock.makefile() if line[3] == ' '])
"""
    out = either.run(services_image, ["python3", "-c", code], timeout=120).stdout
    assert out == "220 250 250 250 501 354 250 250 221\n"
    assert mailbox.assert_called_once().recipients == ("b@x.test",)


@pytest.mark.intercept_tcp("mail.test:25", smtp(), name="mailbox")
def test_a_marker_declares_it(egress: Egress, services_image: str) -> None:
    mailbox: Route[Mail] = egress["mailbox"]
    send(egress, services_image, upload("smtp://mail.test"))
    assert mailbox.wait_for_call(timeout=SECONDS).subject == "by curl"
