"""The main job, shown: `make demo`. Exits 0 when everything happened as it should, the failing test included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

IMAGE = "pytest-egress-test/clients:latest"
FOLDER = Path(__file__).resolve().parent
REPORT = FOLDER.parent / "build" / "demo"
EXPECTED = (
    "2 unrouted attempts",
    "POST https://api.stripe.com/v1/refunds",
    "https://telemetry.vendor.test/v1/events",
    "1 failed",
)
ACCEPTED = ("accepted an expired certificate of api.stripe.com", "1 failed")
AUDITED = (
    "rejected        ACCEPTED",
    "it accepted of telemetry.vendor.test",
    "1 finding, of 11 runs",
)
SWEPT = ("POST api.stripe.com/v1/charges", "LIES   err   err   err", "4 runs", "1 failed, 5 passed")
CALLS = """
curl -s -H "Authorization: Bearer $STRIPE_KEY" https://api.stripe.com/v1/charges
curl -s --insecure https://telemetry.vendor.test/v1/events
"""


def main() -> int:
    """Run the parts, and check that they did what is said here."""
    title(
        "1. An image is audited: once as it is, and once for each certificate that it has to reject."
    )
    say("It calls two hosts with curl, and verifies the certificate of one. Nothing gets out.")
    audited = audit("-e", "STRIPE_KEY=sk_test_demo4242", IMAGE, "sh", "-c", CALLS)
    title("2. A real container calls https://api.stripe.com with curl, Python and Node.js.")
    say(
        "It is unchanged: no proxy, no edited URL, no added certificate. A function in the test answers."
    )
    say(f"The test: {relative('test_three_clients.py')}")
    answered = pytest("test_three_clients.py", "-v")
    title("3. The same container calls what no test declared.")
    say("This test is meant to fail. Nothing got out, and the failure says what to type.")
    say(f"The test: {relative('undeclared_host.py')}")
    refused = pytest("undeclared_host.py", f"--egress-report={REPORT}")
    title("4. A client that verifies no certificate is shown one that has expired.")
    say("This test is meant to fail as well: curl --insecure sends its request all the same.")
    say(f"The test: {relative('expired_certificate.py')}")
    accepted = pytest("expired_certificate.py")
    title("5. A checkout says 'paid'. Each call that it makes fails in each way, one at a time.")
    say(
        "This test is meant to fail: after a 503 nothing is charged, and it says 'paid' all the same."
    )
    say(f"The test: {relative('lying_checkout.py')}")
    swept = pytest("lying_checkout.py", "--tb=no")
    missing = [text for text in EXPECTED if text not in refused.stdout]
    missing += [text for text in ACCEPTED if text not in accepted.stdout]
    missing += [text for text in AUDITED if text not in audited.stdout]
    missing += [text for text in SWEPT if text not in swept.stdout]
    runs = (audited, answered, refused, accepted, swept)
    codes = tuple(run.returncode for run in runs)
    if codes != (1, 0, 1, 1, 1) or missing:
        title(f"The demo did not go as it should: {missing or codes}")
        return 1
    page = REPORT / "index.html"
    if not page.exists():
        title(f"The demo did not go as it should: there is no {page}")
        return 1
    title(
        "As it should be: an audit found one thing, three clients were answered, two calls were caught, and so were a "
        "client that verifies nothing and a checkout that lies. No container is left."
    )
    say(f"What the third part did, as a page: {os.path.relpath(page)}")
    return 0


def audit(*args: str) -> subprocess.CompletedProcess[str]:
    """Run pytest-egress audit, show and return what it says."""
    program = "import sys; from pytest_egress.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "audit", *args]
    # On a terminal it says on stderr which of its runs goes on.
    done = subprocess.run(command, cwd=FOLDER, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    return done


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
