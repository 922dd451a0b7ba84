"""Build the images that the tests start, or those that are named, where they are missing or out of date.

Everything goes through the engine's API, so neither the docker command nor buildx is needed. An
image carries the digest of the folder it was built from as a label: a second run only asks for
the labels.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker

BASE_IMAGE = "debian:trixie-slim"
BASE_SUITE = "trixie"
BASE_PYTHON = "3.13"
DIGEST_LABEL = "org.pytest-egress.test-image"
SCRIPTS_FOLDER = Path(__file__).resolve().parent
APT_INSTALL = SCRIPTS_FOLDER / "apt-install"
IMAGES_FOLDER = SCRIPTS_FOLDER.parent / "tests" / "images"
# Images of a registry, as the README names them. Their folders are built only where they cannot be pulled.
PULLED_IMAGES = {"curl": "curlimages/curl:latest"}
# The builder downloads packages and may say nothing meanwhile: docker-py's 60 s are too short.
ENGINE_TIMEOUT_SECONDS = 900
# As in Debian's own image: an installation that fails is thrown away, so nothing waits for the disk; no descriptions.
BASE_SETTINGS = {
    "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
    "etc/apt/apt.conf.d/docker-no-languages": 'Acquire::Languages "none";\n',
}
OURS = "FROM pytest-egress-test/"
AT_ONCE = 4  # a build waits for its downloads, one core at most works
APT = threading.Lock()  # apt-get runs once at a time


def main(names: Sequence[str]) -> int:
    """Bring these images up to date, or every one; return the exit code."""
    client = docker.from_env(timeout=ENGINE_TIMEOUT_SECONDS)
    every = sorted(path.parent.name for path in IMAGES_FOLDER.glob("*/Dockerfile"))
    try:
        ensure_base_image(client)
        ensure_all(client, [IMAGES_FOLDER / name for name in names or every])
    except (docker.errors.DockerException, subprocess.CalledProcessError) as error:
        print(f"ensure_images: {error}", file=sys.stderr)
        return 1
    finally:
        client.close()
    return 0


def ensure_all(client: docker.DockerClient, folders: Sequence[Path]) -> None:
    """Build what is missing of these, several at a time; what is built from another of them comes after it.

    Raises:
        docker.errors.DockerException: An image cannot be built.
        subprocess.CalledProcessError: A package of one cannot be had.
    """
    later = [folder for folder in folders if OURS in (folder / "Dockerfile").read_text()]
    first = [folder for folder in folders if folder not in later]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for some in (first, later):
                for _ in pool.map(lambda folder: ensure_image(client, folder), some):
                    pass
        finally:
            pool.shutdown(cancel_futures=True)


def ensure_image(client: docker.DockerClient, folder: Path) -> None:
    """Build the image of *folder* unless the engine has it with the same content, or it is a registry's."""
    tag = PULLED_IMAGES.get(folder.name, f"pytest-egress-test/{folder.name}:latest")
    digest = folder_digest(folder)
    if folder.name in PULLED_IMAGES and is_pulled(client, tag):
        return
    if image_labels(client, tag).get(DIGEST_LABEL) == digest:
        return
    say(f"building {tag}")
    try:
        with context_of(folder) as context:
            client.images.build(
                path=str(context), tag=tag, rm=True, forcerm=True, labels={DIGEST_LABEL: digest}
            )
    except docker.errors.BuildError as error:
        sys.stderr.writelines(line.get("stream", "") for line in error.build_log)
        raise


@contextlib.contextmanager
def context_of(folder: Path) -> Iterator[Path]:
    """The folder to build an image from: a copy with what its lists of packages name, where it has such lists.

    They are downloaded here, since a registry may be reached with what this machine alone has: a mirror, or a CA.

    Raises:
        subprocess.CalledProcessError: A package cannot be had.
    """
    wanted = [name for name in DOWNLOADS if (folder / name).is_file()]
    if not wanted:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pytest-egress-context-") as temporary:
        context = Path(temporary) / folder.name
        shutil.copytree(folder, context)
        for name in wanted:
            DOWNLOADS[name](context)
        yield context


def download_wheels(context: Path) -> None:
    """Download the wheels that `requirements.txt` names, for the base image's Python, into `wheels`."""
    machine = platform.machine()
    platforms = [
        f"{each}_{machine}" for each in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
    ]
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", f"--python-version={BASE_PYTHON}"),
        *(f"--platform={each}" for each in platforms),
        *(f"--requirement={context / 'requirements.txt'}", f"--dest={context / 'wheels'}"),
    )


def download_node_modules(context: Path) -> None:
    """Download what `package.json` names into `node_modules`."""
    with APT:
        if not shutil.which("npm"):
            run(str(APT_INSTALL), "npm")
    quiet = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev")
    run("npm", "install", *quiet, f"--prefix={context}")


DOWNLOADS: Mapping[str, Callable[[Path], None]] = {
    "requirements.txt": download_wheels,
    "package.json": download_node_modules,
}
"""A list of packages to what downloads them."""


def folder_digest(folder: Path) -> str:
    """Return a digest of the names and contents of all files below *folder*."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def image_labels(client: docker.DockerClient, tag: str) -> dict[str, str]:
    """Return the labels of the image *tag*; none where the engine does not have it."""
    try:
        return client.images.get(tag).labels
    except docker.errors.ImageNotFound:
        return {}


def ensure_base_image(client: docker.DockerClient) -> None:
    """Pull the base image where it is missing, or make it where no registry can be reached."""
    if not is_there(client, BASE_IMAGE) and not pull(client, BASE_IMAGE):
        bootstrap_base_image(client)


def is_pulled(client: docker.DockerClient, tag: str) -> bool:
    """Whether the image *tag* is a registry's: pulled before, or now. One that was built here is not tried again."""
    if is_there(client, tag):
        return DIGEST_LABEL not in image_labels(client, tag)
    return pull(client, tag)


def is_there(client: docker.DockerClient, tag: str) -> bool:
    """Whether the engine has the image *tag*."""
    try:
        return bool(client.images.get(tag))
    except docker.errors.ImageNotFound:
        return False


def pull(client: docker.DockerClient, tag: str) -> bool:
    """Pull the image *tag*, and return whether that was possible."""
    say(f"pulling {tag}")
    try:
        client.images.pull(tag)
    except docker.errors.APIError as error:
        say(f"cannot pull it ({error.explanation or error}); making one")
        return False
    return True


def bootstrap_base_image(client: docker.DockerClient) -> None:
    """Import a minimal Debian made by debootstrap under the name of the base image.

    Raises:
        subprocess.CalledProcessError: debootstrap failed, or is missing and may not be installed.
    """
    if not shutil.which("debootstrap"):
        run(str(APT_INSTALL), "debootstrap")
    with tempfile.TemporaryDirectory(prefix="pytest-egress-base-") as folder:
        root = Path(folder) / "root"
        run("debootstrap", "--variant=minbase", BASE_SUITE, str(root))
        for leftovers in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(root / leftovers, ignore_errors=True)
            (root / leftovers).mkdir(parents=True)
        for name, text in BASE_SETTINGS.items():
            (root / name).write_text(text)
        archive = Path(folder) / "root.tar"
        run(
            "tar",
            "--numeric-owner",
            "--directory",
            str(root),
            "--create",
            "--file",
            str(archive),
            ".",
        )
        repository, tag = BASE_IMAGE.split(":")
        client.api.import_image_from_file(
            str(archive), repository=repository, tag=tag, changes=['CMD ["bash"]']
        )


def run(*command: str) -> None:
    """Run *command* as a person would see it; CalledProcessError where it fails."""
    say(" ".join(command))
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def say(text: str) -> None:
    """Tell the person who waits what takes the time."""
    print(f"ensure_images: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
