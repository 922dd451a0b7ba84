"""pytest --pdb at a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

HEAD: Final = "import asyncio, threading, unittest, pytest\nfrom gateway import attempt, traffic\n"
PROMPT: Final = r"\(Pdb\) "


class Debugger:
    """pytest --pdb at a terminal."""

    def __init__(self, pytester: pytest.Pytester, source: str, *args: str) -> None:
        pytester.makepyfile(test_x=HEAD + source)
        options = f"-q --color=no --pdb {' '.join(args)}"
        self.child: Any = pytester.spawn_pytest(f"{options} test_x.py", expect_timeout=60)
        self.stands_at = self.next_prompt().rpartition("-> ")[2].strip()

    def next_prompt(self) -> str:
        """What is said until it asks."""
        self.child.expect(PROMPT)
        said: bytes = self.child.before
        return said.decode().replace("\r", "")

    def tell(self, command: str) -> str:
        """What it answers."""
        self.child.sendline(command)
        return self.next_prompt().partition("\n")[2].strip()

    def quit(self) -> str:
        """What pytest says afterwards."""
        self.child.sendline("q")
        self.child.expect("no tests ran|failed|error")
        self.child.wait()
        said: bytes = self.child.before
        return said.decode()


Debug = Callable[..., Debugger]
