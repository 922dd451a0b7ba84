"""Browsers without a network, each headless in a container, driven over its standard input and output."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import docker
from docker.models.containers import Container

PAGES: Final = "/pages"
SECONDS: Final = 120.0  # for a browser to start and to answer, on however slow a machine

# Its protocol is on the descriptors 3 and 4 (--remote-debugging-pipe).
CHROMIUM: Final = """exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
--disable-background-networking --remote-debugging-pipe --user-data-dir=/tmp/profile about:blank \
3<&0 4>&1 >&2 </dev/null"""

# Its protocol, Marionette, is on a port of the container's own, which a shell connects to.
FIREFOX: Final = """export HOME=$(mktemp -d); firefox-esr --headless --marionette --no-remote >&2 </dev/null &
until exec 3<>/dev/tcp/127.0.0.1/2828; do sleep 0.1; done 2>/dev/null; cat <&3 & exec cat >&3"""


class BrowserPipe:
    """A container's standard input and output, without what it writes to standard error."""

    def __init__(self, container: Container) -> None:
        stream: Any = container.attach_socket(
            params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        )
        self._socket: Any = getattr(stream, "_sock", stream)  # docker-py hides it in a reader
        self._opened = (getattr(stream, "_response", stream), stream, self._socket)
        self._socket.settimeout(SECONDS)
        self._raw = b""
        self._said = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def until(self, whole: Callable[[bytes], int]) -> bytes:
        """Receive until `whole` says how many bytes are a message; 0 means that more has to come."""
        while not (size := whole(self._said)):
            self._read_frame()
        message, self._said = self._said[:size], self._said[size:]
        return message

    def _read_frame(self) -> None:
        kind, size = struct.unpack(">BxxxL", self._exactly(8))
        data = self._exactly(size)
        self._said += data if kind == 1 else b""

    def _exactly(self, size: int) -> bytes:
        while len(self._raw) < size:
            data = self._socket.recv(1 << 16)
            assert data, "the browser has ended"
            self._raw += data
        data, self._raw = self._raw[:size], self._raw[size:]
        return data

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


@contextlib.contextmanager
def started(
    client: docker.DockerClient, image: str, script: str
) -> Iterator[tuple[Container, BrowserPipe]]:
    """A container without a network that runs a browser."""
    container = client.containers.create(
        image, ["bash", "-c", script], network_mode="none", stdin_open=True, detach=True
    )
    try:
        with contextlib.closing(BrowserPipe(container)) as talk:
            container.start()
            yield container, talk
    finally:
        container.remove(force=True)


def put_files(container: Container, folder: Path, name: str = "") -> None:
    """Copy the files of a folder to `PAGES`, or to a folder of this name there."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder, arcname=f"{PAGES}/{name}")
    assert container.put_archive("/", archive.getvalue())


class Chromium:
    """Chromium, by its DevTools protocol.

    Attributes:
        errors: What the pages' consoles have said, and what their scripts have raised.
        asked: The URLs that the page has asked for, but for files and data.
    """

    def __init__(self, container: Container, talk: BrowserPipe) -> None:
        self.errors: list[str] = []
        self.asked: list[str] = []
        self._container = container
        self._talk = talk
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.sized(1440, 900)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and note what is told meanwhile."""
        self._number += 1
        about = {"id": self._number, "method": method, "params": params}
        if self._session:
            about["sessionId"] = self._session
        self._talk.send(json.dumps(about).encode() + b"\0")
        while True:
            said = json.loads(self._talk.until(lambda data: data.find(b"\0") + 1)[:-1])
            if said.get("id") == self._number:
                assert "error" not in said, (method, said["error"])
                result: dict[str, Any] = said["result"]
                return result
            self._note(said.get("method", ""), said.get("params", {}))

    def _note(self, event: str, about: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(about["exceptionDetails"]))
        elif event == "Log.entryAdded":
            self.errors.append(about["entry"]["text"])
        elif event == "Page.javascriptDialogOpening":
            self.errors.append(f"dialog {about['message']}")
        elif event == "Network.requestWillBeSent":
            url = about["request"]["url"]
            if not url.startswith(("file:", "data:")):
                self.asked.append(url)

    def put(self, folder: Path, name: str = "") -> None:
        put_files(self._container, folder, name)

    def sized(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def media(self, media: str = "", **features: str) -> None:
        """Emulate a medium, and features such as `prefers_color_scheme`."""
        listed = [
            {"name": name.replace("_", "-"), "value": value} for name, value in features.items()
        ]
        self.call("Emulation.setEmulatedMedia", media=media, features=listed)

    def open(self, path: str) -> None:
        """Open a file below `PAGES`, which may have a fragment, anew."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"file://{PAGES}/{path}")
        self.evaluate(
            "new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, as JSON; a promise's once it is kept."""
        made = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in made, made
        return made["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys by their names, one after the other."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as a WebP."""
        made = self.call("Page.captureScreenshot", format="webp", quality=90)
        path.write_bytes(base64.b64decode(made["data"]))


@contextlib.contextmanager
def chromium(client: docker.DockerClient, image: str) -> Iterator[Chromium]:
    with started(client, image, CHROMIUM) as (container, talk):
        yield Chromium(container, talk)


class Firefox:
    """Firefox, by Marionette."""

    def __init__(self, container: Container, talk: BrowserPipe) -> None:
        self._container = container
        self._talk = talk
        self._number = 0
        self._message()  # its greeting
        self.call("WebDriver:NewSession", capabilities={"alwaysMatch": {}})

    def _message(self) -> Any:
        def whole(data: bytes) -> int:
            size, colon, rest = data.partition(b":")
            needed = len(size) + 1 + int(size) if colon else 0
            return needed if colon and len(rest) >= int(size) else 0

        return json.loads(self._talk.until(whole).partition(b":")[2])

    def call(self, command: str, **params: Any) -> Any:
        self._number += 1
        data = json.dumps([0, self._number, command, params]).encode()
        self._talk.send(b"%d:%s" % (len(data), data))
        _, _, error, result = self._message()
        assert error is None, error
        return result

    def put(self, folder: Path) -> None:
        put_files(self._container, folder)

    def open(self, path: str) -> None:
        self.call("WebDriver:Navigate", url=f"file://{PAGES}/{path}")

    def evaluate(self, expression: str) -> Any:
        made = self.call("WebDriver:ExecuteScript", script=f"return {expression}", args=[])
        return made["value"]


@contextlib.contextmanager
def firefox(client: docker.DockerClient, image: str) -> Iterator[Firefox]:
    with started(client, image, FIREFOX) as (container, talk):
        yield Firefox(container, talk)
