"""The peers that the benchmark compares with: where each is installed, and why one is not.

`scripts/ensure-peers` installs them, each in a place of its own: some pin the very libraries that this package uses.
What cannot be installed is a reason in the table, and no failure.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PEERS: Final = ROOT / ".make" / "peers"
MITMPROXY, HYPERCORN, WIREMOCK = "mitmproxy", "hypercorn", "WireMock"
MOCKTTP, MOCKSERVER, TESTCONTAINERS = "mockttp", "MockServer", "testcontainers"
BARE: Final = "bare minimum"
GRPCIO: Final = "grpcio's server"
DIRECT: Final = "directly"

INSTALLED: Final = {
    MITMPROXY: "mitmproxy",
    HYPERCORN: "hypercorn",
    WIREMOCK: "wiremock",
    MOCKTTP: "mockttp",
}
"""Those that are installed apart, and their folder."""

NEVER: Final = {
    MOCKSERVER: "its package on npm downloads the server from Maven Central, which this does not use",
}
INSIDE: Final = {*INSTALLED, BARE, GRPCIO, DIRECT}
"""Those that run in the network namespace of the client's container."""


def why_missing(name: str) -> str | None:
    """Why there can be no figures of a peer; None where there can."""
    if name in NEVER:
        return NEVER[name]
    if name in INSIDE and not (os.geteuid() == 0 and shutil.which("nsenter")):
        return "it takes root and nsenter (util-linux) to start a server in the client's network namespace"
    if name in INSTALLED and not (PEERS / INSTALLED[name] / "installed").exists():
        why = PEERS / INSTALLED[name] / "why"
        return why.read_text().strip() if why.exists() else "scripts/ensure-peers has not been run"
    return None


def path_of(name: str, *parts: str) -> Path:
    """A file of a peer that is installed apart."""
    return PEERS.joinpath(INSTALLED[name], *parts)


def npm_version(name: str) -> str:
    """The version of a peer that is a package of npm."""
    package = path_of(name, "node_modules", INSTALLED[name], "package.json")
    return str(json.loads(package.read_text())["version"])
