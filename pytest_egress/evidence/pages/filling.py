"""Fills the template of a page: its styles and scripts, the policy that names their digests, and its data as JSON."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_egress.evidence.folder import replacing

FOLDER: Final = Path(__file__).parent
PAGE: Final = "page.html"  # what all pages have around their templates


def embedded(text: bytes) -> bytes:
    r"""JSON as it can stand in a script element: without `<` no text in it ends the element, or begins a comment.

    In JSON a `<` stands in strings alone, where `\u003c` is the same.
    """
    return text.replace(b"<", b"\\u003c")


def embedded_value(value: Any) -> bytes:
    """A value as JSON that can stand in a script element."""
    return embedded(json.dumps(value, separators=(",", ":")).encode())


def write_page(
    path: Path,
    template: str,
    *,
    title: str,
    styles: Sequence[str],
    scripts: Sequence[str],
    run: Any,
    lines: Iterable[bytes] = (),
) -> None:
    """Write a page to a name beside `path` and give it that name once it is whole.

    Args:
        path: The file; one that is there is replaced.
        template: The file's name of what the body shows, beside this module, as those of `styles` and `scripts`.
        title: The title, as text.
        styles: The style sheets, in order.
        scripts: The scripts, in order; they run as one.
        run: What the page is about, as a JSON value.
        lines: Lines of JSON, as `embedded` makes them.
    """
    style = joined(styles)
    script = joined(scripts)
    parts = {
        "POLICY": policy(style, script),
        "TITLE": html.escape(title),
        "STYLE": style,
        "SCRIPT": script,
        "RUN": embedded_value(run).decode(),
    }
    whole = read(PAGE).replace("%%BODY%%", read(template))
    before, _, after = whole.partition("%%LINES%%")
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(filled(before, parts).encode())
        file.writelines(lines)
        file.write(filled(after, parts).encode())


def joined(names: Sequence[str]) -> str:
    """The text of files as it stands in its element, with a line end at either end."""
    return "\n" + "".join(map(read, names))


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this style and this script, images of the page's own data, and nothing else."""
    return (
        f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    """The source expression of an element's text (CSP level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def filled(template: str, parts: dict[str, str]) -> str:
    """The template with each `%%NAME%%` of its own replaced; one within a part stays as it is."""
    pieces = template.split("%%")
    pieces[1::2] = (parts[name] for name in pieces[1::2])
    return "".join(pieces)
