"""The calls of the API about volumes."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import docker.errors
import pytest

from pytest_egress.endpoint.calls import call_of
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.endpoint.volume_calls import VolumeCalls
from pytest_egress.engine.leftovers import SESSION_LABEL


class FakeVolumes:
    """An engine with one volume of somebody else."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {
            "theirs": {"Name": "theirs", "Driver": "local", "Labels": None}
        }

    def inspect_volume(self, name: str) -> dict[str, Any]:
        if name not in self.there:
            raise docker.errors.NotFound(f"get {name}: no such volume")
        return self.there[name]

    def create_volume(self, name: str, driver: Any, options: Any, labels: Any) -> dict[str, Any]:
        made = {"Name": name, "Driver": driver or "local", "Options": options, "Labels": labels}
        self.there[name] = made
        return made

    def volumes(self, filters: object) -> dict[str, Any]:
        return {"Volumes": [*self.there.values()] or None, "Warnings": None}

    def remove_volume(self, name: str, force: bool = False) -> None:
        del self.there[name]


@pytest.fixture
def api() -> FakeVolumes:
    return FakeVolumes()


@pytest.fixture
def calls(api: FakeVolumes) -> VolumeCalls:
    return made(api, "unix:///srv/engine/engine.sock")


def made(api: FakeVolumes, address: str) -> VolumeCalls:
    return VolumeCalls(api=api, address=address, marks={SESSION_LABEL: "s"})  # type: ignore[arg-type]


def ask(calls: VolumeCalls, method: str, target: str, body: object = None) -> Any:
    call = call_of(method, target)
    _, said = calls.answer(call, call.name, json.dumps(body or {}).encode())
    return json.loads(said) if said else None


def test_a_volume_is_made_with_our_label_and_told_without(
    calls: VolumeCalls, api: FakeVolumes
) -> None:
    made = ask(calls, "POST", "/volumes/create", {"Name": "data", "Labels": {"a": "b"}})
    assert (made["Name"], made["Labels"]) == ("data", {"a": "b"})
    assert api.there["data"]["Labels"] == {"a": "b", SESSION_LABEL: "s"}
    assert ask(calls, "GET", "/volumes/data") == made
    assert [each["Labels"] for each in ask(calls, "GET", "/volumes")["Volumes"]] == [{}, {"a": "b"}]
    ask(calls, "DELETE", "/volumes/data?force=1")
    assert [*api.there] == ["theirs"]


def test_one_without_a_name_gets_one(calls: VolumeCalls) -> None:
    assert ask(calls, "POST", "/volumes/create")["Name"]


def test_what_was_made_is_removed_at_the_end_and_nothing_else(
    calls: VolumeCalls, api: FakeVolumes
) -> None:
    calls.ensure({"Name": "data"})
    assert calls.ensure({"Name": "theirs"})["Name"] == "theirs"
    with pytest.raises(RefusedCall, match="'theirs' was not made through this endpoint") as refused:
        ask(calls, "DELETE", "/volumes/theirs")
    assert refused.value.status == HTTPStatus.CONFLICT
    with pytest.raises(docker.errors.NotFound):
        ask(calls, "DELETE", "/volumes/nobodys")
    calls.remove_all()
    assert [*api.there] == ["theirs"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"Name": "../data"}, "the volume name '../data' is refused"),
        ({"Driver": "sshfs"}, "the volume driver 'sshfs' is refused"),
        ({"DriverOpts": {"type": "nfs"}}, "the volume of type 'nfs' is refused"),
        ({"DriverOpts": {"device": "/run/docker.sock"}}, "would not be captured"),
        ({"ClusterVolumeSpec": {"Group": "a"}}, "has the key 'ClusterVolumeSpec'"),
        ({"Labels": {"a": 1}}, "Labels has texts alone"),
    ],
)
def test_a_way_out_is_refused(calls: VolumeCalls, api: FakeVolumes, body: Any, text: str) -> None:
    with pytest.raises(RefusedCall, match=text):
        ask(calls, "POST", "/volumes/create", {"Name": "data", **body})
    assert [*api.there] == ["theirs"]


def test_one_that_is_there_may_not_lead_out(calls: VolumeCalls, api: FakeVolumes) -> None:
    api.there["theirs"]["Options"] = {"type": "nfs"}
    with pytest.raises(RefusedCall, match="of type 'nfs' is refused"):
        calls.ensure({"Name": "theirs"})


def test_no_volume_leads_to_the_socket_of_the_engine(calls: VolumeCalls, api: FakeVolumes) -> None:
    options = {"type": "none", "o": "bind", "device": "/srv/engine"}
    with pytest.raises(RefusedCall, match="would not be captured"):
        ask(calls, "POST", "/volumes/create", {"Name": "own", "DriverOpts": options})
    assert "own" not in api.there
    api.create_volume("before", "local", options, None)
    with pytest.raises(RefusedCall, match="would not be captured"):
        calls.ensure({"Name": "before"})


def test_a_folder_of_another_machine_is_no_socket_of_this_one(api: FakeVolumes) -> None:
    options = {"type": "none", "o": "bind", "device": "/srv/engine"}
    found = made(api, "ssh://engine.test").ensure({"Name": "own", "DriverOpts": options})
    assert found["Options"] == options
