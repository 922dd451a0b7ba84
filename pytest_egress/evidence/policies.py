"""A lock as the rules of those who enforce them: Kubernetes, Cilium, harden-runner, squid, and a CycloneDX inventory.

Rule: no export allows more than the lock says, as far as its format can tell hosts apart. What a format cannot say is
refused, or told in a comment; it is never left out in silence. Texts are JSON's, which YAML reads as they are.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from typing import Any, Final, NamedTuple

from pytest_egress.evidence.lock import DIALLED, Lock
from pytest_egress.traffic.address import Address, parse_address

SLUG: Final = re.compile(r"[^a-z0-9]+")
KUBE_DNS: Final = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
CILIUM_DNS: Final = {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}


class PolicyError(ValueError):
    """A format cannot say what a line of the lock says."""


class Endpoint(NamedTuple):
    """A destination of an image."""

    image: str
    kind: str
    address: Address

    @property
    def host(self) -> str:
        return self.address.host

    @property
    def port(self) -> int | None:
        return self.address.port

    @property
    def protocol(self) -> str:
        return "UDP" if self.kind == "udp" else "TCP"

    def __str__(self) -> str:
        return f"{self.kind} {self.address}"


def endpoints(lock: Lock, image: str) -> list[Endpoint]:
    """What an image reaches, in the order of the file."""
    return [
        Endpoint(image, line.kind, parse_address(line.where, default_port=None))
        for line in sorted(lock.lines)
        if line.image == image and line.kind in DIALLED
    ]


def images_of(lock: Lock) -> list[str]:
    return sorted({line.image for line in lock.lines})


def slug(image: str) -> str:
    """A name of Kubernetes (RFC 1123): at most 63 characters."""
    return SLUG.sub("-", image.lower())[:50].strip("-") or "image"


def slugs_of(lock: Lock) -> dict[str, str]:
    """Names of images: of two that would have the same, the second has a number."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for image in images_of(lock):
        name = slug(image)
        numbered = (f"{name}-{number}" for number in count(2))
        found[image] = next(each for each in chain([name], numbered) if each not in taken)
        taken.add(found[image])
    return found


# Kubernetes.


def network_policies(lock: Lock) -> str:
    """A NetworkPolicy for each image (`networking.k8s.io/v1`). It knows no names: of those it allows the port alone."""
    texts = []
    for image, name in slugs_of(lock).items():
        found = endpoints(lock, image)
        named = [str(each) for each in found if not each.address.networks]
        comment = [
            f"# {image}: a NetworkPolicy knows addresses and no names. Of these it allows the port, to any address:",
            *(f"#   {each}" for each in named),
            "# --format=cilium allows them by name.",
        ]
        body = manifest(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            name,
            {
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": name}},
                "policyTypes": ["Egress"],
                "egress": [*dns_of_kubernetes(found), *rules_of_kubernetes(found)],
            },
        )
        texts.append("\n".join([*(comment if named else []), body]))
    return "---\n".join(texts)


def dns_of_kubernetes(found: Iterable[Endpoint]) -> Iterator[dict[str, Any]]:
    if any(not each.address.networks for each in found):
        ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
        yield {"to": [KUBE_DNS], "ports": ports}


def rules_of_kubernetes(found: Iterable[Endpoint]) -> list[dict[str, Any]]:
    """A rule without `to` and `ports` would allow everything: none is ever made."""
    rules: list[dict[str, Any]] = []
    for each in found:
        networks = () if each.host == "*" else each.address.networks
        if each.port is None and not any(network.prefixlen for network in networks):
            raise PolicyError(
                f"{each} of {each.image}: to a NetworkPolicy that is every port of every address; "
                "name the port in the lock, or take --format=cilium"
            )
        rule: dict[str, Any] = {}
        if networks:
            rule["to"] = [{"ipBlock": {"cidr": str(network)}} for network in networks]
        if each.port is not None:
            rule["ports"] = [{"protocol": each.protocol, "port": each.port}]
        if rule not in rules:
            rules.append(rule)
    return rules


# Cilium.


def cilium_policies(lock: Lock) -> str:
    """A CiliumNetworkPolicy for each image (`cilium.io/v2`), by name. Its `*` stands for one label alone."""
    return "---\n".join(
        manifest(
            "cilium.io/v2",
            "CiliumNetworkPolicy",
            name,
            {
                "endpointSelector": {"matchLabels": {"app.kubernetes.io/name": name}},
                **rules_of_cilium(endpoints(lock, image)),
            },
        )
        for image, name in slugs_of(lock).items()
    )


def rules_of_cilium(found: list[Endpoint]) -> dict[str, Any]:
    if not found:  # an empty list would mean that nothing is enforced
        return {"egressDeny": [{"toEntities": ["all"]}]}
    egress: list[dict[str, Any]] = []
    if any(not each.address.networks for each in found):
        every_name = [{"matchPattern": "*"}]  # Cilium learns addresses from the answers
        port = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": every_name}}
        egress.append({"toEndpoints": [{"matchLabels": CILIUM_DNS}], "toPorts": [port]})
    for each in found:
        networks = each.address.networks
        names = {"matchPattern" if "*" in each.host else "matchName": each.host}
        rule: dict[str, Any] = (
            {"toCIDR": [str(network) for network in networks]} if networks else {"toFQDNs": [names]}
        )
        if each.port is not None:
            ports = [{"port": str(each.port), "protocol": each.protocol}]
            rule["toPorts"] = [{"ports": ports}]
        egress.append(rule)
    return {"egress": egress}


def manifest(version: str, kind: str, name: str, spec: dict[str, Any]) -> str:
    metadata = {"name": f"{name}-egress"}
    whole = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
    return f"{yaml_of(whole)}\n"


def yaml_of(value: Any, indent: str = "") -> str:
    """A value as YAML in blocks; texts and numbers are JSON's."""
    if isinstance(value, dict) and value:
        return "\n".join(
            f"{indent}{key}:{nested(each, indent + '  ')}" for key, each in value.items()
        )
    if isinstance(value, list) and value:
        return "\n".join(f"{indent}- {yaml_of(each, indent + '  ').lstrip()}" for each in value)
    return f"{indent}{json.dumps(value)}"


def nested(value: Any, indent: str) -> str:
    is_block = isinstance(value, (dict, list)) and value
    return f"\n{yaml_of(value, indent)}" if is_block else f" {json.dumps(value)}"


# harden-runner.


def harden_runner(lock: Lock) -> str:
    """A step for GitHub Actions. It allows hosts for a whole job, so that it has those of all images."""
    found = [each for image in images_of(lock) for each in endpoints(lock, image)]
    lines = ["- uses: step-security/harden-runner@v2", "  with:", "    egress-policy: block"]
    lines += [
        f"    # {each} of {each.image}: it allows TCP alone" for each in found if each.kind == "udp"
    ]
    allowed = list(dict.fromkeys(allowed_endpoint(each) for each in found if each.kind != "udp"))
    lines.append("    allowed-endpoints: >" if allowed else '    allowed-endpoints: ""')
    return "\n".join([*lines, *(f"      {each}" for each in allowed), ""])


def allowed_endpoint(each: Endpoint) -> str:
    has_glob = "*" in each.host.removeprefix("*.")
    if each.port is None or has_glob or "/" in each.host or ":" in each.host:
        raise PolicyError(
            f"{each} of {each.image}: harden-runner takes names, *.names and IPv4 addresses, each with a port"
        )
    return f"{each.host}:{each.port}"


# squid.


def squid(lock: Lock) -> str:
    """Rules for `squid.conf`, for all images that share the proxy. It carries HTTP, and tunnels by CONNECT."""
    lines = ["# Of egress.lock. Other rules of http_access come after these, or not at all."]
    for image, name in slugs_of(lock).items():
        for number, each in enumerate(endpoints(lock, image), 1):
            lines += ["", f"# {image}: {each}", *rules_of_squid(each, f"{name}-{number}")]
    return "\n".join([*lines, "", "http_access deny all", ""])


def rules_of_squid(each: Endpoint, name: str) -> Iterator[str]:
    if each.kind == "udp":
        yield "# squid carries no UDP"
        return
    networks, where = each.address.networks, f"{name}-to"
    if each.host == "*":
        where = "all"
    elif networks:
        yield f"acl {where} dst -n {' '.join(map(str, networks))}"
    elif "*" in each.host:
        pattern = ".*".join(map(re.escape, each.host.split("*"))).replace("\\-", "-")
        pattern = f"^{pattern}$".removeprefix("^.*").removesuffix(".*$")
        yield f"acl {where} dstdom_regex -n -i {pattern}"
    else:
        yield f"acl {where} dstdomain -n {each.host}"
    if each.port is not None:
        yield f"acl {name}-port port {each.port}"
        where = f"{where} {name}-port"
    yield f"http_access allow {'!CONNECT' if each.kind == 'http' else 'CONNECT'} {where}"


# CycloneDX.


def cyclonedx(lock: Lock) -> str:
    """The services that images use, as a bill of materials (CycloneDX 1.6): each is beyond a boundary of trust."""
    services: dict[str, dict[str, Any]] = {}
    components, depends = [], []
    for image in images_of(lock):
        found = endpoints(lock, image)
        components.append({"type": "container", "bom-ref": f"image:{image}", "name": image})
        refs = list(dict.fromkeys(f"service:{each.host}" for each in found))
        depends.append({"ref": f"image:{image}", "dependsOn": refs})
        for each in found:
            new = {
                "bom-ref": f"service:{each.host}",
                "name": each.host,
                "endpoints": [],
                "x-trust-boundary": True,
            }
            listed = services.setdefault(each.host, new)["endpoints"]
            if (url := url_of(each)) not in listed:
                listed.append(url)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": components,
        "services": [services[name] for name in sorted(services)],
        "dependencies": depends,
    }
    return f"{json.dumps(bom, indent=2)}\n"


def url_of(each: Endpoint) -> str:
    """With all groups of an IPv6 address: the schema's own checker knows no `::`."""
    host = each.host
    if ":" in host and "/" not in host:
        groups = ipaddress.IPv6Address(host).exploded.split(":")
        host = f"[{':'.join(f'{int(group, 16):x}' for group in groups)}]"
    return f"{each.kind}://{host}" if each.port is None else f"{each.kind}://{host}:{each.port}"


FORMATS: Final[dict[str, Callable[[Lock], str]]] = {
    "networkpolicy": network_policies,
    "cilium": cilium_policies,
    "harden-runner": harden_runner,
    "squid": squid,
    "cyclonedx": cyclonedx,
}
"""What `pytest-egress lock export` writes."""
