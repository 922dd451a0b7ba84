"""The words of `certificate=` and `tls_version=`: which are accepted, beside what, and how a route says them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_egress import sequence
from pytest_egress.routes.certificates import (
    BAD_CERTIFICATES,
    IN_WORDS,
    TLS_VERSIONS,
    USUAL,
    Presented,
    check_presented,
)
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTP, INTERCEPT_HTTPS, INTERCEPT_TCP, INTERCEPT_TLS
from tests.support.attempts import LEDGER, route_in


def test_every_bad_certificate_has_words() -> None:
    assert {*IN_WORDS} == {*BAD_CERTIFICATES}
    for certificate in BAD_CERTIFICATES:
        assert "api.test" in Presented(certificate).to("api.test")


@pytest.mark.parametrize("certificate", BAD_CERTIFICATES)
def test_a_bad_certificate_is_to_be_rejected(certificate: Any) -> None:
    presented = check_presented(certificate, None, None)
    assert presented.is_bad
    assert not presented.is_usual
    assert presented.given == f"certificate={certificate!r}"


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_of_the_versions_the_old_ones_are_to_be_rejected(version: Any) -> None:
    presented = check_presented(None, version, "require" if version > "TLSv1.1" else None)
    assert presented.is_bad == (version < "TLSv1.2")
    assert presented.given == f"tls_version={version!r}"


def test_without_either_all_is_as_usual() -> None:
    assert check_presented(None, None, "require") == USUAL
    assert (USUAL.is_usual, USUAL.is_bad, USUAL.given) == (True, False, "")


def test_a_bad_certificate_may_be_shown_by_a_modern_version_alone() -> None:
    given = check_presented("expired", "TLSv1.2", None).given
    assert given == "certificate='expired', tls_version='TLSv1.2'"


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"certificate": "expierd"},
        "certificate='expierd': it takes 'expired', 'not-yet-valid', 'wrong-host', 'self-signed', 'untrusted-root', "
        "'incomplete-chain', 'wrong-purpose' or 'weak-key'; did you mean 'expired'?",
    ),
    (
        {"certificate": "Self-Signed"},
        "certificate='Self-Signed': it takes 'expired', 'not-yet-valid', 'wrong-host', 'self-signed', "
        "'untrusted-root', 'incomplete-chain', 'wrong-purpose' or 'weak-key'; did you mean 'self-signed'?",
    ),
    (
        {"tls_version": 1.1},
        "tls_version=1.1: it takes 'TLSv1', 'TLSv1.1', 'TLSv1.2' or 'TLSv1.3'; did you mean 'TLSv1.1'?",
    ),
    (
        {"tls_version": "TLSv1.4"},
        "tls_version='TLSv1.4': it takes 'TLSv1', 'TLSv1.1', 'TLSv1.2' or 'TLSv1.3'; did you mean 'TLSv1.3'?",
    ),
    (
        {"certificate": "expired", "tls_version": "TLSv1.1"},
        "certificate='expired' with tls_version='TLSv1.1': a client that breaks off would not say which of the two it "
        "rejects; declare them in two tests",
    ),
    (
        {"tls_version": "TLSv1.1", "client_certificate": "request"},
        "tls_version='TLSv1.1' with client_certificate='request': a client that rejects the server sends no "
        "certificate of its own; leave client_certificate= out",
    ),
    (
        {"certificate": "expired", "path": "/v1/*"},
        "path='/v1/*' with certificate='expired': the handshake comes before the request, and is the same for all "
        "requests to 'api.test'; leave the conditions out",
    ),
    (
        {"certificate": "expired", "times": 2},
        "times=2 with certificate='expired': it counts calls, and a client that rejects makes none; leave it out",
    ),
]


@pytest.mark.parametrize(("options", "text"), REFUSED)
def test_what_makes_no_sense_is_refused_where_it_is_declared(
    options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        declare(INTERCEPT_HTTPS, "api.test", **options)
    assert str(caught.value) == text


def test_a_sequence_counts_calls_too() -> None:
    with pytest.raises(
        ValueError, match=r"sequence\(\) with certificate='expired': it counts calls"
    ):
        declare(INTERCEPT_HTTPS, "api.test", sequence(503, 200), certificate="expired")


def test_a_sequence_counts_calls_if_it_is_given_later_too() -> None:
    with pytest.raises(
        ValueError, match=r"sequence\(\) with certificate='expired': it counts calls"
    ):
        route_in(LEDGER, certificate="expired").respond(sequence(503, 200))


@pytest.mark.parametrize("option", ["certificate", "tls_version"])
def test_only_a_route_that_ends_tls_presents_anything(option: str) -> None:
    for kind in (INTERCEPT_HTTP, INTERCEPT_TCP):
        with pytest.raises(
            TypeError, match=rf"{kind.method}\(\) does not take {option}=; it takes "
        ):
            declare(kind, "api.test", **{option: "expired"})
    declare(INTERCEPT_TLS, "api.test", certificate="expired")


def test_a_route_says_what_it_presents() -> None:
    route = route_in(LEDGER, certificate="weak-key", optional=True, name="weak")
    assert str(route) == "intercept_https(\"api.test\", certificate='weak-key', name='weak')"
