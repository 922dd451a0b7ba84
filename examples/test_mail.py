"""A service that sends mail: what it sent, to whom, and whether it did so over TLS and logged in."""

import pytest

from pytest_egress import Egress, Mail, sequence, smtp

WELCOME = """
import smtplib, ssl
from email.message import EmailMessage

mail = EmailMessage()
mail["From"], mail["To"], mail["Subject"] = "shop@example.com", "ann@example.com", "Welcome, Ann"
mail.set_content("Here is your voucher: 4711\\n")
mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="voucher.pdf")
with smtplib.SMTP("mail.internal", 587) as server:
    server.starttls(context=ssl.create_default_context())
    server.login("shop", "hunter2")
    server.send_message(mail)
"""
ALERT = (
    "printf 'Subject: disk full\\r\\n\\r\\n91 %%\\r\\n' | curl -sS --upload-file - smtps://mail.internal "
    "--mail-from ops@example.com --mail-rcpt"
)


def test_a_customer_gets_a_voucher(egress: Egress, services: str) -> None:
    mailbox = egress.intercept_tcp("mail.internal:587", smtp())

    egress.run(services, ["python3", "-c", WELCOME])

    mail = mailbox.assert_called_once()
    assert mail.recipients == ("ann@example.com",)
    assert mail.message["subject"] == "Welcome, Ann"
    body = mail.message.get_body()
    assert body is not None
    assert "4711" in body.get_content()
    assert [part.get_filename() for part in mail.message.iter_attachments()] == ["voucher.pdf"]
    assert mail.user == "shop"
    assert mail.tls is not None


def test_each_recipient_of_an_alert_gets_a_mail_of_its_own(egress: Egress, services: str) -> None:
    mailbox = egress.intercept_tls("mail.internal:465", smtp())

    send = f"{ALERT} one@example.com && {ALERT} two@example.com"
    egress.run(services, ["sh", "-c", send])

    assert [call.recipients for call in mailbox.calls] == [
        ("one@example.com",),
        ("two@example.com",),
    ]
    assert {call.subject for call in mailbox.calls} == {"disk full"}


def test_a_mail_is_sent_again_when_the_server_was_busy(egress: Egress, services: str) -> None:
    mailbox = egress.intercept_tcp("mail.internal:587", sequence(b"421 4.3.2 busy\r\n", smtp()))

    again = f"for i in 1 2 3; do python3 -c '{WELCOME}' && exit; done; exit 1"
    egress.run(services, ["sh", "-c", again])

    mail = mailbox.calls[1]
    assert isinstance(mail, Mail)
    assert mail.subject == "Welcome, Ann"


@pytest.mark.intercept_tcp("mail.internal:587", smtp(), optional=True)
def test_a_bounced_address_gets_no_mail(egress: Egress, services: str) -> None:
    egress.run(services, ["python3", "-c", "print('nothing to send')"])

    egress["mail.internal:587"].assert_not_called()
