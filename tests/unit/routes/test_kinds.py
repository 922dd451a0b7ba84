"""The table of route kinds: what stands in it stands nowhere else."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from pytest_egress.egress import Egress
from pytest_egress.routes.declarations import accepted_options, declaring
from pytest_egress.routes.kinds import KINDS, Kind
from tests.support.project import ROOT

PACKAGE = ROOT / "pytest_egress"
OTHER_KINDS = {*(PACKAGE / "evidence").rglob("*.py"), PACKAGE / "commands" / "diff.py"}
"""They have the kinds of entries and of lines of a lock, which are words."""

SOURCES = sorted({*PACKAGE.rglob("*.py")} - {PACKAGE / "routes" / "kinds.py"} - OTHER_KINDS)
WORDS = {name for kind in KINDS for name in (kind.method, kind.marker)}
NAMES = {kind.method for kind in KINDS if "_" in kind.method}
"""Those that mean nothing else: "block" is a policy too, and "dns" an option."""


def offences(source: str) -> list[str]:
    """What compares the kind of a route, or names one, as it is written."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(source)) if is_offence(node)]


def is_offence(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        is_named = any(isinstance(side, ast.Name) and side.id == "kind" for side in sides)
        return any(map(is_kind, sides)) or (is_named and bool(constants(node) & WORDS))
    if isinstance(node, ast.Match):
        return is_kind(node.subject)
    if isinstance(node, ast.Attribute):
        return is_name_of_kind(node.value)  # `kind.method.startswith(...)`
    return isinstance(node, ast.Constant) and node.value in NAMES


def is_kind(node: ast.expr) -> bool:
    """Whether it is the kind of something, or the name of a kind."""
    return (isinstance(node, ast.Attribute) and node.attr == "kind") or is_name_of_kind(node)


def is_name_of_kind(node: ast.expr) -> bool:
    """Whether it is `kind.method` or `route.kind.marker`."""
    if not isinstance(node, ast.Attribute) or node.attr not in ("method", "marker"):
        return False
    return is_kind(node.value) or (isinstance(node.value, ast.Name) and node.value.id == "kind")


def constants(node: ast.AST) -> set[object]:
    """What is written in it."""
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}


@pytest.mark.parametrize(
    "source",
    [
        "route.kind == 'block'",
        "'block' != route.kind",
        "route.kind in RAW",
        "decision.route.kind is BLOCK",
        "kind in ('passthrough', 'block')",
        "kind.method == name",
        "route.kind.method != 'dns'",
        "route.kind.method.startswith(name)",
        "{'intercept_tls': None}",
        "match route.kind:\n    case BLOCK: pass",
    ],
)
def test_a_comparison_with_a_kind_is_seen_however_it_is_written(source: str) -> None:
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        "route.kind.reads_requests",
        "route.kind.claims_requests(scheme)",
        "declare(kinds.BLOCK, address)",
        "window.policy == 'block'",
        "kind == 'lifespan.startup.failed'",
        "request.method == 'CONNECT'",
        "f'{route.kind.method}()'",
    ],
)
def test_what_asks_a_kind_or_is_no_kind_is_no_comparison_with_one(source: str) -> None:
    assert not offences(source)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_compares_a_kind_or_names_one(path: Path) -> None:
    assert not offences(path.read_text())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.method)
def test_a_marker_takes_what_the_method_of_its_kind_does(kind: Kind) -> None:
    method, marker = (
        {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
        }
        for function in (getattr(Egress, kind.method), declaring(kind))
    )
    assert marker == method


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.method)
def test_the_keywords_of_a_kind_are_those_of_its_method(kind: Kind) -> None:
    parameters = inspect.signature(getattr(Egress, kind.method)).parameters.values()
    keywords = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert {*accepted_options(kind)} == keywords


ANOTHER = """
import pytest_egress.routes.kinds as kinds

kinds.KINDS += (
    kinds.Kind(
        method="intercept_gopher",
        marker="egress_gopher",
        usage="(address, answer=None): answer menus",
        carries="bytes",
        default_port=70,
    ),
)

def intercept_gopher(self, address, answer=None, **options):
    from pytest_egress.routes.declarations import declare

    return self._add(kinds.KINDS[-1], address, answer, **options)

def pytest_configure():
    from pytest_egress import Egress

    Egress.intercept_gopher = intercept_gopher
"""
"""A kind more, by a plugin that is imported before ours."""

GOPHER = """
import pytest

@pytest.mark.egress_gopher("menus.test", b"menu", optional=True)
def test_a(egress):
    (route,) = egress.routes
    assert str(route) == 'intercept_gopher("menus.test")'
    assert route.parsed_address.port == 70

@pytest.mark.egress_gopher("menus.test", 1)
def test_b():
    pass
"""


@pytest.mark.slow
def test_a_new_kind_is_a_value_in_the_table_and_a_method(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p another -p egress")
    pytester.makepyfile(another=ANOTHER, test_x=GOPHER)
    listed = pytester.runpytest_subprocess("--markers")
    listed.stdout.fnmatch_lines(["@pytest.mark.egress_gopher(address, answer=None): answer menus"])
    options = ("--strict-markers", "--continue-on-collection-errors")
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*test_b: @pytest.mark.egress_gopher: 1 is no answer of a raw route*"]
    )
