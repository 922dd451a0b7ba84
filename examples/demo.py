"""The main job, shown: `make demo`. Exits 0 when everything happened as it should, the failing test included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
EXPECTED = (
    "2 unrouted attempts",
    "POST https://api.stripe.com/v1/refunds",
    "https://telemetry.vendor.test/v1/events",
    "1 failed",
)


def main() -> int:
    """Run the two parts, and check that they did what is said here."""
    title("1. A real container calls https://api.stripe.com with curl, Python and Node.js.")
    say(
        "It is unchanged: no proxy, no edited URL, no added certificate. A function in the test answers."
    )
    say(f"The test: {relative('test_three_clients.py')}")
    answered = pytest("test_three_clients.py", "-v")
    title("2. The same container calls what no test declared.")
    say("This test is meant to fail. Nothing got out, and the failure says what to type.")
    say(f"The test: {relative('undeclared_host.py')}")
    refused = pytest("undeclared_host.py")
    missing = [text for text in EXPECTED if text not in refused.stdout]
    if answered.returncode or refused.returncode != 1 or missing:
        title(
            f"The demo did not go as it should: {missing or answered.returncode or refused.returncode}"
        )
        return 1
    title(
        "As it should be: three clients were answered, and two calls were caught. No container is left."
    )
    return 0


def pytest(*args: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a file of this folder, show and return what it says."""
    color = "yes" if sys.stdout.isatty() else "no"
    command = [sys.executable, "-m", "pytest", f"--color={color}", "-p", "no:cacheprovider", *args]
    command += ["-o", "python_files=*.py", "--no-header", "-o", "addopts=", f"--rootdir={FOLDER}"]
    environment = os.environ | {"COLUMNS": os.environ.get("COLUMNS", "110")}
    done = subprocess.run(
        command, cwd=FOLDER, env=environment, capture_output=True, text=True, check=False
    )
    print(done.stdout + done.stderr, flush=True)
    return done


def title(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def relative(name: str) -> str:
    return os.path.relpath(FOLDER / name)


if __name__ == "__main__":
    sys.exit(main())
