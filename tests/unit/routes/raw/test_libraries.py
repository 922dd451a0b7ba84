"""Which answers of a raw route are servers of libraries; gateway/raw/test_server_libraries runs them."""

from __future__ import annotations

import asyncio
import socketserver
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest

from pytest_egress.routes.answers import sequence
from pytest_egress.routes.raw.libraries import (
    ProtocolHandler,
    ServerHandler,
    StreamsHandler,
    adapted,
)
from pytest_egress.routes.sequences import AnswerSequence


def of_a_socket(sock: Any) -> None: ...


def of_streams(reader: Any, writer: Any) -> None: ...


def of_either(sock: Any, writer: Any = None) -> None: ...


class Object:
    def serve(self, reader: Any, writer: Any) -> None: ...


@pytest.mark.parametrize(
    "answer", [of_a_socket, of_either, b"bytes", None, Mock(), dict, lambda: None]
)
def test_what_is_no_server_stays_as_it_is(answer: object) -> None:
    assert adapted(answer) is answer


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (of_streams, StreamsHandler),
        (Object().serve, StreamsHandler),
        (asyncio.Protocol, ProtocolHandler),
        (partial(asyncio.StreamReaderProtocol, Mock()), ProtocolHandler),
    ],
)
def test_a_server_is_a_handler_that_is_shown_as_what_was_given(answer: object, kind: type) -> None:
    handler = adapted(answer)
    assert type(handler) is kind
    assert repr(handler) == repr(answer)


def test_a_socketserver_need_not_listen() -> None:
    server = socketserver.TCPServer(("", 0), Mock(), bind_and_activate=False)
    server.server_close()
    handler = adapted(server)
    assert type(handler) is ServerHandler
    assert repr(handler) == repr(server)


def test_a_sequence_has_each_of_its_answers_as_a_handler() -> None:
    found = adapted(sequence(of_streams, of_a_socket))
    assert isinstance(found, AnswerSequence)
    first, second = found.answers
    assert type(first) is StreamsHandler
    assert second is of_a_socket
