"""`Provisioner`: tries the setups of a sidecar (its link and its Python) in order, until the engine allows one.

An attempt raises `SidecarError` if another setup may work, and then the next one is tried. A setup that has worked is
tried first from then on. This module starts no sidecar itself, and uses an engine only for its images.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import requests.exceptions
from docker.errors import APIError

from pytest_egress.base.choices import LINKS, SWITCH, LinkKind, alternatives
from pytest_egress.base.once import once_property
from pytest_egress.errors import EngineError, ImageError, LinkError

if TYPE_CHECKING:
    from pytest_egress.engine.engine import Engine

log = logging.getLogger("pytest_egress.engine")  # users filter logs by this name
T = TypeVar("T")
LINK_VARIABLE: Final = "PYTEST_EGRESS_LINK"
IMAGE_VARIABLE: Final = "PYTEST_EGRESS_SIDECAR_IMAGE"
REUSE_VARIABLE: Final = "PYTEST_EGRESS_SIDECAR_REUSE"
FORCED: Final = (
    "\nThe descriptor link needs them; --egress-link=auto takes the stream link where they are not."
)
WITH_IMAGE: Final = (
    "\n--egress-sidecar-image names an image that has python3, 3.10 or newer, for a sidecar to run."
)
NAME_ONE: Final = "--egress-sidecar-image=IMAGE names one with python3, 3.10 or newer, that this engine has or can pull"
NO_DESCRIPTORS: Final = (
    "the descriptor link needs Linux, and an engine that shares this machine's files; this machine runs {}. "
    "--egress-link=auto takes the stream link here."
)
SIDECAR_IMAGE: Final = "python:3.13-slim"  # where this machine's Python cannot run
_NOT_SHARED = re.compile(
    "bind source path does not exist|mounts denied|statfs .*no such file", re.IGNORECASE
)
_NO_PROGRAM = re.compile("executable file not found|: no such file or directory", re.IGNORECASE)


class SidecarSetup(NamedTuple):
    """The link of a sidecar, and the image whose Python runs the agent; None for this process's own Python."""

    link: LinkKind = "descriptor"
    image: str | None = None

    def __str__(self) -> str:
        python = self.image or f"this Python {platform.python_version()}"
        return f"{self.link} link, sidecar with {python}"

    def python(self) -> list[str]:
        """The command that starts its Python, without the program."""
        program = "python3" if self.image is not None else executable()
        return [program, "-I", "-S", "-B"]  # isolated, without site-packages, writing no cache


DESCRIPTOR: Final = SidecarSetup()


def reuse_of_environment() -> bool:
    """Whether a sidecar may serve several targets; EngineError for a bad `PYTEST_EGRESS_SIDECAR_REUSE`."""
    wanted = os.environ.get(REUSE_VARIABLE) or "on"
    if wanted not in SWITCH:
        raise EngineError(f"{REUSE_VARIABLE}={wanted}: it takes {alternatives(SWITCH)}")
    return wanted == "on"


class SidecarError(LinkError):
    """A sidecar cannot be started with one setup, but another may work."""


class Provisioner:
    """Starts sidecars on one engine, with the first setup that works there.

    Safe to call from any thread.

    Args:
        link: One of `choices.LINKS`; None for the environment's setting.
        image: The image whose Python runs the agent, instead of this process's own; None for the environment's setting.
    """

    def __init__(self, engine: Engine, link: str | None = None, image: str | None = None) -> None:
        self._engine = engine
        self._link, self._image = link, image
        self._lock = threading.Lock()
        self._worked: SidecarSetup | None = None

    @once_property
    def setups(self) -> list[SidecarSetup]:
        """The setups in the order in which they are tried; EngineError for a bad `PYTEST_EGRESS_LINK`."""
        wanted = self._link or os.environ.get(LINK_VARIABLE) or "auto"
        if wanted not in LINKS:
            raise EngineError(f"{LINK_VARIABLE}={wanted}: it takes {', '.join(LINKS)}")
        image = self._image or os.environ.get(IMAGE_VARIABLE)
        if sys.platform != "linux":
            if wanted == "descriptor":
                raise EngineError(NO_DESCRIPTORS.format(sys.platform))
            return [SidecarSetup("stream", image or SIDECAR_IMAGE)]
        first, last = ("descriptor", "stream") if wanted == "auto" else (wanted, wanted)
        setups = [SidecarSetup(first, image), SidecarSetup(last, image or SIDECAR_IMAGE)]  # type: ignore[arg-type]  # of LINKS
        return list(dict.fromkeys(setups))

    @property
    def summary(self) -> str:
        """The engine, and the setup of the sidecars that have started on it; "" where none has."""
        return f"{self._engine.name}, {self._worked}" if self._worked else ""

    def sidecar(self, attempt: Callable[[SidecarSetup], T], undo: Callable[[], object]) -> T:
        """Start a sidecar with the first setup that works; LinkError or ImageError where none does."""
        reasons: list[str] = []
        for setup in self.setups.copy():
            try:
                if setup.image is not None:
                    self._engine.image(setup.image)
                made = attempt(setup)
            except SidecarError as error:
                undo()
                reasons.append(f"{error}")
            except ImageError as error:
                raise ImageError(without_image(setup.image, f"{error}", reasons)) from None
            else:
                self._choose(setup, reasons)
                return made
        advice = FORCED if self.setups[-1].link == "descriptor" else WITH_IMAGE
        raise LinkError("\nBefore that: ".join(reversed(reasons)) + advice)

    def _choose(self, setup: SidecarSetup, reasons: Sequence[str]) -> None:
        """Try this setup first from now on: it has worked, and those before it have failed."""
        with self._lock:
            self._worked = setup
            if reasons and setup in self.setups[1:]:  # another thread may have put it first
                del self.setups[: self.setups.index(setup)]
                log.warning("%s So: %s", reasons[-1], setup)


def without_image(image: str | None, refusal: str, reasons: Sequence[str]) -> str:
    """The error where the image of a sidecar cannot be had.

    Args:
        refusal: The error about the image; its advice is for images that a test names.
        reasons: Why an image is needed at all; none where one was asked for.
    """
    asked = "" if reasons else f" with --egress-sidecar-image={image}"
    said = refusal.partition("\n")[0]
    why = [f"An image is needed since: {reason}" for reason in reasons]
    return "\n".join([f"no sidecar has started{asked}: {NAME_ONE}", said, *why])


def executable() -> str:
    """The path of this process's real interpreter, not of a virtual environment's link to it, or copy of it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@contextlib.contextmanager
def sidecar_errors() -> Iterator[None]:
    """Turn the engine's errors about a sidecar into a `LinkError`, or a `SidecarError` if another setup may work."""
    try:
        yield
    except SidecarError:
        raise
    except (APIError, LinkError) as error:  # the latter where the engine did not attach
        said = getattr(error, "explanation", None) or str(error)
        if _NOT_SHARED.search(said):
            raise SidecarError(not_shared(said)) from error
        kind = SidecarError if _NO_PROGRAM.search(said) else LinkError
        before = "The engine refuses the sidecar: " if isinstance(error, APIError) else ""
        raise kind(f"{before}{said}") from error
    except requests.exceptions.RequestException as error:
        raise LinkError(f"The engine does not answer any more: {error}") from error


def not_shared(reason: str) -> str:
    return f"The engine does not share this machine's files ({reason})."
