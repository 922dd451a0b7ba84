"""By which names a container is reached."""

from __future__ import annotations

from pytest_egress.endpoint.networks import NetworkPlace
from pytest_egress.endpoint.peers import names_of


def place(network: str, *aliases: str) -> NetworkPlace:
    return NetworkPlace(network=network, identifier=network * 8, aliases=aliases)


def test_a_container_has_its_names_with_and_without_each_network() -> None:
    identifier = "0123456789abcdef"
    found = names_of(identifier, "Shop-DB-1", "h1", [place("back", "db")])
    short = {"shop-db-1", "db", "h1", "0123456789ab"}
    assert found == short | {f"{name}.back" for name in short}


def test_aliases_of_several_networks_count_together_and_of_none_there_is_no_name() -> None:
    found = names_of("a" * 64, "web", "", [place("front", "www"), place("back", "api")])
    assert {"www", "api", "www.front", "api.back"} <= found
    assert "www.back" not in found
    assert not names_of("a" * 64, "web", "h1", [])
