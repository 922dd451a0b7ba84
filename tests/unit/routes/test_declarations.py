"""What a declaration accepts, and what it refuses."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pytest_egress.routes.answers import Application
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import (
    INTERCEPT_HTTP,
    INTERCEPT_HTTPS,
    INTERCEPT_TCP,
    INTERCEPT_TLS,
    Kind,
)
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.routes import Routes, called


@pytest.fixture
def routes() -> Routes:
    return Routes()


@pytest.mark.parametrize("times", [0, -1, True, 1.0, "1"])
def test_times_that_are_no_number_of_calls_are_refused(routes: Routes, times: object) -> None:
    with pytest.raises(
        ValueError, match=r"^times=.*: a route answers 1 time or more; leave it out"
    ):
        routes.https(times=times)


@pytest.mark.parametrize(
    "alpn", ["imap", b"imap", None, {"imap"}, ("imap", 1), [b"imap"], ("",), ("x" * 256,), ("ü",)]
)
def test_protocols_that_alpn_cannot_offer_are_refused(alpn: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        declare(INTERCEPT_TLS, "db.test:5432", alpn=alpn)
    assert str(caught.value).startswith(f"alpn={alpn!r}: ")
    assert str(caught.value).endswith('it takes names of protocols, as alpn=("postgresql",)')


@pytest.mark.parametrize("kind", [INTERCEPT_TCP, INTERCEPT_HTTPS])
def test_only_routes_of_what_is_in_tls_take_protocols(kind: Kind) -> None:
    with pytest.raises(TypeError, match=rf"^{kind.method}\(\) does not take alpn=; it takes "):
        declare(kind, "db.test:5432", alpn=("postgresql",))


class Methods:
    def handler(self, request: Request) -> None: ...

    def __call__(self, request: Request) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [lambda request: None, lambda *args: None, Methods().handler, Methods(), print],
    ids=["lambda", "any number", "method", "object", "builtin"],
)
def test_whatever_can_be_called_with_a_request_is_a_handler(
    routes: Routes, handler: Callable[..., object]
) -> None:
    route = routes.https(answer=handler)
    called(route)


@pytest.mark.parametrize("handler", [lambda: None, lambda request, other: None, dict, Methods])
def test_a_function_that_takes_no_request_is_refused(
    routes: Routes, handler: Callable[..., object]
) -> None:
    with pytest.raises(TypeError) as caught:
        routes.https(answer=handler)
    text = f"the handler {handler!r} cannot be called with one argument, the Request"
    assert str(caught.value).partition(";")[0] == text


@pytest.mark.parametrize(
    ("application", "hint"),
    [
        (lambda environ, start_response: None, "; a WSGI application goes into wsgi(...)"),
        (lambda scope, receive, send: None, "; an ASGI one goes into asgi(...)"),
        (lambda: None, ", the Request"),
    ],
)
def test_an_application_that_is_given_as_a_handler_is_told_where_it_goes(
    routes: Routes, application: Callable[..., object], hint: str
) -> None:
    with pytest.raises(TypeError) as caught:
        routes.https(answer=application)
    assert str(caught.value).endswith(hint)


def test_an_application_is_no_answer_of_a_raw_route(routes: Routes) -> None:
    with pytest.raises(TypeError, match="answers requests, and a raw route has none"):
        routes.add("intercept_tcp", "db.test", Application())


def test_an_iterator_is_no_static_answer(routes: Routes) -> None:
    with pytest.raises(TypeError) as caught:
        routes.https(answer=Response(stream=iter([b"x"])))
    assert str(caught.value) == (
        "a static answer is sent many times, its iterator is read once; return it from a function"
    )
    routes.https(answer=Response(stream=[b"x"]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tls_version": "TLSv1.2"}, "http3=True with tls_version='TLSv1.2': QUIC has TLS 1.3"),
        ({"client_certificate": "request"}, "http3=True with client_certificate='request'"),
    ],
)
def test_http3_refuses_what_quic_has_not(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        declare(INTERCEPT_HTTPS, "api.test", http3=True, **options)


def test_http3_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_egress.traffic.http.http3", None)
    with pytest.raises(ImportError, match=r"pip install 'pytest-egress\[http3\]'"):
        declare(INTERCEPT_HTTPS, "api.test", http3=True)


def test_http3_is_a_flag_of_https_alone() -> None:
    with pytest.raises(TypeError, match="http3= takes True or False, not 'yes'"):
        declare(INTERCEPT_HTTPS, "api.test", http3="yes")
    with pytest.raises(TypeError, match=r"does not take http3="):
        declare(INTERCEPT_HTTP, "api.test", http3=True)
