"""Copy a test image from one engine to another that lacks it: `copy_image.py TAG ADDRESS`."""

from __future__ import annotations

import contextlib
import sys
import time

import docker

SECONDS = 30.0  # for the other engine to answer


def main(tag: str, address: str) -> None:
    """Copy it from the engine that the environment names."""
    wait_for(address)
    with (
        contextlib.closing(docker.from_env(timeout=600)) as source,
        contextlib.closing(docker.DockerClient(base_url=address, timeout=600)) as target,
    ):
        image = source.images.get(tag)
        with contextlib.suppress(docker.errors.ImageNotFound):
            if target.images.get(tag).id == image.id:
                return
        print(f"copying {tag} to {address}", flush=True)
        target.images.load(b"".join(image.save(named=True)))


def wait_for(address: str) -> None:
    """Return when an engine answers."""
    deadline = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(docker.errors.DockerException):
            with contextlib.closing(docker.DockerClient(base_url=address)) as client:
                client.ping()
            return
        if time.monotonic() > deadline:
            sys.exit(f"no engine answers at {address}")
        time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
