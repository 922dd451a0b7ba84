"""What `packet_capture` sees in a container with the network of the host, but for relays of stream links."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from typing import Any

import docker

from pytest_egress.agent.relay import PORT
from pytest_egress.targets.sidecars.relay import NETWORK


class PacketCapture:
    """A capture of all that the host's interfaces carry, but for what test processes send to their relays and get."""

    def __init__(self, client: docker.DockerClient, container: Any, nonce: str) -> None:
        self.nonce = nonce
        self._client, self._container = client, container
        self._lines: Iterator[bytes]
        self._log: Any

    def start(self) -> None:
        self._container.start()
        self._log = self._container.logs(stream=True, follow=True)
        self._lines = whole_lines(self._log)
        assert next(self._lines) == b"ready"

    def saw(self) -> list[str]:
        """What it saw until now: a packet over loopback tells it when."""
        control = f"{self.nonce}-control-{secrets.token_hex(4)}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(control.encode(), ("127.0.0.1", 9))
        seen: list[str] = []
        for line in self._lines:
            interface, lost, source, target, found = line.decode().split(" ", 4)
            assert lost == "lost=0"
            if found == control:
                assert interface == "lo"
                return seen
            is_ours = found.startswith(f"{self.nonce}-control") or self._is_of_relay(source, target)
            if not is_ours:
                seen.append(f"{interface}: {found}")
        raise AssertionError(f"the witness ended: {self._container.logs().decode()}")

    def close(self) -> None:
        """docker-py shuts the connection of a log, and leaves the response open that has it."""
        self._log.close()
        self._log._response.close()

    def _is_of_relay(self, *ends: str) -> bool:
        """Whether the host itself speaks with the port of a relay on the engine's own network."""
        (network,) = self._client.api.networks(names=[NETWORK])
        subnets = network["IPAM"]["Config"]
        addresses = {it["Gateway"] for it in subnets if ":" not in it["Gateway"]}
        hosts = [it.rpartition(":")[0] for it in ends]
        return any(it.endswith(f":{PORT}") for it in ends) and not addresses.isdisjoint(hosts)

    def addresses(self) -> list[str]:
        """Those of the host."""
        code, output = self._container.exec_run(["hostname", "-I"])
        assert code == 0, output
        return [it for it in output.decode().split() if not it.startswith("fe80")]


def whole_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
