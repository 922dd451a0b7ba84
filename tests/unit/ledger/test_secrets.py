"""A secret is looked for in the test that has made it, or in the whole run."""

from __future__ import annotations

import contextlib

import pytest

from pytest_egress import Egress, LeakError, secret
from pytest_egress.ledger.windows import Window
from pytest_egress.session import Session
from pytest_egress.traffic.entries import Offers
from pytest_egress.traffic.redaction.declared import Redaction
from tests.support.entries import tcp
from tests.support.secrets import forgotten  # noqa: F401

pytestmark = pytest.mark.usefixtures("forgotten")


def values_of(window: Window) -> list[str]:
    return [str(each) for each in (*window.wider_secrets, *window.secrets)]


def test_a_secret_of_a_test_ends_with_it_and_one_made_elsewhere_stays() -> None:
    session = Session()
    secret("made-before-1")
    first = session.open_window()
    secret("made-in-a-test-1")
    with session.ledger.wide_set_up("shop"):
        secret("made-in-a-fixture-1")
    session.hide({"API_KEY": "made-in-a-test-1", "URL": "x://made-in-a-fixture-1@y"})
    assert values_of(first) == ["made-before-1", "made-in-a-fixture-1", "made-in-a-test-1"]
    assert [each.name for each in first.secrets] == ["API_KEY"]
    hidden = session.ledger.redactor.known
    assert (
        hidden("made-before-1 made-in-a-test-1 made-in-a-fixture-1") == "<SECRET> <API_KEY> <URL>"
    )
    assert session.ledger.accounts.secrets.found("made-in-a-test-1")
    session.close_window(first)
    second = session.open_window()
    assert values_of(second) == ["made-before-1", "made-in-a-fixture-1"]
    assert not session.ledger.accounts.secrets.found("made-in-a-test-1")
    session.close_window(second)


def test_a_secret_is_hidden_before_the_rules_of_a_suite_are_known() -> None:
    session = Session(rules=lambda: Redaction(values=["of-the-suite-1"]))
    window = session.open_window()
    secret("made-in-a-test-1")
    session.secrets.learn()
    known = session.ledger.redactor.known
    assert known("made-in-a-test-1 of-the-suite-1") == "<SECRET> of-the-suite-1"
    session.hide({"API_KEY": "made-in-a-test-1"})
    known = session.ledger.redactor.known
    assert known("made-in-a-test-1 of-the-suite-1") == "<API_KEY> <SECRET>"
    session.close_window(window)


def test_without_a_secret_nothing_is_searched_as_it_passes() -> None:
    session = Session()
    window = session.open_window()
    session.hide({"API_KEY": "a-key-of-env-1"})
    assert window.account.secrets is None
    session.close_window(window)


def test_nothing_may_pass_through_unread_beside_a_secret() -> None:
    session = Session()
    window = session.open_window(policy="passthrough")
    session.secrets.check_routes([])
    secret("made-in-a-test-1")
    session.hide({})
    session.secrets.learn()
    with pytest.raises(ValueError, match=r"secret\(\) beside unrouted=\"passthrough\""):
        session.secrets.check_routes([])
    session.close_window(window)


@pytest.mark.parametrize(
    ("address", "is_everything"),
    [
        ("*", True),
        ("*:5432", True),
        ("*.*", True),
        ("0.0.0.0/0", True),
        ("*.vendor.test", False),
        ("192.0.2.0/24", False),
        ("db.test", False),
    ],
)
def test_no_route_may_let_everything_pass_beside_a_secret(
    address: str, is_everything: bool
) -> None:
    session = Session()
    window = session.open_window()
    with Egress(session=session) as egress:
        egress.passthrough("*").remove()
        egress.passthrough(address)
        secret("made-in-a-test-1")
        refused: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if is_everything:
            refused = pytest.raises(ValueError, match=r"secret\(\) beside passthrough\(.*not seen")
        with refused:
            egress.passthrough("db.test")
    session.close_window(window)


@pytest.mark.parametrize(("address", "is_unseen"), [("*", True), ("api.test", False)])
def test_what_passed_before_a_secret_was_made_fails_its_test(address: str, is_unseen: bool) -> None:
    session, offers = Session(), Offers("TLSv1.3", "OpenSSL")

    def attempt() -> None:
        with Egress(session=session) as egress:
            egress.passthrough(address)
            (route,) = egress._inner.routes
            early, plain = (tcp(outcome="passthrough", route=route) for _ in range(2))
            early.host, early.offers = "early.test", offers
            assert session.ledger.window is not None
            session.ledger.window.entries += [early, plain]
            secret("made-in-a-test-1")

    if not is_unseen:
        attempt()
        return
    with pytest.raises(LeakError) as caught:
        attempt()
    assert "early.test:5432" in str(caught.value)
    assert "api.test:5432" not in str(caught.value)
    assert "may have left there" in str(caught.value)
