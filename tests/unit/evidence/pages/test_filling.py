from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pytest_egress.evidence.pages.filling import FOLDER, embedded, write_page

HOSTILE = "</script><script>alert(1)</script><!-- <svg onload=alert(1)> %%SCRIPT%% \u2028 \u202e"


class Elements(HTMLParser):
    """The elements of a page as a browser finds them, with the text in each script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        self._inside = tag if tag in self.texts else ""
        if self._inside:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside][-1] += data


def write(
    path: Path, title: str = "", run: object = None, lines: Iterator[bytes] | None = None
) -> str:
    write_page(
        path,
        "timeline.html",
        title=title,
        styles=("colours.css",),
        scripts=("elements.js",),
        run=run,
        lines=lines or iter(()),
    )
    return path.read_text()


def test_what_a_container_sent_is_no_part_of_the_page(tmp_path: Path) -> None:
    plain = Elements(write(tmp_path / "plain.html"))
    line = json.dumps({"text": HOSTILE}, ensure_ascii=False)
    lines = iter([embedded(f"{line}\n".encode())])
    page = Elements(write(tmp_path / "page.html", title=HOSTILE, run={"a": HOSTILE}, lines=lines))
    assert page.starts == plain.starts
    assert page.texts["title"] == [HOSTILE]
    ledger, run, script = page.texts["script"]
    assert (json.loads(ledger), json.loads(run)) == ({"text": HOSTILE}, {"a": HOSTILE})
    assert script == plain.texts["script"][2]


def test_the_policy_lets_the_script_and_the_style_of_the_page_run_and_nothing_else(
    tmp_path: Path,
) -> None:
    page = Elements(write(tmp_path / "page.html"))
    (policy,) = (
        about["content"] or ""
        for tag, about in page.starts
        if tag == "meta" and about.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "script-src": digest(page.texts["script"][-1]),
        "style-src": digest(page.texts["style"][0]),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_a_page_that_cannot_be_written_to_its_end_leaves_the_one_before(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"{}\n"
        raise OSError("No space left on device")

    path = tmp_path / "page.html"
    before = write(path)
    with pytest.raises(OSError, match="No space"):
        write(path, lines=broken())
    assert path.read_text() == before
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.js")), ids=lambda path: path.name)
def test_no_script_makes_markup_of_text_or_asks_for_anything(path: Path) -> None:
    means = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|blob:|fetch\(|XMLHttp|import\("
    assert re.findall(means, path.read_text()) == []
