"""Sidecars that are started ahead, without an engine: which one is given, and what becomes of the others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import pytest_egress.targets.sidecars.ready as ready
from pytest_egress.errors import LinkError
from pytest_egress.targets.sidecars.provision import DESCRIPTOR, SidecarSetup
from pytest_egress.targets.sidecars.ready import NotReadyError, ReadySidecars

SECONDS = 10.0  # what is bound to happen, on however slow a machine


class FakeLink:
    """A link of which only the channel is there; `agent` is the other end."""

    def __init__(self) -> None:
        self.channel, self.agent = socket.socketpair()
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True
        self.channel.close()
        self.agent.close()


class FakeSidecar:
    """A sidecar without a container."""

    hostname, setup = "shop", DESCRIPTOR

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure, self.is_removed, self.is_reusable = failure, False, False
        self.link: FakeLink | None = None
        self.may_start = threading.Event()
        self.may_start.set()

    def start(self) -> FakeLink:
        assert self.may_start.wait(SECONDS)
        if self.failure is not None:
            raise self.failure
        self.link = FakeLink()
        return self.link

    def end(self) -> None:
        assert self.link is not None
        self.link.close()

    def remove(self) -> None:
        self.is_removed = True


class Preparations:
    """The sidecars of a session, of which the next ones are given."""

    def __init__(
        self,
        *sidecars: FakeSidecar | BaseException,
        is_podman: bool = False,
        reuse: bool = True,
    ) -> None:
        self.left = [*sidecars]
        engine: Any = SimpleNamespace(is_podman=is_podman)
        provisioner: Any = SimpleNamespace(setups=[DESCRIPTOR])
        self.sidecars = ReadySidecars(engine, provisioner, reuse=reuse)
        self.sidecars.create = self.create  # type: ignore[assignment, method-assign]

    def create(self, _setup: SidecarSetup, **_options: object) -> Any:
        made = self.left.pop(0)
        if isinstance(made, BaseException):
            raise made
        return made

    def taken(self) -> Any:
        self.sidecars.prepare()
        taken = self.sidecars.take()
        assert taken is not None
        return taken


@pytest.fixture
def sidecar() -> Iterator[FakeSidecar]:
    sidecar = FakeSidecar()
    yield sidecar
    if sidecar.link is not None:
        sidecar.link.close()


def test_nothing_is_taken_where_nothing_was_prepared() -> None:
    assert Preparations().sidecars.take() is None


def test_one_waits_however_often_it_is_asked_for(sidecar: FakeSidecar) -> None:
    scene = Preparations(sidecar)
    scene.sidecars.prepare()
    scene.sidecars.prepare()
    taken: Any = scene.sidecars.take()
    assert taken.created(DESCRIPTOR) is sidecar
    assert taken.link() is sidecar.link
    assert scene.sidecars.take() is None


@pytest.mark.parametrize(
    ("expected", "reuse", "is_reusable", "prepared"),
    [
        (True, True, False, True),
        (True, False, True, True),  # given up meanwhile
        (True, True, True, False),
        (False, True, False, False),
    ],
)
def test_the_next_is_prepared_where_it_is_expected_and_the_present_one_cannot_serve_it(
    sidecar: FakeSidecar, expected: bool, reuse: bool, is_reusable: bool, prepared: bool
) -> None:
    scene = Preparations(sidecar, reuse=reuse)
    scene.sidecars.expects_more = lambda: expected
    present: Any = FakeSidecar()
    present.is_reusable = is_reusable
    scene.sidecars.prepare_next(present)
    taken: Any = scene.sidecars.take()
    assert (taken is not None) == prepared
    if taken is not None:
        assert taken.join() is sidecar


def test_it_is_created_before_it_has_started(sidecar: FakeSidecar) -> None:
    sidecar.may_start.clear()
    taken = Preparations(sidecar).taken()
    assert taken.created(DESCRIPTOR).link is None
    sidecar.may_start.set()
    assert taken.link() is sidecar.link


@pytest.mark.parametrize("failure", [LinkError("no"), OSError("no"), RuntimeError("no")])
def test_what_fails_is_not_ready(failure: Exception) -> None:
    taken = Preparations(failure).taken()
    for step in (lambda: taken.created(DESCRIPTOR), taken.link):
        with pytest.raises(NotReadyError, match="it has failed: no"):
            step()
    assert taken.join() is None
    sidecar = FakeSidecar(failure)
    taken = Preparations(sidecar).taken()
    with pytest.raises(NotReadyError, match="it has failed: no"):
        taken.link()
    assert taken.join() is sidecar  # to be removed


def test_one_that_has_ended_meanwhile_is_not_ready(sidecar: FakeSidecar) -> None:
    taken = Preparations(sidecar).taken()
    taken.link()
    assert sidecar.link is not None
    sidecar.link.agent.close()
    with pytest.raises(NotReadyError, match="it has ended"):
        taken.created(DESCRIPTOR)


def test_one_with_another_setup_is_not_ready(sidecar: FakeSidecar) -> None:
    taken = Preparations(sidecar).taken()
    with pytest.raises(NotReadyError, match="it has the setup descriptor link, "):
        taken.created(SidecarSetup("stream", "python:3.13-slim"))
    assert taken.join() is sidecar


@pytest.mark.parametrize("is_podman", [False, True])
def test_the_end_of_a_session_releases_the_one_that_waits(
    sidecar: FakeSidecar, is_podman: bool
) -> None:
    scene = Preparations(sidecar, is_podman=is_podman)
    scene.sidecars.prepare()
    scene.sidecars.close()
    assert sidecar.link is not None
    assert (sidecar.link.is_closed, sidecar.is_removed) == (True, is_podman)
    assert not any(thread.name == "egress sidecar" for thread in threading.enumerate())
    scene.sidecars.close()


def test_the_end_waits_for_one_that_is_being_started(sidecar: FakeSidecar) -> None:
    sidecar.may_start.clear()
    scene = Preparations(sidecar)
    scene.sidecars.prepare()
    threading.Timer(0.1, sidecar.may_start.set).start()
    scene.sidecars.close()
    assert sidecar.link is not None
    assert sidecar.link.is_closed


def test_when_it_has_settled_nothing_goes_on_in_the_background(sidecar: FakeSidecar) -> None:
    scene = Preparations(sidecar)
    scene.sidecars.settle()  # there is nothing to wait for
    sidecar.may_start.clear()
    scene.sidecars.prepare()
    settling = threading.Thread(target=scene.sidecars.settle)
    settling.start()
    settling.join(0.1)
    assert settling.is_alive()
    sidecar.may_start.set()
    settling.join(SECONDS)
    assert not settling.is_alive()
    assert "egress sidecar" not in {thread.name for thread in threading.enumerate()}
    scene.sidecars.close()


def test_one_that_does_not_settle_is_not_waited_for_without_end(
    sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "SETTLE_SECONDS", 0.05)
    scene = Preparations(sidecar)
    sidecar.may_start.clear()
    scene.sidecars.prepare()
    scene.sidecars.settle()
    assert not scene.sidecars._waiting._link.done()  # type: ignore[union-attr]
    sidecar.may_start.set()
    scene.sidecars.close()


def test_a_sidecar_that_never_started_is_removed(sidecar: FakeSidecar) -> None:
    scene = Preparations()
    released: Any = sidecar
    scene.sidecars.release(released)
    assert sidecar.is_removed
