"""What of a body is passed on, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.endpoint import bodies
from pytest_egress.endpoint.refusal import RefusedCall

# As the docker command 26.1 sends it.
COMMAND: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": True, "AttachStderr": True,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": ["A=b=c", "GONE"], "Cmd": ["true"], "Image": "shop",
    "Volumes": {}, "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {},
    "HostConfig": {
        "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
        "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": True,
        "ConsoleSize": [0, 0], "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": ["db.test:2001:db8::1"],
        "IpcMode": "", "Cgroup": "", "Links": None, "PidMode": "", "Privileged": False, "PublishAllPorts": False,
        "ReadonlyRootfs": False, "UTSMode": "", "MemorySwappiness": -1, "Devices": [], "MaskedPaths": None,
    },
    "NetworkingConfig": {"EndpointsConfig": {"default": {"IPAMConfig": None, "Aliases": None, "MacAddress": ""}}},
}  # fmt: skip


def asked(**changes: Any) -> bodies.AskedContainer:
    return bodies.asked(json.dumps({**COMMAND, **changes}).encode())


def of_host(**changes: Any) -> bodies.AskedContainer:
    return asked(HostConfig={**COMMAND["HostConfig"], **changes})


def test_what_the_docker_command_sends_is_made_anew() -> None:
    found = asked()
    assert (found.image, found.env, found.network) == ("shop", {"A": "b=c"}, "")
    assert found.extra_hosts == {"db.test": "2001:db8::1"}
    config = found.config
    assert config["Cmd"] == ["true"]
    assert config["HostConfig"]["AutoRemove"] is True
    unknown = {"NetworkMode", "PortBindings", "Dns", "Links", "Privileged", "ExtraHosts", "UTSMode"}
    assert unknown.isdisjoint(config["HostConfig"])
    assert {"NetworkingConfig", "Hostname", "ExposedPorts"}.isdisjoint(config)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"NetworkMode": "host"}, "the network 'host' is refused: it would give the target a way"),
        ({"NetworkMode": "container:db"}, "the network 'container:db' is refused"),
        ({"NetworkMode": ["host"]}, "NetworkMode is no"),
        ({"networkmode": "host"}, "HostConfig has the key 'networkmode', which is not known here"),
        ({"Privileged": True}, "Privileged=True is refused: a privileged target can leave"),
        ({"privileged": True}, "the API writes Privileged"),
        ({"PidMode": "host"}, "PidMode='host' is refused"),
        ({"IpcMode": "host"}, "IpcMode='host' is refused"),
        ({"UTSMode": "host"}, "UTSMode='host' is refused"),
        ({"PidMode": "ns:/proc/1/ns/pid"}, "PidMode='ns:/proc/1/ns/pid' is refused"),
        ({"PortBindings": {"80/udp": [{"HostPort": "80"}]}}, "publishes ports of TCP alone"),
        ({"PublishAllPorts": 1}, "PublishAllPorts is no 1"),
        ({"Links": ["db"]}, "name the other container in a route instead"),
        ({"Dns": ["192.0.2.1"]}, "every name resolves"),
        ({"ReadonlyRootfs": True}, "a root that is read-only"),
        ({"DeviceCgroupRules": ["a *:* rwm"]}, "the key 'DeviceCgroupRules', which is not known"),
        ({"Devices": [{"pathonhost": "/dev/null"}]}, "the API writes PathOnHost"),
        ({"Binds": ["/var/run/docker.sock:/s"]}, "would not be captured"),
        ({"MaskedPaths": []}, "MaskedPaths (--security-opt systempaths=...) is refused"),
        ({"ReadonlyPaths": []}, "ReadonlyPaths (--security-opt systempaths=...) is refused"),
        (
            {"CapAdd": ["NET_RAW", "SYS_ADMIN"]},
            "CapAdd=['SYS_ADMIN'] is refused: with it a target can run",
        ),
        ({"CapAdd": "ALL"}, "CapAdd=['ALL'] is refused"),
        (
            {"SecurityOpt": ["systempaths=unconfined"]},
            "SecurityOpt=['systempaths=unconfined'] is refused",
        ),
        ({"VolumesFrom": [1]}, "VolumesFrom is a list of texts"),
        (
            {"LogConfig": {"Type": "syslog"}},
            "the log driver 'syslog' is refused: the engine would send",
        ),
        (
            {"LogConfig": {"type": "syslog"}},
            "LogConfig has the key 'type', which is not known here: the API writes Type",
        ),
        ({"ExtraHosts": ["db"]}, "'db' in ExtraHosts: write name:address"),
    ],
)
def test_what_could_leave_its_sidecar_is_refused_by_name(
    changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(RefusedCall) as refused:
        of_host(**changes)
    assert text in str(refused.value)


def test_no_network_stays_none() -> None:
    assert of_host(NetworkMode="none").network == "none"


@pytest.mark.parametrize(
    "body",
    [
        b'{"Image": "shop", "HostConfig": {}, "HostConfig": {"NetworkMode": "host"}}',
        b'{"Image": "shop", "hostconfig": {"NetworkMode": "host"}}',
        '{"Image": "shop", "Ho\u017ftConfig": {"NetworkMode": "host"}}'.encode(),
        b'{"Image": "shop"} {"HostConfig": {"NetworkMode": "host"}}',
        b'{"Image": "shop", "StopTimeout": NaN}',
        b'{"Image": "shop", "NetworkingConfig": {"EndpointsConfig": {"host": {}}}}',
        b'{"Image": "shop", "NetworkingConfig": {"EndpointsConfig": {"back": {"Links": ["a"]}}}}',
        b'{"Image": "shop", "NetworkingConfig": {"EndpointsConfig": {"back": {"aliases": ["a"]}}}}',
        b'{"Image": "shop", "HostConfig": {"NetworkMode": "none"}, "NetworkingConfig": {"EndpointsConfig": {"a": {}}}}',
        b'{"Image": "shop", "HostConfig": {"NetworkMode": "ns:/proc/1/ns/net"}}',
        b'{"Image": "shop", "NetworkingConfig": {"endpointsconfig": {"back": {"a": 1}}}}',
        b'{"Image": "shop", "NetworkingConfig": {"EndpointsConfig": {"default": {"Aliases": ["a"]}}}}',
        b'{"Image": "../containers/db"}',
        b'{"Image": "shop/../../containers/db"}',
        b'{"Image": "shop/json?a=b"}',
        b'{"Image": "shop", "Hostname": "a b"}',
        b'{"Image": "shop", "Hostname": "a\\n192.0.2.1 api.test"}',
        b"{}",
        b"[]",
        b"\xff",
        b'{"a":' * 100_000,
    ],
)
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(RefusedCall):
        bodies.asked(body)


@pytest.mark.parametrize(
    "image",
    [
        "shop",
        "acme/shop:1.2",
        "registry.test:5000/acme/shop__a:1.2@sha256:0f1e",
        "sha256:0f1e2d",
        "pytest-egress-test/java-home:latest",
    ],
)
def test_an_image_is_a_name_or_an_identifier(image: str) -> None:
    assert asked(Image=image).image == image


def test_networks_are_asked_for_by_name() -> None:
    found = of_host(NetworkMode="back")
    assert (found.network, found.network_mode, found.aliases) == ("", "back", {"back": ()})
    ends = {"back": {"Aliases": ["db"], "IPAMConfig": None}, "front": None}
    found = asked(HostConfig={"NetworkMode": "back"}, NetworkingConfig={"EndpointsConfig": ends})
    assert found.aliases == {"back": ("db",), "front": ()}
    assert "NetworkMode" not in found.config["HostConfig"]


KEYS = st.sampled_from(["NetworkMode", "Privileged", "PidMode", "PortBindings", "Image", "Links"])


@given(KEYS, st.data(), st.sampled_from(["host", True, ["x"], {"a": ["b"]}]))
def test_a_key_in_another_case_is_refused(key: str, data: st.DataObject, value: object) -> None:
    flips = data.draw(st.lists(st.booleans(), min_size=len(key), max_size=len(key)).filter(any))
    other = "".join(c.swapcase() if flip else c for c, flip in zip(key, flips, strict=True))
    with pytest.raises(RefusedCall):
        of_host(**{other: value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*COMMAND, "x"]), JSON))
def test_any_body_is_made_anew_or_refused(changes: dict[str, Any]) -> None:
    try:
        found = asked(**changes)
    except RefusedCall:
        return
    assert found.config.keys() <= {*bodies.CONFIG, "HostConfig"}
    assert found.config["HostConfig"].keys() <= bodies.HOST


def test_a_command_is_made_anew() -> None:
    body = {"Cmd": ["ls"], "Tty": True, "Privileged": False, "Detach": False, "Container": "a"}
    assert bodies.command(json.dumps(body).encode()) == {"Cmd": ["ls"], "Tty": True}
    with pytest.raises(RefusedCall, match="a privileged command can leave its namespace"):
        bodies.command(b'{"Cmd": ["ls"], "Privileged": true}')
    with pytest.raises(RefusedCall):
        bodies.command(b'{"Cmd": ["ls"], "privileged": true}')
    assert bodies.start(b"") == {}
    assert bodies.start(b'{"Detach": true, "Tty": false}') == {"Detach": True, "Tty": False}
