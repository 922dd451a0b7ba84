"""The descriptor link to a sidecar on a real engine."""

from __future__ import annotations

import select
import threading

import docker
import pytest

from pytest_egress.agent.original_destination import original_destination
from tests.support.target_shell import (
    SECONDS,
    accepted,
    assert_a_child_keeps_nothing,
    captured_namespace,
    target_in,
)


def test_capture_outlives_the_sidecar_and_end_of_file_tells(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        poller = select.poll()
        poller.register(link.channel, select.POLLRDHUP)
        assert poller.poll(0) == []
        engine_client.api.kill(sidecar.id)
        assert poller.poll(SECONDS * 1000)
        assert link.channel.recv(1) == b""
        target.python("socket.create_connection(('203.0.113.9', 443), 10)")
        with accepted(link) as connection:
            assert original_destination(connection) == ("203.0.113.9", 443)


def test_closing_wakes_a_thread_that_accepts(engine_client: docker.DockerClient) -> None:
    with captured_namespace(engine_client) as (_, link):
        ended: list[type[Exception]] = []

        def accept() -> None:
            try:
                link.tcp[0].accept()
            except OSError as error:
                ended.append(type(error))

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        link.close()
        thread.join(SECONDS)
        assert ended == [OSError]


def test_a_forked_child_keeps_nothing_and_shuts_nothing(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        assert_a_child_keeps_nothing(link)
        target.python("socket.create_connection(('203.0.113.9', 443), 10)")
        with accepted(link) as connection:
            assert original_destination(connection) == ("203.0.113.9", 443)
        with pytest.raises(ConnectionRefusedError):
            link.connect(9, SECONDS)
