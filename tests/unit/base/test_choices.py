"""The words that options take stand in one place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pytest_egress.base.choices import LINKS, NAME_POLICIES, POLICIES, alternatives, union
from tests.support.project import ROOT

PACKAGE = ROOT / "pytest_egress"
SOURCES = sorted({*PACKAGE.rglob("*.py")} - {PACKAGE / "base" / "choices.py"})
CHOICES: tuple[tuple[str, ...], ...] = (POLICIES, NAME_POLICIES, LINKS)


def repeated(source: str) -> list[str]:
    """What lists all the words of an option once more, as it is written."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(source)) if repeats(node)]


def repeats(node: ast.AST) -> bool:
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        words = {each.value for each in node.elts if isinstance(each, ast.Constant)}
        return any(words >= {*choices} for choices in CHOICES)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return any(re.search(r"\W+(or\W+)?".join(words), node.value) for words in CHOICES)
    return False


@pytest.mark.parametrize(
    "source",
    [
        "UNROUTED = ('fail', 'block', 'passthrough')",
        "value in ['strict', 'synthetic']",
        "LinkChoice = Literal['auto', 'descriptor', 'stream']",
        "metavar = 'fail|block|passthrough'",
        "words = \"'synthetic' or 'strict'\"",
        "words = 'auto, descriptor or stream'",
    ],
)
def test_a_second_list_is_seen_however_it_is_written(source: str) -> None:
    assert repeated(source)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_lists_what_an_option_takes(path: Path) -> None:
    assert not repeated(path.read_text())


def test_they_are_told_in_words_and_as_code() -> None:
    assert alternatives(("a", "b")) == "a or b"
    assert alternatives(("a", "b", "c")) == "a, b or c"
    assert union(("a", "b")) == '"a"|"b"'
