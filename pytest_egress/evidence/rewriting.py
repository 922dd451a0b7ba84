"""Takes secrets out of the files of a test that became known only after they were written.

A container that starts later may have the key in its variables that an earlier test has sent. Files are read a line at
a time; one without any of these secrets is not written again.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_egress.evidence.folder import PARTIAL, log_name, replacing
from pytest_egress.evidence.lines import line_of
from pytest_egress.evidence.pages.timeline import write_timeline
from pytest_egress.traffic.redaction.redactor import Redactor

RUN: Final = '<script type="application/json" id="run">'
END: Final = "</script>"


def rewrite_test(folder: Path, redactor: Redactor) -> None:
    """Write the files of a test again that have a secret in them, or in their names.

    Args:
        redactor: One that knows what has become known since they were written.

    Raises:
        OSError: A file cannot be read, or not written.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix == PARTIAL:  # of a worker that has crashed
            file.unlink()
        if file.suffix in (".jsonl", ".har", ".log"):
            rewrite_lines(file, redactor)
        if (name := log_without(file.name, redactor)) != file.name:
            file.rename(free_name(folder / name))
    page = folder / "timeline.html"
    if page.exists() and any(redactor.known(line) != line for line in lines_of(page)):
        rewrite_page(page, redactor)


def rewrite_lines(file: Path, redactor: Redactor) -> None:
    if all(redactor.known(line) == line for line in lines_of(file)):
        return
    with replacing(file) as partial, partial.open("w", encoding="utf-8", newline="") as written:
        written.writelines(without(line, redactor) for line in lines_of(file))


def lines_of(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="backslashreplace", newline="\n") as lines:
        yield from lines


def without(line: str, redactor: Redactor) -> str:
    """A line without secrets: of JSON, with a comma behind it or not, or of text."""
    known = redactor.known(line)
    if known == line:
        return line
    text = line.rstrip(",\n")
    try:
        value = json.loads(text)
    except ValueError:
        return known
    return line_of(value_without(value, redactor)) + line[len(text) :]


def value_without(value: Any, redactor: Redactor) -> Any:
    """A value of JSON without secrets, neither in its base64, which stays base64."""
    if isinstance(value, Mapping):
        encoded = base64_key(value)
        pairs = (
            (
                key,
                base64_without(each, redactor) if key == encoded else value_without(each, redactor),
            )
            for key, each in value.items()
        )
        return redactor.keyed(pairs)
    if isinstance(value, list):
        return [value_without(each, redactor) for each in value]
    return redactor.known(value) if isinstance(value, str) else value


def base64_key(value: Mapping[str, Any]) -> str:
    """The key of what is base64 in a body, of ours or of a HAR."""
    return "text" if value.get("encoding") == "base64" else "base64"


def base64_without(value: Any, redactor: Redactor) -> Any:
    if not isinstance(value, str):
        return value_without(value, redactor)
    try:
        plain = base64.b64decode(value, validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return redactor.known(value)
    shown = redactor.known(plain).encode("latin-1", "replace")
    return redactor.known(base64.b64encode(shown).decode())


def log_without(name: str, redactor: Redactor) -> str:
    """The name of a log without secrets."""
    if not name.endswith(".log") or redactor.known(name) == name:
        return name
    return log_name(redactor.known(name.removesuffix(".log")))


def free_name(file: Path) -> Path:
    while file.exists():
        file = file.with_name(f"{file.stem}-2{file.suffix}")
    return file


def rewrite_page(page: Path, redactor: Redactor) -> None:
    """Make the page anew, of its head and of the lines, which have been written again before."""
    for line in lines_of(page):
        if line.startswith(RUN):
            head = json.loads(line.removeprefix(RUN).rstrip().removesuffix(END))
            logs = sorted(each.name for each in page.parent.glob("*.log"))
            head["files"] = [name for name in head["files"] if not name.endswith(".log")] + logs
            write_timeline(page, value_without(head, redactor), page.with_name("ledger.jsonl"))
            return
