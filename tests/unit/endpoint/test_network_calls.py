"""The calls of the API about networks."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest

from pytest_egress.endpoint.calls import call_of
from pytest_egress.endpoint.network_calls import NetworkCalls
from pytest_egress.endpoint.networks import NetworkMember, Networks
from pytest_egress.endpoint.refusal import RefusedCall


class FakeApi:
    """An engine with its own networks, and one that somebody has made there."""

    def networks(self) -> list[dict[str, Any]]:
        names = ("bridge", "host", "none", "elsewhere")
        own = {"Driver": "bridge", "Scope": "local", "Labels": {}, "Containers": {"x": {}}}
        return [{"Name": name, "Id": f"{name}-id", **own} for name in names]


def captured(name: str) -> str:
    if name != "shop":
        raise RefusedCall(f"{name} was not created through this endpoint")
    return "c1"


@pytest.fixture
def calls() -> NetworkCalls:
    return NetworkCalls(
        networks=Networks(),
        api=FakeApi(),  # type: ignore[arg-type]
        captured=captured,
        members=lambda: [NetworkMember(container="c1", name="shop", address="192.0.2.2")],
    )


def ask(calls: NetworkCalls, method: str, target: str, body: object = None) -> Any:
    call = call_of(method, target)
    _, said = calls.answer(call, call.name, json.dumps(body or {}).encode())
    return json.loads(said) if said else None


def test_a_network_is_made_listed_inspected_and_removed(calls: NetworkCalls) -> None:
    made = ask(calls, "POST", "/networks/create", {"Name": "back", "Labels": {"a": "b"}})
    assert ask(calls, "GET", "/networks/back")["Id"] == made["Id"]
    assert ask(calls, "GET", f"/networks/{made['Id'][:12]}")["Labels"] == {"a": "b"}
    assert [each["Name"] for each in ask(calls, "GET", "/networks")] == [
        "bridge", "host", "none", "back",
    ]  # fmt: skip
    ask(calls, "DELETE", "/networks/back")
    with pytest.raises(RefusedCall, match="network back not found") as refused:
        ask(calls, "GET", "/networks/back")
    assert refused.value.status == HTTPStatus.NOT_FOUND


def test_the_engines_own_networks_are_told_without_members_and_not_changed(
    calls: NetworkCalls,
) -> None:
    assert ask(calls, "GET", "/networks/bridge")["Containers"] == {}
    with pytest.raises(RefusedCall, match="network elsewhere not found"):
        ask(calls, "GET", "/networks/elsewhere")
    with pytest.raises(RefusedCall, match="pre-defined network, which is not changed here"):
        ask(calls, "DELETE", "/networks/host")
    with pytest.raises(RefusedCall, match="pre-defined network"):
        ask(calls, "POST", "/networks/host/connect", {"Container": "shop"})


def test_a_container_is_connected_and_disconnected(calls: NetworkCalls) -> None:
    ask(calls, "POST", "/networks/create", {"Name": "back"})
    to = {"Container": "shop", "EndpointConfig": {"Aliases": ["db"]}}
    ask(calls, "POST", "/networks/back/connect", to)
    (member,) = ask(calls, "GET", "/networks/back")["Containers"].values()
    assert member["Name"] == "shop"
    with pytest.raises(RefusedCall, match="already exists in network back"):
        ask(calls, "POST", "/networks/back/connect", to)
    assert ask(calls, "POST", "/networks/prune") == {"NetworksDeleted": []}
    ask(calls, "POST", "/networks/back/disconnect", {"Container": "shop", "Force": True})
    with pytest.raises(RefusedCall, match="shop is not connected to network back"):
        ask(calls, "POST", "/networks/back/disconnect", {"Container": "shop"})
    assert ask(calls, "POST", "/networks/prune") == {"NetworksDeleted": ["back"]}


def test_a_container_made_elsewhere_is_not_connected(calls: NetworkCalls) -> None:
    ask(calls, "POST", "/networks/create", {"Name": "back"})
    with pytest.raises(RefusedCall, match="was not created through this endpoint"):
        ask(calls, "POST", "/networks/back/connect", {"Container": "other"})
    with pytest.raises(RefusedCall, match="the body names no Container"):
        ask(calls, "POST", "/networks/back/connect", {})
    with pytest.raises(RefusedCall, match="the API writes Container"):
        ask(calls, "POST", "/networks/back/connect", {"container": "shop"})
