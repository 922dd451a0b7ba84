"""With which containers a target may share processes, as an engine tells of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_egress.engine.engine import Engine
from pytest_egress.targets.processes import check_processes

SOCKET = [{"Type": "bind", "Source": "/run/docker.sock"}]


def other(mounts: list[dict[str, str]] | None = None, **host: Any) -> SimpleNamespace:
    """A container without a network, and so without a way out of its own."""
    attrs: dict[str, Any] = {"Name": "/x", "Config": {"Labels": {}}, "Mounts": mounts}
    return SimpleNamespace(name="x", attrs={**attrs, "HostConfig": {"NetworkMode": "none", **host}})


def check(**containers: SimpleNamespace) -> None:
    """Of a target that shares the processes of `first`."""
    api = SimpleNamespace(base_url="http+docker://localhost", _custom_adapter=None)
    engine = SimpleNamespace(client=SimpleNamespace(api=api), container=containers.__getitem__)
    check_processes(cast("Engine", engine), cast("Any", other(PidMode="container:first")))


@pytest.mark.parametrize(
    ("containers", "error"),
    [
        ({"first": other(SOCKET)}, "the mount of '/run/docker.sock' is refused"),
        (
            {"first": other(PidMode="container:second"), "second": other(SOCKET)},
            "the mount of '/run/docker.sock' is refused",
        ),
        ({"first": other(CapAdd=["CAP_SYS_ADMIN"])}, "cap_add=['CAP_SYS_ADMIN'] is refused"),
        ({"first": other(SecurityOpt=["unmask=ALL"])}, "security_opt=['unmask=ALL'] is refused"),
        ({"first": other(Devices=[{"PathOnHost": "/dev/sda"}])}, "the device '/dev/sda' is refused"),
    ],
)  # fmt: skip
def test_what_such_a_container_has_of_its_machine_is_refused(
    containers: dict[str, SimpleNamespace], error: str
) -> None:
    with pytest.raises(ValueError) as caught:
        check(**containers)
    begin = "pid_mode='container:first' is refused, since a target has through /proc what that container has: "
    assert str(caught.value).startswith(f"{begin}{error}")


def test_others_are_not() -> None:
    check(first=other(PidMode="container:second"), second=other(CapAdd=["CAP_SYS_PTRACE"]))
