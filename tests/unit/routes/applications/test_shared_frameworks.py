"""Applications of frameworks answer."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import boto3
import django.conf  # type: ignore[import-untyped]
import django.core.asgi  # type: ignore[import-untyped]
import django.core.wsgi  # type: ignore[import-untyped]
import django.http  # type: ignore[import-untyped]
import django.urls  # type: ignore[import-untyped]
import fastapi
import flask
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from starlette.responses import StreamingResponse

from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from tests.support.applications import application_request, body_of

# ASGI: what arrives.


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No thread outlives its application, those that frameworks start on its loop included, and no task."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)  # a worker of anyio is told to end and not waited for
    assert not left
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


# Frameworks.


def flask_shop() -> flask.Flask:
    shop = flask.Flask("shop")

    @shop.post("/v1/charges/<name>")
    def charge(name: str) -> dict[str, Any]:
        about = flask.request
        return {
            "name": name,
            "q": about.args["q"],
            "sent": about.get_json(),
            "path": about.path,
            "root": about.host_url,
        }

    @shop.get("/events")
    def events() -> flask.Response:
        return flask.Response(iter([b"data: 1\n\n", b"data: 2\n\n"]), mimetype="text/event-stream")

    return shop


def fastapi_shop() -> fastapi.FastAPI:
    shop = fastapi.FastAPI()

    @shop.post("/v1/charges/{name}")
    def charge(name: str, q: str, about: fastapi.Request, sent: Any = fastapi.Body()) -> Any:  # noqa: B008
        return {
            "name": name,
            "q": q,
            "sent": sent,
            "path": about.url.path,
            "root": str(about.base_url),
        }

    @shop.get("/events")
    def events() -> StreamingResponse:
        pieces = iter([b"data: 1\n\n", b"data: 2\n\n"])
        return StreamingResponse(pieces, media_type="text/event-stream")

    return shop


class DjangoUrls:
    """What Django takes its pages from."""

    @staticmethod
    def charge(about: Any, name: str) -> Any:
        sent = {"amount": int(about.body.decode().partition(":")[2].strip("} "))}
        root = about.build_absolute_uri("/")
        found = {"name": name, "q": about.GET["q"], "sent": sent, "path": about.path, "root": root}
        return django.http.JsonResponse(found)

    @staticmethod
    def events(about: Any) -> Any:
        pieces = [b"data: 1\n\n", b"data: 2\n\n"]

        async def later() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        body = later() if isinstance(about, django.core.asgi.ASGIHandler.request_class) else pieces
        return django.http.StreamingHttpResponse(body, content_type="text/event-stream")


def django_shop(make: Callable[[], Any]) -> Any:
    if not django.conf.settings.configured:
        DjangoUrls.urlpatterns = [  # type: ignore[attr-defined]
            django.urls.path("v1/charges/<name>", DjangoUrls.charge),
            django.urls.path("events", DjangoUrls.events),
        ]
        django.conf.settings.configure(
            ALLOWED_HOSTS=["api.test"], ROOT_URLCONF=DjangoUrls, LOGGING_CONFIG=None
        )
    return make()


SHOPS: dict[str, Callable[[], Any]] = {
    "flask": lambda: wsgi(flask_shop()),
    "fastapi": lambda: asgi(fastapi_shop()),
    "django-wsgi": lambda: wsgi(django_shop(django.core.wsgi.get_wsgi_application)),
    "django-asgi": lambda: asgi(django_shop(django.core.asgi.get_asgi_application)),
}


@pytest.mark.parametrize("framework", [*SHOPS])
def test_the_applications_of_frameworks_answer(framework: str) -> None:
    handler = SHOPS[framework]()
    handler.acquire()
    charged = handler(
        application_request(
            "POST",
            "/v1/charges/caf%C3%A9",
            query_string="q=a%20b",
            headers={
                "Host": "api.test",
                "Content-Type": "application/json",
                "Content-Length": "14",
            },
            content=b'{"amount": 42}',
        )
    )
    events = handler(application_request(path="/events", headers={"Host": "api.test"}))
    content, streamed = body_of(charged), body_of(events)
    missing = handler(application_request(path="/none", headers={"Host": "api.test"}))
    assert missing.status_code == 404
    body_of(missing)
    handler.release()
    assert charged.status_code == 200
    assert json.loads(content) == {
        "name": "caf\u00e9",
        "q": "a b",
        "sent": {"amount": 42},
        "path": "/v1/charges/caf\u00e9",
        "root": "https://api.test/",
    }
    assert events.headers["content-type"].startswith("text/event-stream")
    assert streamed == b"data: 1\n\ndata: 2\n\n"


class RawBody(io.BytesIO):
    """The body as botocore reads it."""

    def stream(self, **about: Any) -> Iterator[bytes]:
        yield self.read()


def test_boto3_finds_a_whole_s3_in_moto() -> None:
    s3 = wsgi(DomainDispatcherApplication(create_backend_app))

    def answer(request: Any, **about: Any) -> Any:
        scheme, _, rest = request.url.partition("://")
        host, _, target = rest.partition("/")
        path, _, query_string = target.partition("?")
        fields = [(name, as_text(value)) for name, value in request.headers.items()]
        body = request.body.read() if hasattr(request.body, "read") else request.body or b""
        response = s3(
            Request(
                method=request.method,
                scheme=scheme,
                host=host,
                port=443,
                path=f"/{path}",
                query_string=query_string,
                headers=Headers([("Host", host), *fields]),
                content=body,
            )
        )
        raw = RawBody(body_of(response))
        return AWSResponse(request.url, response.status_code, dict(response.headers.raw), raw)

    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 0}),
    )
    client.meta.events.register("before-send.s3", answer)
    client.create_bucket(Bucket="orders")
    client.put_object(Bucket="orders", Key="a b/\u00e9", Body=b"42", ContentType="text/plain")
    found = client.get_object(Bucket="orders", Key="a b/\u00e9")
    assert (found["Body"].read(), found["ContentType"]) == (b"42", "text/plain")
    assert [key["Key"] for key in client.list_objects_v2(Bucket="orders")["Contents"]] == [
        "a b/\u00e9"
    ]


def as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
