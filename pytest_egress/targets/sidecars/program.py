"""The content of a sidecar: its image, the mounts of its Python, and the archive of its agent.

The image is empty directories alone; the interpreter is this process's own, mounted read-only, unless a setup names an
image that has one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import importlib.util
import marshal
import os
import sys
from importlib.abc import InspectLoader
from importlib.machinery import PathFinder
from typing import Final

import docker
from docker.errors import ImageNotFound
from docker.types import Mount

from pytest_egress.base.choices import LinkKind
from pytest_egress.engine.archive import File, build_tar
from pytest_egress.targets.sidecars.provision import executable, sidecar_errors

IMAGE_REPOSITORY: Final = "pytest-egress/sidecar"
"""The local image; its tag is a hash of its content."""

AGENT: Final = "pytest_egress.agent"
"""The package of the agent's modules, which this process does not import for it."""

AGENT_FOLDER, LINK_FOLDER = "/egress", "/run/egress"
"""Where the agent and the rendezvous folder are in the sidecar."""


def boot_of(module: str) -> str:
    """The Python code that runs a program of the agent's."""
    return (
        f"import sys; sys.path.insert(0, {AGENT_FOLDER!r}); from agent.{module} import main; main()"
    )


BOOT, KEEPER_BOOT = boot_of("main"), boot_of("keeper")
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
# Modules of the agent.
_ONLY_STREAM: Final = (
    "direct",
    "flows",
    "mux",
    "mux_frames",
    "original_destination",
    "pump",
    "relay",
    "stream",
)


def ensure_image(api: docker.APIClient) -> str:
    """Return the name of the sidecar's image, after importing the image if the engine does not have it.

    Several processes may import it at once: each makes the same image, and the last one gets the name.
    """
    content = build_tar({}, ["/proc", "/sys", "/dev", "/etc", "/tmp", "/run", "/usr"])
    tag = hashlib.sha256(content).hexdigest()[:12]
    name = f"{IMAGE_REPOSITORY}:{tag}"
    with sidecar_errors():
        try:
            api.inspect_image(name)  # type: ignore[no-untyped-call]  # types-docker has none
        except ImageNotFound:
            api.import_image_from_data(content, repository=IMAGE_REPOSITORY, tag=tag)
    return name


@functools.cache  # the result is always the same
def agent_archive(link: LinkKind = "descriptor") -> bytes:
    """Build the archive of the agent, for `/`: its source, and its bytecode if this process's Python will run it.

    With bytecode the agent runs 4 milliseconds earlier.
    """
    unused = () if link == "stream" else _ONLY_STREAM
    folder = f"{AGENT_FOLDER}/agent"
    files: dict[str, File | bytes] = {}
    modules = importlib.resources.files(AGENT)
    for entry in modules.iterdir():
        stem, dot, suffix = entry.name.partition(".")
        if suffix == "py" and stem not in unused:
            source = entry.read_bytes()
            path = f"{folder}/{stem}{dot}{suffix}"
            cached = f"{folder}/__pycache__/{stem}.{sys.implementation.cache_tag}.pyc"
            files[path], files[cached] = source, _bytecode(source, f"{AGENT}.{stem}", str(modules))
    return build_tar(files, [AGENT_FOLDER, folder, f"{folder}/__pycache__"])


def _bytecode(source: bytes, name: str, folder: str) -> bytes:
    """Make a .pyc file of a module that Python uses without comparing it to its source (PEP 552, flags 0b01).

    The code is from this process's own .pyc file, if there is one: compiling all modules takes 8 milliseconds. It is
    not that of an imported module, which pytest may have rewritten. An import corrects the path in it.
    """
    spec = PathFinder.find_spec(name, [folder])
    assert spec is not None, "it is among the package's files"
    assert isinstance(spec.loader, InspectLoader), "Python's own loaders are"
    code = spec.loader.get_code(name)
    flags = (0b01).to_bytes(4, "little")
    checksum = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + flags + checksum + marshal.dumps(code)


def python_mounts() -> list[Mount]:
    """The folders that this process's interpreter needs, at the same paths; none is inside another."""
    interpreter = os.path.dirname(executable())
    folders = [*_SYSTEM_FOLDERS, os.path.realpath(sys.base_prefix), interpreter]
    kept: list[str] = []
    for folder in folders:
        inside = any(folder == other or folder.startswith(f"{other}/") for other in kept)
        if os.path.isdir(folder) and not inside:
            kept.append(folder)
    return [bind_mount(os.path.realpath(folder), folder) for folder in kept]


def library_path() -> dict[str, str]:
    """The environment of this process's interpreter there: the loader's cache of library paths is not mounted."""
    return {"LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"}


def bind_mount(source: str, target: str) -> Mount:
    return Mount(target, source, type="bind", read_only=True)
