"""What MkDocs does besides mkdocs.yml: the addresses of pyproject.toml, and the pages that lie outside of docs/."""

from __future__ import annotations

import ast
import re
from importlib.metadata import metadata
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}
EXAMPLES = """# Examples

Each of these files runs as a test. `sdks`, `services` and the like are fixtures that return the name of an image with
what the docstring names; a team writes the name of its own, such as `"shop:latest"`.
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the addresses from the project's metadata."""
    urls = dict(url.split(", ") for url in metadata("pytest-egress").get_all("Project-URL", []))
    config.site_url = urls["Documentation"]
    config.repo_url = urls["Homepage"]
    config.repo_name = "GitHub"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md and CHANGELOG.md, whose absolute links to the site lead to its pages, so that they are checked.

    Besides them the page of examples, which is made of their files.
    """
    for name, source in PAGES.items():
        text = within_the_site((ROOT / source).read_text(), str(config.site_url))
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "examples.md", content=page_of_examples()))
    return files


def page_of_examples() -> str:
    """Each example under its job: what its docstring says, and its code."""
    return "\n".join([EXAMPLES, *map(section, sorted((ROOT / "examples").glob("test_*.py")))])


def section(path: Path) -> str:
    """One example in Markdown."""
    text = path.read_text()
    module = ast.parse(text)
    code = "".join(text.splitlines(keepends=True)[module.body[0].end_lineno :]).strip()
    docstring = ast.get_docstring(module) or ""
    job = re.split(r"[:;.]", docstring)[0]
    return f"## {job}\n\n{docstring} `{path.name}`\n\n```python\n{code}\n```\n"


def within_the_site(text: str, site: str) -> str:
    """A page of Markdown with links to files in the place of those to the site."""
    return re.sub(rf"^(\[.+\]: ){re.escape(site)}([\w/-]+)/", r"\1\2.md", text, flags=re.MULTILINE)
