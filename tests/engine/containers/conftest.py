"""What tests of containers share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.support.engines import OwnEngine, PrivateEngine


@pytest.fixture(scope="module")
def engine(
    own_engine: OwnEngine, engine_client: docker.DockerClient, bare_image: str
) -> Iterator[PrivateEngine]:
    """An engine of a module's own, with one image: no other run removes what it finds there."""
    with own_engine(Path(tempfile.gettempdir())) as engine:
        engine.load(engine_client, bare_image)
        yield engine
