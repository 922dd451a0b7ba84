"""Names that nobody declared, as a container's own resolver asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker
import pytest

from pytest_egress.egress import Egress
from pytest_egress.errors import CallError, UnroutedError
from pytest_egress.session import Session

# Real containers.


@pytest.fixture
def session(engine_client: docker.DockerClient) -> Session:
    """A run of its own, whose verdicts are raised where its egress is left."""
    return Session(defaults={"dns": "strict"})


LOOK_UP = """
import socket, sys
for name in sys.argv[1:]:
    try:
        print(socket.getaddrinfo(name, 443)[0][4][0])
    except OSError:
        print("none")
"""


def looked_up(session: Session, image: str, *names: str, **options: Any) -> list[str]:
    """What a container finds of names, api.test being declared."""
    with Egress(session=session) as egress:
        egress.intercept_https("api.test", optional=True)
        command = ["python3", "-c", LOOK_UP, *names]
        return egress.run(image, command, **options).stdout.split()


def names_in(verdict: Exception) -> list[str]:
    """The names in a verdict; on Podman `search .` makes glibc ask for each that it does not find twice."""
    lines = [line.split() for line in str(verdict).splitlines()]
    return [words[1] for words in lines if words[:1] == ["DNS"]]


def test_a_name_that_a_container_asks_for_fails_its_test(
    session: Session, clients_image: str
) -> None:
    with pytest.raises(UnroutedError) as caught:
        looked_up(session, clients_image, "api.test", "typo.test")
    assert names_in(caught.value) == ["typo.test"]


@pytest.mark.parametrize("dots", [1, 5])
def test_what_glibc_makes_of_a_name_by_a_search_list_is_no_attempt(
    session: Session, clients_image: str, tmp_path: Path, dots: int
) -> None:
    configured = tmp_path / "resolv.conf"
    configured.write_text(
        f"nameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:{dots}\n"
    )
    mount: dict[str, Any] = {"volumes": [f"{configured}:/etc/resolv.conf:ro"]}
    found = looked_up(session, clients_image, "api.test", **mount)
    assert found != ["none"]
    with pytest.raises(UnroutedError) as caught:
        looked_up(session, clients_image, "typo.test", **mount)
    assert names_in(caught.value) == ["typo.test"]


def test_a_name_with_more_labels_is_an_attempt_where_there_is_no_list(
    session: Session, clients_image: str
) -> None:
    with pytest.raises(UnroutedError) as caught:
        looked_up(session, clients_image, "db", "db.evil.example.test")
    assert names_in(caught.value) == ["db", "db.evil.example.test"]


def test_a_list_of_one_commands_environment_makes_no_attempts(
    session: Session, clients_image: str
) -> None:
    env = {"LOCALDOMAIN": "a.example", "RES_OPTIONS": "ndots:5"}
    with Egress(session=session) as egress:
        egress.intercept_https("api.test", optional=True)
        client = egress.start(clients_image, ["sleep", "60"])
        command = ["python3", "-c", LOOK_UP, "api.test"]
        assert client.exec(command, env=env).stdout.split() != ["none"]


def test_a_list_of_the_environments_makes_no_attempts_either(
    session: Session, clients_image: str
) -> None:
    env = {"LOCALDOMAIN": "a.example b.example", "RES_OPTIONS": "ndots:5"}
    assert looked_up(session, clients_image, "api.test", env=env) != ["none"]


def test_a_name_that_nobody_declared_is_egress(egress: Egress, clients_image: str) -> None:
    window = egress._inner.session.ledger.window
    assert window is not None
    window.dns, window.policy = "strict", "block"
    egress.run(clients_image, ["getent", "hosts", "typo.test"], check=False)
    with pytest.raises(CallError, match=r"no egress; there was:\n  DNS typo\.test\b"):
        egress.assert_no_egress()
    egress.assert_only("typo.test:443")
