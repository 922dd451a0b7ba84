"""A lock as the rules of those who enforce them, read back by what reads them."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pytest_egress.evidence.lock import Lock
from pytest_egress.evidence.policies import (
    FORMATS,
    PolicyError,
    cilium_policies,
    cyclonedx,
    harden_runner,
    network_policies,
    squid,
)

LOCK = Lock.read("""
["acme/shop"]
https = ["api.stripe.com:443", "*.s3.amazonaws.com:443"]
http = ["mirror.test:80"]
tcp = ["203.0.113.0/24:25", "db.internal:5432"]
udp = ["api.stripe.com:443"]
blocked = ["telemetry.vendor.test:443"]
names = ["metrics.internal"]
["acme/quiet"]
blocked = ["telemetry.vendor.test:443"]
""")
EVERYTHING = Lock.read('[shop]\nhttps = ["api.test:*"]\n')


def manifests(text: str) -> dict[str, Any]:
    return {each["metadata"]["name"]: each for each in yaml.safe_load_all(text)}


def allows(policy: dict[str, Any], address: str, protocol: str, port: int) -> bool:
    """What the API's reference says of egress rules: those of `to` and `ports` that are missing match everything."""
    return any(
        ("to" not in rule or any(block_has(peer, address) for peer in rule["to"]))
        and ("ports" not in rule or {"protocol": protocol, "port": port} in rule["ports"])
        for rule in policy["spec"]["egress"]
    )


def block_has(peer: dict[str, Any], address: str) -> bool:
    block = peer.get("ipBlock")
    return block is not None and ipaddress.ip_address(address) in ipaddress.ip_network(
        block["cidr"]
    )


def test_network_policies_are_those_of_the_api() -> None:
    for policy in manifests(network_policies(LOCK)).values():
        kubernetes_validate.validate(policy, "1.30", strict=True)
        assert policy["spec"]["policyTypes"] == ["Egress"]


def test_a_network_policy_allows_networks_and_of_names_the_port() -> None:
    policy = manifests(network_policies(LOCK))["acme-shop-egress"]
    assert allows(policy, "203.0.113.9", "TCP", 25)
    assert not allows(policy, "198.51.100.1", "TCP", 25)
    assert allows(policy, "198.51.100.1", "TCP", 443)
    assert allows(policy, "198.51.100.1", "UDP", 443)
    assert not allows(policy, "198.51.100.1", "UDP", 5432)
    assert not allows(policy, "198.51.100.1", "TCP", 22)
    assert "#   https *.s3.amazonaws.com:443" in network_policies(LOCK)


def test_no_network_policy_has_the_rule_that_allows_everything() -> None:
    quiet = manifests(network_policies(LOCK))["acme-quiet-egress"]
    assert quiet["spec"]["egress"] == []
    assert not allows(quiet, "198.51.100.1", "TCP", 443)
    for host in ("api.test:*", "*:*", "0.0.0.0/0:*"):
        with pytest.raises(PolicyError, match="every port of every address; name the port"):
            network_policies(Lock.read(f'[shop]\ntcp = ["{host}"]\n'))
    every = manifests(network_policies(Lock.read('[shop]\ntcp = ["0.0.0.0/0:25", "*:26"]\n')))
    assert not allows(every["shop-egress"], "2001:db8::7", "TCP", 25)
    assert allows(every["shop-egress"], "2001:db8::7", "TCP", 26)


def test_images_that_would_have_one_name_have_two() -> None:
    lock = Lock.read('["a/b"]\ntcp = ["x.test:1"]\n[a-b]\ntcp = ["y.test:2"]\n')
    for export in (network_policies, cilium_policies):
        assert {*manifests(export(lock))} == {"a-b-egress", "a-b-2-egress"}


def test_no_name_that_has_got_a_number_is_that_of_another_image() -> None:
    """Two policies of one name select the same pods, which then may reach what either may."""
    text = "".join(f'["{name}"]\ntcp = ["x.test:1"]\n' for name in ("a-b", "a-b-2", "a/b", "a.b"))
    assert len(manifests(network_policies(Lock.read(text)))) == 4


def test_cilium_allows_by_name_and_denies_an_image_that_reaches_nothing() -> None:
    found = manifests(cilium_policies(LOCK))
    dns, *rules = found["acme-shop-egress"]["spec"]["egress"]
    assert dns["toPorts"][0]["rules"] == {"dns": [{"matchPattern": "*"}]}
    told = [
        ({**rule, "toPorts": 0}, rule["toPorts"][0]["ports"][0]["port"], protocol_of(rule))
        for rule in rules
    ]
    assert ({"toFQDNs": [{"matchName": "api.stripe.com"}], "toPorts": 0}, "443", "TCP") in told
    assert ({"toFQDNs": [{"matchName": "api.stripe.com"}], "toPorts": 0}, "443", "UDP") in told
    every_bucket = {"toFQDNs": [{"matchPattern": "*.s3.amazonaws.com"}], "toPorts": 0}
    assert (every_bucket, "443", "TCP") in told
    assert ({"toCIDR": ["203.0.113.0/24"], "toPorts": 0}, "25", "TCP") in told
    assert len(rules) == 6
    quiet = found["acme-quiet-egress"]["spec"]
    assert quiet["egressDeny"] == [{"toEntities": ["all"]}]
    assert "egress" not in quiet


def protocol_of(rule: dict[str, Any]) -> str:
    protocol: str = rule["toPorts"][0]["ports"][0]["protocol"]
    return protocol


def test_harden_runner_gets_each_host_once_with_its_port() -> None:
    lock = Lock.read("""
[a]
https = ["api.stripe.com:443", "*.s3.amazonaws.com:443"]
udp = ["api.stripe.com:443", "quic.test:443"]
[b]
https = ["api.stripe.com:443"]
tcp = ["db.internal:5432"]
""")
    (step,) = yaml.safe_load(harden_runner(lock))
    assert step["uses"].startswith("step-security/harden-runner@")
    assert step["with"]["egress-policy"] == "block"
    assert step["with"]["allowed-endpoints"].split() == [
        "*.s3.amazonaws.com:443",
        "api.stripe.com:443",
        "db.internal:5432",
    ]
    assert "# udp quic.test:443 of a: it allows TCP alone" in harden_runner(lock)


def test_harden_runner_is_refused_what_it_does_not_take() -> None:
    with pytest.raises(PolicyError, match="of acme/shop: harden-runner takes"):
        harden_runner(LOCK)
    for glob in ("*x.test:443", "a*.x.test:443", "*.*.x.test:443", "*:443"):
        with pytest.raises(PolicyError, match="of a: harden-runner takes"):
            harden_runner(Lock.read(f'[a]\nhttps = ["{glob}"]\n'))
    (step,) = yaml.safe_load(harden_runner(Lock()))
    assert step["with"]["allowed-endpoints"] == ""


def test_squid_allows_requests_and_tunnels_and_denies_the_rest() -> None:
    lines = squid(LOCK).splitlines()
    assert lines[-1] == "http_access deny all"
    assert "acl acme-shop-1-to dstdomain -n mirror.test" in lines
    assert "http_access allow !CONNECT acme-shop-1-to acme-shop-1-port" in lines
    (pattern,) = (line.split()[-1] for line in lines if "dstdom_regex" in line)
    assert re.search(pattern, "one.s3.amazonaws.com")
    assert not re.search(pattern, "s3.amazonaws.com.evil.test")
    assert not re.search(pattern, "ones3xamazonaws.com")
    assert not any("telemetry" in line or "metrics" in line for line in lines)


def test_the_inventory_is_a_bom_of_cyclonedx() -> None:
    addresses = Lock.read(
        '[a]\ntcp = ["[2001:db8::7]:9", "[2001:db8::7]:*", "203.0.113.7:*", "*:1"]\n'
    )
    for lock in (LOCK, addresses, Lock()):
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(cyclonedx(lock)) is None
    bom = json.loads(cyclonedx(LOCK))
    services = {each["name"]: each for each in bom["services"]}
    assert services["api.stripe.com"]["endpoints"] == [
        "https://api.stripe.com:443",
        "udp://api.stripe.com:443",
    ]
    assert all(each["x-trust-boundary"] for each in services.values())
    assert [each["name"] for each in bom["components"]] == ["acme/quiet", "acme/shop"]


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_lock_has_an_export(name: str) -> None:
    assert isinstance(FORMATS[name](Lock()), str)
