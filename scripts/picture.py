"""Draw docs/assets/failure.svg: what a terminal shows of a failing test, with its colours. `picture.py FILE`."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from pathlib import Path

import pexpect
from rich.console import Console
from rich.text import Text

COLUMNS = 100
OPTIONS = ["-q", "--no-header", *("-p", "no:randomly"), *("-p", "no:asyncio")]
TEST = """\
def test_a_refund(egress):
    egress.intercept_https("api.stripe.com", {"id": "ch_1"}, method="POST", path="/v1/charges")

    refund = "curl -sS --data amount=4200 https://api.stripe.com/v1/refunds"
    egress.run("curlimages/curl", refund)
"""
COLOURED = {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "PY_COLORS": "1"}
"""The environment of a terminal with colours, whatever this process runs in. NO_COLOR must not be in it."""
ELSEWHERE = re.compile(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", re.DOTALL)
"""What the SVG would fetch from other sites."""
ERASED = re.compile(r"\x1b7.*?\x1b8|\x1b\[K")
"""What is shown while a container starts slowly: between saving the cursor and restoring it (VT100's DECSC, DECRC)."""


def failure() -> str:
    """What pytest writes to a terminal; of a line that was drawn over, the last state."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pytest.ini").touch()
        (Path(folder) / "test_shop.py").write_text(TEST)
        output = pexpect.run(
            f"{sys.executable} -m pytest {' '.join(OPTIONS)} test_shop.py",
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "NO_COLOR"}
            | COLOURED,
            dimensions=(50, COLUMNS),
            timeout=120,
            encoding="utf-8",
        )
    lines = ERASED.sub("", output).strip().split("\r\n")
    return "\n".join(line.rpartition("\r")[2] for line in lines)


def picture(text: str) -> str:
    """A window of a terminal with this text, as an SVG."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), color_system="truecolor")
    console.print(Text.from_ansi(text), soft_wrap=True)
    drawn = console.export_svg(title="pytest test_shop.py", unique_id="terminal")
    return ELSEWHERE.sub("", drawn)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(failure()))
