"""What ssh is asked, as the docker command asks it."""

from __future__ import annotations

import pytest

from pytest_egress.engine.ssh import dial_command
from tests.support.docker_command import ENGINE_VARIABLES, LINK_VARIABLES


@pytest.fixture(autouse=True)
def no_engine_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENGINE_VARIABLES, *LINK_VARIABLES):
        monkeypatch.delenv(name, raising=False)


# ssh.


@pytest.mark.parametrize(
    ("address", "end"),
    [
        ("ssh://host", ["--", "host", "docker", "system", "dial-stdio"]),
        (
            "ssh://me@host:2222",
            ["-l", "me", "-p", "2222", "--", "host", "docker", "system", "dial-stdio"],
        ),
        ("ssh://[2001:db8::1]/", ["--", "2001:db8::1", "docker", "system", "dial-stdio"]),
        (
            "ssh://host/run/user/1000/docker.sock",
            [
                "--",
                "host",
                "docker",
                "--host",
                "unix:///run/user/1000/docker.sock",
                "system",
                "dial-stdio",
            ],
        ),
    ],
)
def test_ssh_is_asked_as_the_docker_command_asks_it(address: str, end: list[str]) -> None:
    assert dial_command(address)[-len(end) :] == end
