"""All that differs, as the engine and the container's own environment tell it."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest
import trustme
from docker.models.containers import Container as DockerContainer

from pytest_egress.gateway.tls.authority import Authority
from pytest_egress.targets.trust import runtimes
from pytest_egress.targets.trust.certificates import hashed_name
from tests.support.image_trees import BUNDLE, LABEL, PKI, RHEL, Make, MakeImage, env_of, pack


@pytest.fixture
def hashed(egress_ca: trustme.CA) -> str:
    """The name under which OpenSSL finds the CA in a directory."""
    return f"{hashed_name(Authority(egress_ca).ca_subject)}.0"


# All that differs, as the engine and the container's own environment tell it.


def changes_of(container: DockerContainer) -> set[tuple[str, int]]:
    return {(str(change["Path"]), int(change["Kind"])) for change in container.diff() or ()}


MODIFIED, ADDED = 0, 1
OF_OURS = {
    ("/etc", MODIFIED),
    ("/etc/pytest-egress", ADDED),
    ("/etc/pytest-egress/ca.pem", ADDED),
    ("/etc/pytest-egress/bundle.pem", ADDED),
    ("/etc/pytest-egress/truststore.jks", ADDED),
}


@pytest.fixture(scope="module")
def rhel_image(engine_client: docker.DockerClient) -> Iterator[str]:
    """RHEL's layout over Debian's programs."""
    container = engine_client.containers.create(
        "debian:trixie-slim", ["rm", "-rf", "/etc/ssl"], network_mode="none", labels={LABEL: "1"}
    )
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0
        container.put_archive("/", pack(RHEL))
        image = container.commit(changes='CMD ["env"]')
    finally:
        container.remove(force=True)
    yield str(image.id)
    engine_client.images.remove(str(image.id), force=True)


def test_the_engine_sees_no_other_change_in_debian(
    clients_image: str, plain: Make, ours: Make, hashed: str
) -> None:
    before, after = (changes_of(make(clients_image, ["env"])) for make in (plain, ours))
    assert after - before == {
        ("/etc/ssl", MODIFIED),
        ("/etc/ssl/certs", MODIFIED),
        (BUNDLE, MODIFIED),
        (f"/etc/ssl/certs/{hashed}", ADDED),
        *(OF_OURS - before),
    }
    assert before <= after


# Podman's list of changes lacks folders in which something else has changed.
@pytest.mark.docker
def test_the_engine_sees_no_other_change_in_rhel(
    rhel_image: str, plain: Make, ours: Make, hashed: str
) -> None:
    before, after = (changes_of(make(rhel_image, ["env"])) for make in (plain, ours))
    folders = (
        "",
        "/ca-trust",
        "/ca-trust/extracted",
        "/ca-trust/extracted/pem",
        "/tls",
        "/tls/certs",
    )
    assert after - before == {
        *((f"/etc/pki{folder}", MODIFIED) for folder in folders),
        (PKI, MODIFIED),
        (f"/etc/pki/tls/certs/{hashed}", ADDED),
        *(OF_OURS - before),
    }
    assert before <= after


@pytest.mark.docker
def test_the_engine_sees_no_other_change_in_an_empty_image(
    make_image: MakeImage, plain: Make, ours: Make
) -> None:
    image = make_image({})
    before, after = (changes_of(make(image)) for make in (plain, ours))
    assert after - before == {
        ("/etc/ssl", ADDED),
        ("/etc/ssl/certs", ADDED),
        (BUNDLE, ADDED),
        *OF_OURS,
    }
    assert before <= after


@pytest.mark.parametrize("name", ["clients_image", "rhel_image"])
def test_a_process_has_its_own_variables_and_those_of_the_table(
    name: str, request: pytest.FixtureRequest, plain: Make, ours: Make
) -> None:
    image = request.getfixturevalue(name)
    before, after = (
        runtimes.variables(make(image, ["env"]).logs().decode().splitlines())
        for make in (plain, ours)
    )
    before.pop("HOSTNAME"), after.pop("HOSTNAME")  # the engine makes them up
    expected = {each.name: each.value("/etc/pytest-egress") for each in runtimes.VARIABLES}
    assert after == {**before, **expected}


def test_an_empty_image_is_given_the_variables_of_the_table(
    make_image: MakeImage, plain: Make, ours: Make
) -> None:
    image = make_image({}, "ENV GREETING=hello")
    before, after = (env_of(make(image)) for make in (plain, ours))
    for variables in (before, after):
        variables.pop("HOSTNAME", None)  # Podman makes them up
    expected = {each.name: each.value("/etc/pytest-egress") for each in runtimes.VARIABLES}
    assert before["GREETING"] == "hello"
    assert after == {**before, **expected}
