"""`VolumeCalls`: the calls of the API about volumes.

The engine makes them, with the labels of the run, so that a watchdog finds them. They are removed with the endpoint.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import docker.errors

from pytest_egress.endpoint.bodies import parsed
from pytest_egress.endpoint.calls import EngineCall
from pytest_egress.endpoint.fields import known, text
from pytest_egress.endpoint.mounts import check_driver, check_engine, check_options, check_volume
from pytest_egress.endpoint.network_calls import said
from pytest_egress.endpoint.networks import NAME, filters_of, named_texts
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.endpoint.veil import theirs
from pytest_egress.traffic.shown import shown

if TYPE_CHECKING:
    from docker import APIClient

VOLUME: Final = frozenset(("Name", "Driver", "DriverOpts", "Labels"))
ONE_VOLUME: Final = "/volumes/*"

VolumeAnswer = tuple[int, bytes]


@dataclass(frozen=True, kw_only=True)
class VolumeCalls:
    """Answers the calls about volumes. Threads: any; no call of the engine is made while the lock is held.

    Attributes:
        address: The engine's, such as `unix:///srv/engine.sock`.
        marks: The labels of the run.
    """

    api: APIClient
    address: str
    marks: Mapping[str, str]
    _made: set[str] = field(default_factory=set, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def answer(self, call: EngineCall, name: str, body: bytes) -> VolumeAnswer:
        """The status and body of a response."""
        acts: Mapping[tuple[str, str], Callable[[EngineCall, str, bytes], VolumeAnswer]] = {
            ("GET", "/volumes"): self._list,
            ("GET", ONE_VOLUME): self._inspect,
            ("POST", "/volumes/create"): self._create,
            ("DELETE", ONE_VOLUME): self._remove,
        }
        return acts[call.row.method, call.row.path](call, name, body)

    def ensure(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The volume that a body of `POST /volumes/create` asks for, made where there is none of its name."""
        found = known(body, VOLUME, "the volume")
        name = text(found.get("Name"), "Name") or secrets.token_hex(32)
        driver, options = text(found.get("Driver"), "Driver"), named_texts(found, "DriverOpts")
        if not NAME.fullmatch(name):
            raise RefusedCall(
                f"the volume name {shown(name)} is refused: write letters, digits, _ . and -"
            )
        check_driver(driver)
        check_options(options)
        self._check_device(options)
        with contextlib.suppress(docker.errors.NotFound):
            there = self.api.inspect_volume(name)
            check_volume(there)
            self._check_device(there.get("Options") or {})
            return dict(there)
        with self._lock:
            self._made.add(name)
        labels = {**named_texts(found, "Labels"), **self.marks}
        return dict(self.api.create_volume(name, driver or None, options or None, labels))

    def _check_device(self, options: Mapping[str, str]) -> None:
        if (device := options.get("device", "")).startswith("/"):
            check_engine([device], self.address)

    def remove_all(self) -> None:
        """Remove the volumes that were made here. One that a container of elsewhere uses stays until the run's end."""
        with self._lock:
            made = [*self._made]
            self._made.clear()
        for name in made:
            with contextlib.suppress(docker.errors.APIError):
                self.api.remove_volume(name)

    def _create(self, _: EngineCall, __: str, body: bytes) -> VolumeAnswer:
        return said(told(self.ensure(parsed(body))), HTTPStatus.CREATED)

    def _list(self, call: EngineCall, _: str, __: bytes) -> VolumeAnswer:
        filters = filters_of(call.query.get("filters", ""))
        found = self.api.volumes(filters=filters)
        return said({**found, "Volumes": [told(each) for each in found.get("Volumes") or ()]})

    def _inspect(self, _: EngineCall, name: str, __: bytes) -> VolumeAnswer:
        return said(told(self.api.inspect_volume(name)))

    def _remove(self, call: EngineCall, name: str, __: bytes) -> VolumeAnswer:
        with self._lock:
            is_made = name in self._made
        if not is_made:
            self.api.inspect_volume(name)  # 404 where there is none
            raise RefusedCall(
                f"the volume {shown(name)} was not made through this endpoint, and is not removed here",
                HTTPStatus.CONFLICT,
            )
        self.api.remove_volume(name, force=call.query.get("force", "") in ("1", "true"))
        with self._lock:
            self._made.discard(name)
        return HTTPStatus.NO_CONTENT, b""


def told(volume: Mapping[str, Any]) -> dict[str, Any]:
    """A volume without our labels."""
    return {**volume, "Labels": theirs(volume.get("Labels"))}
