"""All cases of the Autobahn test suite against a handler of a WebSocket, in a quarter of an hour: `make autobahn`."""

from __future__ import annotations

import sys
import time

from tests.support.autobahn import run_cases


def echo(ws: object) -> None:
    """Send back what comes, and keep none of it: that would be gigabytes."""
    for message in ws:  # type: ignore[attr-defined]
        ws.send(message)  # type: ignore[attr-defined]
        ws.messages.clear()  # type: ignore[attr-defined]


def main() -> int:
    """Run the cases that the command line does not leave out, and list those that failed."""
    began = time.monotonic()
    verdicts = run_cases(echo, sys.argv[1:])
    failed = {case: verdict for case, verdict in verdicts.items() if verdict != "OK"}
    for case, verdict in failed.items():
        print(f"{case}: {verdict}")
    passed, seconds = len(verdicts) - len(failed), time.monotonic() - began
    print(f"{passed} of {len(verdicts)} cases passed in {seconds:.0f} s")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
