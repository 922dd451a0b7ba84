"""Networks that tools make, as they are kept and told."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from pytest_egress.endpoint.networks import (
    MAX_NETWORKS,
    NetworkMember,
    NetworkPlace,
    Networks,
    aliases_of,
    filters_of,
    inspected_network,
    is_meant,
    network_of,
)
from pytest_egress.endpoint.refusal import RefusedCall


def test_a_network_is_found_by_name_and_by_what_begins_its_identifier() -> None:
    networks = Networks()
    back, front = networks.create({"Name": "back"}), networks.create({"Name": "front"})
    assert networks.all() == [back, front]
    assert networks.find("back") is networks.find(back.identifier) is back
    assert networks.find(front.identifier[:40]) is front
    assert networks.find("") is networks.find("bac") is None
    with pytest.raises(RefusedCall, match="network with name back already exists") as refused:
        networks.create({"Name": "back"})
    assert refused.value.status == HTTPStatus.CONFLICT


def test_containers_of_one_network_are_mates_by_the_networks_that_they_share() -> None:
    networks = Networks()
    made = [networks.create({"Name": name}) for name in ("back", "front")]
    back, front = [NetworkPlace(network=n.name, identifier=n.identifier) for n in made]
    bridge = NetworkPlace(network="bridge", identifier="b")  # the engine's, which gives no names
    networks.join("db", [back, bridge])
    networks.join("app", [back, front, bridge])
    networks.join("web", [front, bridge])
    networks.join("alone", [bridge])
    assert networks.mates("web") == {"web": [front], "app": [front]}
    assert networks.mates("app") == {"db": [back], "app": [back, front], "web": [front]}
    assert networks.mates("alone") == networks.mates("nobody") == {}
    networks.leave("app", back.identifier)
    assert networks.mates("db") == {"db": [back]}


def test_there_are_so_many_networks() -> None:
    networks = Networks()
    for number in range(MAX_NETWORKS):
        networks.create({"Name": f"n{number}"})
    with pytest.raises(RefusedCall, match=f"more than {MAX_NETWORKS} networks"):
        networks.create({"Name": "one-more"})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "the network name '' is refused"),
        ({"Name": "a/b"}, "the network name 'a/b' is refused"),
        ({"Name": "host"}, "predefined host network"),
        ({"Name": "a", "Driver": "macvlan"}, "the network driver 'macvlan' is refused"),
        ({"Name": "a", "driver": "macvlan"}, "the API writes Driver"),
        ({"Name": "a", "ConfigFrom": {"Network": "x"}}, "ConfigFrom is refused"),
        ({"Name": "a", "Labels": {"a": 1}}, "Labels has texts alone"),
        ({"Name": "a", "IPAM": []}, "IPAM is no"),
    ],
)
def test_another_network_is_refused(body: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedCall) as refused:
        network_of(body)
    assert text in str(refused.value)


def test_fixed_addresses_and_links_are_refused() -> None:
    assert aliases_of("back", None) == ()
    assert aliases_of("back", {"Aliases": ["db"], "NetworkID": "n", "IPAMConfig": {}}) == ("db",)
    for end in ({"IPAMConfig": {"IPv4Address": "10.0.0.2"}}, {"Links": ["a:b"]}):
        with pytest.raises(
            RefusedCall, match="reach each other by their names and aliases alone here"
        ):
            aliases_of("back", end)
    for other in ({"Aliases": "db"}, {"aliases": ["db"]}, "db"):
        with pytest.raises(RefusedCall):
            aliases_of("back", other)


def test_a_network_with_a_container_that_runs_stays() -> None:
    networks = Networks()
    back = networks.create({"Name": "back"})
    place = NetworkPlace(network="back", identifier=back.identifier)
    networks.join("c1", [place])
    assert networks.places("c1") == [place]
    with pytest.raises(RefusedCall, match="has active endpoints"):
        networks.remove(back, ["c0", "c1"])
    networks.remove(back, ["c0"])
    assert not networks.all()
    assert not networks.places("c1")
    networks.join("c1", [place])
    assert networks.leave("c1", back.identifier)
    assert not networks.leave("c1", back.identifier)
    networks.join("c1", [place])
    networks.forget("c1")
    assert networks.places("c1") == []


def test_filters_have_two_forms_and_each_has_to_fit() -> None:
    labels = {"project": "shop", "kind": ""}
    told = inspected_network(
        network_of({"Name": "shop_back", "Labels": labels}),
        [NetworkMember(container="c1", name="db", address="192.0.2.2")],
    )
    assert told["Containers"]["c1"]["IPv4Address"] == "192.0.2.2/32"
    used = {told["Id"]}
    for fitting in (
        "",
        '{"name": {"back": true}, "driver": ["bridge"]}',
        '{"label": ["project=shop", "kind"]}',
        '{"type": ["custom"], "dangling": ["0"]}'.replace("0", "false"),
        f'{{"id": ["{told["Id"][:12]}"], "scope": ["local"]}}',
    ):
        assert is_meant(told, filters_of(fitting), used), fitting
    for other in (
        '{"name": {"front": true}}',
        '{"label": ["project=other"]}',
        '{"dangling": ["1"]}',
        '{"type": ["builtin"]}',
    ):
        assert not is_meant(told, filters_of(other), used), other
    for bad in ("[]", '{"name": "a"}', '{"other": ["a"]}'):
        with pytest.raises(RefusedCall):
            is_meant(told, filters_of(bad), used)
