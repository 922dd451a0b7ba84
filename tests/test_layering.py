"""Imports point down only, and each layer stays away from what it must not know.

Read from the source itself: imports inside functions and under TYPE_CHECKING count like any other.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "pytest_egress"
PACKAGE_FOLDER = Path(__file__).resolve().parent.parent / PACKAGE

LAYERS = {
    "agent": {"agent"},
    "core": {
        "address",
        "answers",
        "clock",
        "declarations",
        "errors",
        "exchange",
        "forks",
        "globs",
        "ledger",
        "matching",
        "once",
        "redaction",
        "report",
        "routing",
        "searchlist",
        "verdict",
    },
    "protocol": {"archive", "certificates", "clienthello", "dns", "handshake", "http1"},
    "link": {"attach", "link", "sockets", "stream"},
    "engine": {
        "endpoint",
        "engine",
        "failures",
        "folder",
        "images",
        "leftovers",
        "packages",
        "roots",
        "sidecar",
        "ssh",
        "trust",
        "watchdog",
    },
    "gateway": {
        "applications",
        "authority",
        "connection",
        "dispatch",
        "gateway",
        "http_server",
        "hub",
        "ingress",
        "raw_server",
        "reach",
        "relay",
        "traffic",
        "upstream",
    },
    "egress": {"containers", "egress", "session", "waiting"},
    "package": {""},  # __init__: what users import
    "plugin": {"plugin"},
    "command": {"cli"},
}
"""The layer of each module, the lowest first. A package counts with everything in it."""

STRANGERS = {("gateway", "engine")}
"""Layers that must not import a lower one all the same: these two meet in the egress layer."""

SANS_IO = (LAYERS["core"] | LAYERS["protocol"]) - {"clock", "ledger", "once"}
OUTSIDE_WORLD = {"socket", "_socket", "ssl", "threading", "time", "subprocess", "docker", "pytest"}

FORBIDDEN = {
    **{module: OUTSIDE_WORLD for module in SANS_IO},
    "once": OUTSIDE_WORLD - {"threading"},
    "clock": OUTSIDE_WORLD - {"time"},
    "ledger": OUTSIDE_WORLD - {"threading"},  # it is what waits
    **{module: {"docker"} for module in LAYERS["gateway"] | LAYERS["link"]},
    **{module: {"ssl"} for module in LAYERS["engine"] | {"containers"}},
}
"""Packages that a module must not import."""

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE_FOLDER).with_suffix("").parts)
    .removesuffix("__init__")
    .rstrip(".")
    for path in PACKAGE_FOLDER.rglob("*.py")
)
AGENT_MODULES = [module for module in MODULES if module.split(".")[0] == "agent"]


def source_path(module: str) -> Path:
    path = PACKAGE_FOLDER.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported_names(source: str, package: str) -> Iterator[str]:
    """Yield the absolute name of everything that *source*, a module of *package*, imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            origin = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def imports_of(module: str) -> set[str]:
    path = source_path(module)
    folder = path.parent.relative_to(PACKAGE_FOLDER.parent)
    return set(imported_names(path.read_text(), ".".join(folder.parts)))


def own_imports(module: str) -> set[str]:
    """Return the modules of this package that *module* imports; "" is the package itself."""
    inside = {name for name in imports_of(module) if name.split(".")[0] == PACKAGE}
    return {own_module(name.partition(".")[2]) for name in inside} - {module}


def own_module(name: str) -> str:
    """Return the longest beginning of *name* that is a module: the rest is what it defines."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def foreign_imports(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports_of(module)} - {PACKAGE}


def layer_of(module: str) -> str:
    first = module.split(".")[0]
    for layer, modules in LAYERS.items():
        if first in modules:
            return layer
    pytest.fail(
        f"{PACKAGE}.{module} is in no layer: add it to LAYERS in {Path(__file__).name}, "
        "as low as its imports allow",
        pytrace=False,
    )


def test_an_import_is_found_wherever_it_stands() -> None:
    source = """
import a, b.c as d
from e.f import g
from . import h
from .i import j
from ..k import m
if TYPE_CHECKING:
    from n import o
def function():
    import p
"""
    found = set(imported_names(source, "top.sub"))
    assert found == {"a", "b.c", "e.f.g", "top.sub.h", "top.sub.i.j", "top.k.m", "n.o", "p"}


def test_the_table_names_no_module_that_is_gone() -> None:
    assert set().union(*LAYERS.values()) <= {module.split(".")[0] for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module: str) -> None:
    order = list(LAYERS)
    layer = layer_of(module)
    for imported in own_imports(module):
        below = layer_of(imported)
        assert order.index(below) <= order.index(layer), (
            f"{module} ({layer}) imports {imported} ({below})"
        )
        assert (layer, below) not in STRANGERS, f"{module} ({layer}) imports {imported} ({below})"


def test_there_is_no_import_cycle() -> None:
    try:
        TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}", pytrace=False)


@pytest.mark.parametrize("module", sorted(FORBIDDEN))
def test_a_module_stays_away_from_what_its_layer_must_not_know(module: str) -> None:
    assert not foreign_imports(module) & FORBIDDEN[module]


@pytest.mark.parametrize("module", sorted({*MODULES} - {"plugin"}))
def test_only_the_plugin_imports_pytest(module: str) -> None:
    assert not foreign_imports(module) & {"pytest", "_pytest", "pluggy"}


@pytest.mark.parametrize("module", sorted({*MODULES} - {*AGENT_MODULES, "clock", "sockets"}))
def test_what_tests_replace_is_reached_by_one_module_each(module: str) -> None:
    # freezegun stops the clocks, pytest-socket forbids sockets: ours are in `clock` and `sockets`.
    replaced = r"\b(time\.(time|monotonic|perf_counter)|datetime\.now|socket\.(socket|socketpair|create_server))\("
    assert not re.findall(replaced, source_path(module).read_text())


@pytest.mark.parametrize("module", AGENT_MODULES)
def test_the_agent_needs_nothing_but_the_standard_library(module: str) -> None:
    assert foreign_imports(module) <= sys.stdlib_module_names
    assert {layer_of(imported) for imported in own_imports(module)} <= {"agent"}


@pytest.mark.parametrize("module", AGENT_MODULES)
def test_the_agent_imports_its_own_modules_by_relative_names(module: str) -> None:
    # In the sidecar the folder is a top-level package: an absolute name would not be found there.
    absolute = imported_names(source_path(module).read_text(), "elsewhere")
    assert not [name for name in absolute if name.split(".")[0] == PACKAGE]
