"""Published ports: which a container asks for, and the listeners of this process on loopback that lead to them."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

from pytest_egress.endpoint.fields import items, known, take, text
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.targets.ingress import LOOPBACK, Ingress
from pytest_egress.traffic.shown import shown

MAX_PORTS: Final = 128  # of one container; each has a thread
MAX_PORT: Final = 65535
BINDING: Final = ("HostIp", "HostPort")
PORT: Final = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?", re.ASCII)
NUMBERS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
ANY_ADDRESS: Final = ("", "0.0.0.0", "::")

PortsByName = dict[str, list[dict[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Binding:
    """Where one port is published.

    Attributes:
        numbers: The ports of this machine that may be it; 0 is any.
    """

    host: str
    numbers: range


@dataclass(frozen=True, kw_only=True)
class AskedPorts:
    """The ports that a container asks for; each is written as `80/tcp`.

    Attributes:
        said: Its PortBindings, as they were asked for.
        publishes_all: Whether each exposed port is published.
    """

    exposed: tuple[str, ...]
    bindings: Mapping[str, tuple[Binding, ...]]
    said: Mapping[str, Any]
    publishes_all: bool

    def to_publish(self, of_image: Iterable[str]) -> dict[str, tuple[Binding, ...]]:
        """What is to be published of a container whose image exposes some ports too."""
        more = (*of_image, *self.exposed) if self.publishes_all else ()
        free = (Binding(host=LOOPBACK, numbers=range(1)),)
        wanted = {
            **dict.fromkeys((port for port in more if port.endswith("/tcp")), free),
            **self.bindings,
        }
        check_number(wanted.values())
        return wanted


def asked_ports(config: dict[str, Any], host: dict[str, Any]) -> AskedPorts:
    """Take the ports out of a container and its HostConfig."""
    exposed = tuple(port_of(port) for port in take(config, "ExposedPorts", dict))
    said = take(host, "PortBindings", dict)
    bindings = {port_of(port): bindings_of(port, said) for port in said}
    check_number(bindings.values())
    for port in bindings:
        if not port.endswith("/tcp"):
            raise RefusedCall(
                f"the port {shown(port)} cannot be published: egress.engine() publishes ports of TCP alone",
                HTTPStatus.NOT_IMPLEMENTED,
            )
    return AskedPorts(
        exposed=exposed,
        bindings=bindings,
        said=said,
        publishes_all=take(host, "PublishAllPorts", bool),
    )


def check_number(several: Iterable[tuple[Binding, ...]]) -> None:
    if sum(map(len, several)) > MAX_PORTS:
        raise RefusedCall(
            f"more than {MAX_PORTS} published ports of one container are refused: name those that the test uses"
        )


def ports_of_image(exposed: Iterable[str]) -> tuple[str, ...]:
    """The ports that an image exposes; whoever made it may have written others than the engine does."""
    found = []
    for each in exposed:
        with contextlib.suppress(RefusedCall):
            found.append(port_of(each))
    return tuple(found)


def port_of(written: str) -> str:
    """A port as the engine tells it, `80/tcp`."""
    found = PORT.fullmatch(written)
    if not found or not 0 < int(found[1]) <= MAX_PORT:
        raise RefusedCall(f"the port {shown(written)} is none: write 80/tcp")
    return f"{int(found[1])}/{found[2] or 'tcp'}"


def bindings_of(port: str, said: Mapping[str, Any]) -> tuple[Binding, ...]:
    found = [known(each, BINDING, "a port") for each in items(said, port)] or [{}]
    return tuple(
        Binding(
            host=host_of(text(each.get("HostIp"), "HostIp")),
            numbers=numbers_of(text(each.get("HostPort"), "HostPort")),
        )
        for each in found
    )


def host_of(written: str) -> str:
    """The address of loopback that stands for the one that was asked for."""
    if written in ANY_ADDRESS:
        return LOOPBACK
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        raise RefusedCall(f"HostIp={shown(written)} is no address") from None
    if address.version != 4 or not address.is_loopback:
        raise RefusedCall(
            f"HostIp={shown(written)} is refused: ports are published on 127.0.0.1 alone, so that nobody else reaches "
            "a container under test"
        )
    return str(address)


def numbers_of(written: str) -> range:
    found = NUMBERS.fullmatch(written or "0")
    if found:
        first, last = int(found[1]), int(found[2] or found[1])
        if first <= last <= MAX_PORT:
            return range(first, last + 1)
    raise RefusedCall(f"HostPort={shown(written)} is no port: write 8080, or 8080-8089")


class Publisher(Protocol):
    """The part of an `ExternalContainer` that its published ports use."""

    def publish(
        self, port: int, address: tuple[str, int], note_closed: Callable[[], object]
    ) -> Ingress: ...

    def is_running(self) -> bool: ...


class PublishedPorts:
    """The listeners of one container, from its start to its end.

    Threads: any one opens, closes and asks. The lock guards which listeners there are; while it is held, no other is
    taken and no call of the engine is made.

    Args:
        target: The container; None where it has no network, and so publishes none.
    """

    def __init__(self, asked: Mapping[str, tuple[Binding, ...]], target: Publisher | None) -> None:
        self._asked, self._target = asked if target else {}, target
        self._open: dict[str, list[Ingress]] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Listen, unless it does already; OSError where a port is taken."""
        with self._lock:
            if self._open:
                return
            found: list[tuple[str, Ingress]] = []
            try:
                for port, bindings in self._asked.items():
                    for binding in bindings:
                        found.append((port, self._listen(port, binding)))
            except BaseException:
                for _, ingress in found:
                    ingress.close()
                raise
            for port, ingress in found:
                self._open.setdefault(port, []).append(ingress)

    def _listen(self, port: str, binding: Binding) -> Ingress:
        assert self._target is not None
        number = int(port.partition("/")[0])
        for each in binding.numbers:
            try:
                address = (binding.host, each)
                return self._target.publish(number, address, self.close_if_ended)
            except OSError:
                if each == binding.numbers[-1]:
                    raise PortTakenError(f"{binding.host}:{each}") from None
        raise AssertionError("a range of ports is never empty")

    def close(self) -> None:
        with self._lock:
            found, self._open = self._open, {}
        for ingress in (each for several in found.values() for each in several):
            ingress.close()

    def close_if_ended(self) -> None:
        """Where the container has ended, its ports are closed, as the engine does at once."""
        if self._target is not None and self._open and not self._target.is_running():
            self.close()

    def told(self) -> PortsByName:
        """As `NetworkSettings.Ports` tells them; none of a container that does not run."""
        with self._lock:
            return {
                port: [
                    {"HostIp": each.address[0], "HostPort": str(each.address[1])}
                    for each in several
                ]
                for port, several in self._open.items()
            }


class PortTakenError(Exception):
    """A port of this machine is somebody else's; the text is its address."""
