"""What an engine breaks off while files go in and out of a container is asked for again, as Podman's does at times."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import docker
import pytest
import requests

from pytest_egress import Egress, EngineError
from pytest_egress.session import Session

BROKEN_OFF = b'{"cause":"EOF","message":"error decoding response from copier subprocess: EOF","response":500}\n'


def error() -> requests.Response:
    answer = requests.Response()
    answer.status_code, answer._content = 500, BROKEN_OFF
    return answer


def cut(answer: requests.Response) -> requests.Response:
    """An answer whose body ends before an archive does."""
    content = answer.content
    answer._content = content[: len(content) // 2]
    return answer


@pytest.fixture
def session(engine_client: docker.DockerClient) -> Session:
    """A run of its own, which has looked at no image yet."""
    return Session()


def is_archive(request: Any) -> bool:
    return bool(request.path_url.partition("?")[0].endswith("/archive"))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Every archive that is asked for is broken off at first, and what was written has been: how many were, by kind."""
    real, counts, seen = docker.APIClient.send, Counter[str](), set[tuple[Any, ...]]()

    def send(api: Any, request: Any, **options: Any) -> requests.Response:
        asked = request.method, request.url, request.body
        answer = real(api, request, **options)
        if not is_archive(request) or asked in seen:
            return answer
        seen.add(asked)
        is_read = request.method == "GET" and answer.ok
        counts[f"{request.method} cut" if is_read else request.method] += 1
        answer.content  # noqa: B018  # the connection can be used again once it has been read
        return cut(answer) if is_read else error()

    monkeypatch.setattr(docker.APIClient, "send", send)
    return counts


def test_a_container_has_its_files_though_each_copy_is_broken_off_once(
    session: Session, clients_image: str, broken: Counter[str]
) -> None:
    with Egress(session=session) as egress:
        egress.intercept_https("api.test", b"answered")
        result = egress.run(clients_image, ["curl", "-sS", "https://api.test/"])
    assert result.stdout == "answered"
    assert broken["PUT"] >= 1
    assert broken["GET cut"] >= 1
    assert broken["GET"] + broken["HEAD"] >= 1


def test_an_archive_that_never_has_its_end_is_told(
    session: Session, clients_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = docker.APIClient.send

    def send(api: Any, request: Any, **options: Any) -> requests.Response:
        answer = real(api, request, **options)
        is_read = request.method == "GET" and is_archive(request)
        return cut(answer) if is_read and answer.ok else answer

    monkeypatch.setattr(docker.APIClient, "send", send)
    with Egress(session=session) as egress, pytest.raises(EngineError) as caught:
        egress.run(clients_image, ["true"])
    assert re.fullmatch(
        r"the engine did not read '/etc/\S+': the archive ends after \d+ bytes, without its end mark",
        str(caught.value),
    )
