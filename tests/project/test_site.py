"""The site that `make docs` builds: its reference is whole, it can be searched, and its links lead somewhere."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import FunctionType, MethodType

import pytest

import pytest_egress
from pytest_egress import Egress
from pytest_egress.plugin.usage import EGRESS_FIXTURES
from tests.support.project import ROOT


def build(config: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)]
    return subprocess.run(
        [*command, "--site-dir", str(folder)],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    return folder


class Page(HTMLParser):
    """What a page of HTML can be linked to by, what it links to, and what a browser fetches with it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.fetched.add(values["href"])
        if "src" in values:
            self.fetched.add(values["src"])


def test_every_public_name_and_fixture_is_in_the_reference(site: Path) -> None:
    anchors = Page(site / "reference/index.html").anchors
    fixtures = [*EGRESS_FIXTURES, "egress_ca", "egress_docker_client", "egress_redaction"]
    names = [f"pytest_egress.{name}" for name in pytest_egress.__all__]
    names += [f"pytest_egress.plugin.{name}" for name in fixtures]
    assert len(names) > 35
    assert [name for name in names if name not in anchors] == []


def test_every_public_name_and_method_has_a_docstring() -> None:
    public = {name: getattr(pytest_egress, name) for name in pytest_egress.__all__}
    documented: dict[str, object] = {
        name: each for name, each in public.items() if isinstance(each, (type, FunctionType))
    }
    for owner in [each for each in public.values() if isinstance(each, type)]:
        names = {name for name in vars(owner) if name[0] != "_"} - {*dir(socket.socket)}
        members = {name: getattr(owner, name) for name in names}
        documented |= {
            f"{owner.__name__}.{name}": each
            for name, each in members.items()
            if isinstance(each, (FunctionType, MethodType, property))
        }
    assert len(documented) > 100
    assert [name for name, each in documented.items() if not inspect.getdoc(each)] == []


def test_a_console_completes_of_a_route_what_the_reference_has(
    site: Path,
) -> None:
    """An editor completes what `Egress.intercept_https` says that it returns; `typed/mistakes.py` has that."""
    prefix = "pytest_egress.Route."
    anchors = Page(site / "reference/index.html").anchors
    documented = {name.removeprefix(prefix) for name in anchors if name.startswith(prefix)}
    described = set(
        re.findall(r"^        (\w+): ", pytest_egress.Route.__doc__ or "", re.MULTILINE)
    )

    route = Egress().intercept_https("a.test")

    names = {name for name in dir(route) if not name.startswith("_")}
    assert names == (documented | described) - {"__call__"}
    assert len(names) > 10
    assert all(hasattr(route, name) for name in names)


def test_a_method_of_egress_is_found_by_the_search(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())["docs"]
    (entry,) = (
        each for each in index if each["location"].endswith("#pytest_egress.Egress.intercept_tcp")
    )
    assert "Answer TCP connections to an address" in entry["text"]


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("index.html")}
    assert len(pages) > 12
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            where, _, anchor = link.partition("#")
            target = (path.parent / where).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path} links to {link}"
            assert target not in pages or anchor in pages[target].anchors, f"{path}: {link}"


def test_the_guide_has_at_most_22_400_words() -> None:
    """Code, addresses of links and notes do not count; the reference and the pages after it are no guide."""
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2].partition("  - Reference:")[0]
    names = set(re.findall(r": (\S+\.md)$", nav, re.MULTILINE)) - {"index.md", "examples.md"}
    texts = [(ROOT / "docs" / name).read_text() for name in sorted(names)]
    texts.append((ROOT / "README.md").read_text())
    aside = re.compile(r"^ *```.*?^ *```|^\[.*?$", re.MULTILINE | re.DOTALL)
    words = [len(re.findall(r"\w[^\s|]*", aside.sub("", text))) for text in texts]
    assert len(words) > 25
    assert sum(words) <= 22_400


def test_a_reader_of_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = {each for path in site.rglob("*.html") for each in Page(path).fetched}
    assert len(fetched) > 2
    assert [each for each in fetched if re.match(r"([a-z]+:)?//", each)] == []


def test_every_example_is_on_their_page(site: Path) -> None:
    page = (site / "examples/index.html").read_text()
    names = [path.name for path in (ROOT / "examples").glob("test_*.py")]
    assert len(names) > 9
    assert [name for name in names if f">{name}<" not in page] == []
    assert "StripeClient" in page


def test_the_front_page_links_within_the_site(site: Path) -> None:
    links = Page(site / "index.html").links
    assert {"start/", "jobs/apis/"} <= links


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    for name in ("mkdocs.yml", "scripts", "README.md", "CHANGELOG.md", "pytest_egress"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "docs/reference.md").write_text("# Reference")  # most of a build's time
    with open(tmp_path / "docs/options.md", "a") as page:
        page.write("\n[a](nowhere.md) [b](routes.md#nowhere) [c](/routes/)\n")

    built = build(tmp_path / "mkdocs.yml", tmp_path / "site")

    assert built.returncode == 1
    warned = [line for line in built.stderr.splitlines() if line.startswith("WARNING")]
    for fault in (
        "link 'nowhere.md', but the target is not found",
        "does not contain an anchor '#nowhere'",
        "absolute link '/routes/'",
    ):
        assert any(fault in line for line in warned), built.stderr
