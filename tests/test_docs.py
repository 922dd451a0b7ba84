"""Every example of the documentation runs, and its tables are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_egress.trust import DIRECTORY, RUNTIMES, VARIABLES

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "docs/addresses.md", "docs/fixtures.md", "docs/routes.md"]
HEADER = "import docker, httpx, pytest\nfrom pytest_egress import Egress, Response, http_ok, log_line, port_open\n\n"
IMPORTS = re.compile(r"(?:(?:from|import) .*\n|\n)+\Z")
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    return PYTHON_BLOCK.findall((ROOT / page).read_text())


def as_module(page: str, image: str) -> str:
    """The page's examples as one test module: definitions as they are, bare lines as a test of their own."""
    parts = [HEADER]
    for number, block in enumerate(blocks(page)):
        if "def test_" in block or "@pytest.fixture" in block or IMPORTS.match(block):
            parts.append(block)
        elif "with Egress()" not in block:
            lines = "".join(f"    {line}\n" for line in block.splitlines())
            marker = "@pytest.mark.egress(assert_all_called=False)"
            parts.append(f"{marker}\ndef test_lines_{number}(egress):\n{lines}")
    return "\n\n".join(parts).replace("shop:latest", image)


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_as_printed(
    page: str, pytester: pytest.Pytester, shop_image: str
) -> None:
    source = as_module(page, shop_image)
    pytester.makepyfile(test_page=source)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")

    result.assert_outcomes(passed=source.count("def test_"))


def test_the_script_of_the_fixtures_page_runs_without_pytest(shop_image: str) -> None:
    (script,) = (block for block in blocks("docs/fixtures.md") if "with Egress()" in block)
    script = script.replace("shop:latest", shop_image)

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, "charged ch_1\n\n"), done.stderr


def test_the_table_of_variables_is_that_of_the_code() -> None:
    rows = [
        f"| `{variable.name}` | `{variable.value(DIRECTORY)}` | {', '.join(variable.runtimes)} |"
        for variable in VARIABLES
    ]

    assert "\n".join(rows) in (ROOT / "docs/options.md").read_text()


def test_the_table_of_runtimes_is_that_of_the_code() -> None:
    page = (ROOT / "docs/trust.md").read_text()
    rows = re.findall(
        r"^\| (.+?) \| (.+?) \| (adds|replaces|extends) \| (.+?) \|$", page, re.MULTILINE
    )
    assert [
        (name, by.strip("`"), effect, how != "not tested") for name, by, effect, how in rows
    ] == [(runtime.name, runtime.by, runtime.effect, runtime.tested) for runtime in RUNTIMES]


def test_the_demo_shows_what_it_says(shop_image: str, clients_image: str) -> None:
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "As it should be" in done.stdout


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+\.md)\)", page.read_text()):
            assert (page.parent / link).is_file(), f"{page.name} links to {link}"


def test_every_guarantee_names_a_test_that_is_there() -> None:
    page = "".join((ROOT / f"docs/{name}.md").read_text() for name in ("guarantees", "engines"))
    named = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", page))
    assert len(named) > 25
    for module, test in sorted(named):
        source = (ROOT / "tests" / module).read_text()
        assert re.search(rf"^def {test}\(", source, re.MULTILINE), f"{module} has no {test}"


def test_every_row_of_the_guarantees_names_a_test() -> None:
    page = (ROOT / "docs/guarantees.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "held by" not in line]
    assert len(rows) > 20
    assert [row for row in rows if "::test_" not in row] == []
