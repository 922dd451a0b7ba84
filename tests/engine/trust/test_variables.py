"""Variables that lead to roots, or past them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_egress import Egress
from pytest_egress.traffic.entries import TlsFailure
from tests.support.image_trees import (
    BUNDLE,
    FIRST,
    SECOND,
    THIRD,
    Make,
    MakeImage,
    Options,
    link,
    read,
    snapshot_of,
)


# Podman does not read a file that is mounted by itself.
@pytest.mark.docker
@pytest.mark.parametrize("point", [BUNDLE, "/etc/ssl/cert.pem"])
def test_a_file_that_is_mounted_in_a_folder_that_is_read_whole_is_never_written(
    point: str, tmp_path: Path, make_image: MakeImage, ours: Make, ca: bytes
) -> None:
    (tmp_path / "mine.pem").write_bytes(SECOND)
    before = snapshot_of(tmp_path)
    image = make_image({BUNDLE: FIRST, "/etc/ssl/cert.pem": THIRD})
    container = ours(image, volumes=[f"{tmp_path}/mine.pem:{point}"])
    for path, content in ((BUNDLE, FIRST), ("/etc/ssl/cert.pem", THIRD)):
        assert read(container, path) == (SECOND if path == point else content + ca)
    assert snapshot_of(tmp_path) == before


def test_a_variable_of_the_image_that_leads_over_a_link_to_what_is_extended_is_no_hint(
    egress: Egress, make_image: MakeImage
) -> None:
    tree = {BUNDLE: FIRST, "/etc/ssl/cert.pem": link("certs/ca-certificates.crt")}
    image = make_image(tree, "ENV SSL_CERT_FILE=/etc/ssl/cert.pem")
    egress.start(image)
    assert egress._inner.containers[-1].hints == []


@pytest.mark.parametrize("kind", ["volumes", "tmpfs"])
def test_a_variable_that_leads_to_a_bundle_in_a_mount_is_a_hint(
    kind: str, egress: Egress, make_image: MakeImage, tmp_path: Path
) -> None:
    (tmp_path / "ca-certificates.crt").write_bytes(SECOND)
    ways: dict[str, Options] = {
        "volumes": {"volumes": [f"{tmp_path}:/etc/ssl/certs"]},
        "tmpfs": {"tmpfs": {"/etc/ssl": ""}},
    }
    image = make_image({BUNDLE: FIRST}, f"ENV PIP_CERT={BUNDLE}")
    egress.start(image, **ways[kind])
    assert egress._inner.containers[-1].hints == [
        f"PIP_CERT={BUNDLE!r} is set by the image, and was kept"
    ]


def test_a_client_that_is_led_past_the_ca_says_so(egress: Egress, clients_image: str) -> None:
    egress.block("api.example.test")
    code = "import urllib.request as u; u.urlopen('https://api.example.test/')"
    result = egress.run(
        clients_image,
        ["python3", "-c", code],
        env={"SSL_CERT_FILE": "/x.pem", "SSL_CERT_DIR": "/none"},
        files={"/x.pem": FIRST},
        check=False,
    )
    assert "CERTIFICATE_VERIFY_FAILED" in result.stderr
    (failure,) = (entry for entry in egress.ledger if isinstance(entry, TlsFailure))
    assert failure.note.endswith("; SSL_CERT_FILE='/x.pem' is set by the test, and was kept")
