"""Rooms import downwards, through each other's doors; each room keeps away from what it must not know.

Read from the source itself: imports inside functions and under TYPE_CHECKING count like any other.

Not import-linter: its layers and cycles say a tenth of the table. Doors, and packages that a room may import, would be
lists of all that it may not (2,000 lines), in which a new module or package is missing and so allowed. A door or an
import that nothing needs has no contract. About 30 lines here would go.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.project import ROOT

PACKAGE = "pytest_egress"
PACKAGE_FOLDER = ROOT / PACKAGE


@dataclass(frozen=True, kw_only=True)
class Room:
    """What one room may import.

    Attributes:
        uses: Rooms, or single modules of them, whose doors it may import.
        foreign: Packages from elsewhere than the standard library.
        doors: Its modules that other rooms may import; None means all of them.
    """

    uses: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    doors: tuple[str, ...] | None = None


ROOMS = {
    "agent": Room(),
    "base": Room(),
    "shelf": Room(),
    "errors": Room(uses=("base",)),
    "traffic": Room(
        uses=("errors", "base", "agent.netlink"),
        foreign=(
            "aioquic", "backports", "brotli", "brotlicffi", "compression", "cramjam", "dns", "google", "h11", "h2",
            "idna", "kafka", "python_multipart", "wsproto", "yaml",
        ),
    ),
    "link": Room(
        uses=("errors", "base", "agent"),
        foreign=("h11",),
    ),
    "routes": Room(
        uses=("errors", "base", "traffic"),
        foreign=(
            "grpc", "jsonschema", "openapi_schema_validator", "openapi_spec_validator", "referencing",
            "regex", "typing_extensions", "yaml",  # the extensions for type checkers alone, which bring them
        ),
        doors=(
            "answers", "applications.asgi", "applications.asgi_websocket", "applications.wsgi", "cassette",
            "certificates", "datagrams", "declarations", "duplex", "faults", "grpc.server", "inner_route", "kinds",
            "openapi.answer", "partials", "patterns", "raw.kafka", "raw.libraries", "raw.smtp", "recordings.deck",
            "recordings.reel", "route", "services", "table", "turns", "websocket.answer",
            "websocket.asynchronous", "websocket.open",
        ),
    ),
    "engine": Room(
        uses=("errors", "base", "link.attach"),
        foreign=("docker", "requests"),
        doors=("archive", "copier", "endpoint", "engine", "failures", "leftovers"),
    ),
    "ledger": Room(uses=("errors", "base", "traffic", "routes")),
    "sweep": Room(uses=("errors", "base", "traffic", "routes")),
    "evidence": Room(uses=("errors", "base", "traffic", "routes", "ledger"), foreign=("google",)),
    "gateway": Room(
        uses=("errors", "base", "traffic", "routes", "ledger", "link", "agent.netlink"),
        foreign=("cryptography", "h11", "h2", "trustme"),
        doors=("raw.sockets", "server", "tls.authority"),
    ),
    "targets": Room(
        uses=(
            "errors", "base", "traffic", "link", "routes", "engine", "ledger", "gateway",
            "agent.addresses", "agent.main",
        ),
        foreign=("cryptography", "docker", "requests"),
        doors=(
            "container", "external", "handle", "ingress", "mounts", "options", "plan", "readiness", "results",
            "sidecars.provision", "sidecars.ready", "sidecars.relay", "sidecars.sidecar", "trust.packages",
            "trust.roots",
        ),
    ),
    "cassettes": Room(uses=("errors", "base", "traffic", "routes", "shelf")),
    "session": Room(
        uses=(
            "errors", "base", "traffic", "engine", "ledger", "gateway", "targets", "cassettes",
        ),
        foreign=("docker", "trustme"),
    ),
    "inner_egress": Room(
        uses=(
            "errors", "base", "traffic", "routes", "ledger", "targets", "cassettes", "session",
        )
    ),
    "endpoint": Room(
        uses=("errors", "base", "traffic", "engine", "targets", "inner_egress"),
        foreign=("docker", "h11"),
        doors=("compose", "server", "stack"),
    ),
    "egress": Room(
        uses=(
            "errors", "base", "traffic", "routes", "ledger", "targets", "session", "inner_egress", "endpoint",
        )
    ),
    "commands": Room(
        uses=(
            "errors", "base", "traffic", "routes", "ledger", "evidence", "cassettes", "session", "egress",
        ),
        doors=("audit", "diff", "order", "record", "watch"),
    ),
    "cli": Room(
        uses=(
            "errors", "base", "traffic", "engine", "evidence", "targets", "session", "commands", "link.attach"
        )
    ),
    "": Room(
        uses=("errors", "base", "traffic", "routes", "gateway", "targets", "endpoint", "egress")
    ),
    "plugin": Room(
        uses=(
            "errors", "base", "shelf", "traffic", "routes", "engine", "ledger", "sweep", "evidence", "gateway",
            "targets", "cassettes", "session", "inner_egress", "endpoint", "egress",
        ),
        foreign=("docker", "pytest", "trustme"),
    ),
}  # fmt: skip
"""The rooms and the modules beside them, the lowest first; "" is the package itself, which users import."""

FLOORS: dict[str, list[set[str]]] = {
    "traffic": [
        {"address", "datagrams", "ntp", "packets", "shown", "smtp", "tls"},
        {"absent", "kafka", "redaction", "strict_json"},
        {"http"},
        {"grpc", "notes", "websocket"},
        {"entries"},
        {"parts"},
        {"cassettes", "dns", "search", "statsd", "syslog"},
    ],
    "routes": [
        {"cassette", "certificates", "kinds", "partials", "patterns", "sequences"},
        {"faults", "literals"},
        {"answers", "json_bodies", "names"},
        {"datagrams", "duplex", "raw"},
        {"services", "websocket"},
        {"recordings"},
        {"grpc", "matching", "turns"},
        {"applications", "declarations", "openapi"},
        {"route"},
        {"inner_route"},
        {"table"},
    ],
    "gateway": [
        {"destination", "handlers", "lasting", "patience", "site", "tcp_info"},
        {"attempt", "upstream"},
        {"recorder"},
        {"connection"},
        {"connections", "dns"},
        {"http", "kernel_rules", "proxying", "tls"},
        {"datagram_rules", "dials", "http1", "http2", "raw"},
        {"http3"},
        {"datagrams", "packets"},
        {"dispatch"},
        {"server"},
    ],
    "targets": [
        {"mounts"},
        {
            "created",
            "ingress",
            "options",
            "proxies",
            "readiness",
            "results",
            "sidecars",
            "trust",
        },
        {"handle", "logs", "plan", "processes"},
        {"contents", "ending"},
        {"container"},
        {"external"},
    ],
}
"""The wings and modules of a room, the lowest first: each uses those of lower floors alone."""

OUTSIDE_WORLD = {"_socket", "docker", "pytest", "socket", "ssl", "subprocess", "threading", "time"}

FORBIDDEN = {
    "traffic": OUTSIDE_WORLD,
    "routes": OUTSIDE_WORLD,
    "engine": {"ssl"},
    "targets": {"ssl"},
}
"""Packages of the standard library that a room must not import."""

EXCEPTIONS = {
    "routes.grpc.server": {"threading"},
    "routes.grpc.turns": {"threading"},
    "routes.raw.kafka_groups": {"threading"},
    "routes.raw.kafka_log": {"threading"},
    "routes.recordings.reel": {"threading"},
    "routes.recordings.turns": {"threading"},
    "routes.websocket.open": {"threading"},
}
"""The threads of a call of gRPC take turns. `routes.grpc.server` names a type of `threading` in the signature of
`grpc.Server.stop`. A WebSocket has a reader, and a cassette waits for one that is recorded, and for a client that has
to leave its call. The connections of a broker share its topics and groups, which have locks."""

SHARED_WORDS = {
    "Container": "tests hold `targets.container.Container` by its interface, `targets.handle.Container`",
}
"""The names of classes and type aliases that several modules define, and why."""

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE_FOLDER).with_suffix("").parts)
    .removesuffix("__init__")
    .rstrip(".")
    for path in PACKAGE_FOLDER.rglob("*.py")
)


def room_of(module: str) -> str:
    return module.split(".")[0]


def modules_of(*rooms: str) -> list[str]:
    return [module for module in MODULES if room_of(module) in rooms]


def source_path(module: str) -> Path:
    path = PACKAGE_FOLDER.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


FOLDERS = sorted(
    module for module in MODULES if module and source_path(module).name == "__init__.py"
)
"""Rooms with more than one module, and wings."""


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


def refusal(module: str, imported: str) -> str | None:
    """Say why *module* must not import *imported*, a module of another room, or None."""
    room, other = room_of(module), room_of(imported)
    if not {other, imported} & {*ROOMS[room].uses}:
        return f"{module} imports {imported}: {room or PACKAGE} may use {', '.join(ROOMS[room].uses) or 'nothing'}"
    doors = ROOMS[other].doors
    if doors is not None and imported.partition(".")[2] not in doors:
        return f"{module} imports {imported}: the doors of {other} are {', '.join(doors)}"
    return None


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


def test_every_module_is_in_a_room_and_the_table_names_none_that_is_gone() -> None:
    assert {room_of(module) for module in MODULES} == {*ROOMS}
    named = {f"{name}.{door}" for name, room in ROOMS.items() for door in room.doors or ()}
    used = {use for room in ROOMS.values() for use in room.uses}
    assert named | used <= {*MODULES}


def test_the_contributors_table_is_this_one() -> None:
    page = (PACKAGE_FOLDER.parent / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|(.*)\|(.*)\|(.*)\|$", page, re.MULTILINE)
    told = [(name, *(cell.strip() for cell in cells)) for name, *cells in rows]
    assert told == [row_of(name) for name in ROOMS]


def test_the_contributors_picture_is_of_this_table() -> None:
    page = (PACKAGE_FOLDER.parent / "CONTRIBUTING.md").read_text()
    assert re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL) == [picture()]


def picture() -> str:
    """Draw the rooms, those that users meet first, with their wings; an arrow that follows from others is left out."""
    uses = {name: {room_of(used) for used in room.uses} for name, room in ROOMS.items()}
    lines = ["flowchart TD"]
    for name in reversed(ROOMS):
        wings = sorted(
            folder.rpartition(".")[2] for folder in FOLDERS if folder.startswith(f"{name}.")
        )
        label = "<br>".join(filter(None, [f"<b>{name or 'pytest_egress'}</b>", " ".join(wings)]))
        lines.append(f'    {name or "package"}["{label}"]')
    for name in reversed(ROOMS):
        beyond = {far for used in uses[name] for far in reached(used, uses)}
        lines += [
            f"    {name or 'package'} --> {used}" for used in ROOMS if used in uses[name] - beyond
        ]
    return "\n".join([*lines, ""])


def reached(room: str, uses: dict[str, set[str]]) -> set[str]:
    return uses[room].union(*(reached(used, uses) for used in uses[room]))


def row_of(name: str) -> tuple[str, ...]:
    """What the contributors' table says of a room or a module: what it imports, foreign packages, its doors."""
    room = ROOMS[name]
    doors = room.doors or (("all",) if name and (PACKAGE_FOLDER / name).is_dir() else ())
    cells = (", ".join(words) for words in (room.uses, room.foreign, doors))
    return (name or "__init__", *cells)


def test_rooms_are_used_by_those_above_them_only() -> None:
    order = list(ROOMS)
    for name, room in ROOMS.items():
        for used in room.uses:
            assert order.index(room_of(used)) < order.index(name), f"{name} uses {used}"


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_what_its_row_names_through_doors(module: str) -> None:
    others = {other for other in own_imports(module) if room_of(other) != room_of(module)}
    assert [text for other in sorted(others) if (text := refusal(module, other))] == []


def test_each_door_and_each_use_of_the_table_is_needed() -> None:
    crossings = {
        (room_of(module), other)
        for module in MODULES
        for other in own_imports(module)
        if room_of(other) != room_of(module)
    }
    entered = {other for _, other in crossings}
    unused = [
        f"{name}.{door}"
        for name, room in ROOMS.items()
        for door in room.doors or ()
        if f"{name}.{door}" not in entered
    ]
    unneeded = [
        f"{name} uses {used}"
        for name, room in ROOMS.items()
        for used in room.uses
        if not any(user == name and used in (other, room_of(other)) for user, other in crossings)
    ]
    assert (unused, unneeded) == ([], [])


def type_names(module: str) -> Iterator[str]:
    """Yield the names of the classes and the type aliases that a module defines, but not of type variables."""
    tree = ast.parse(source_path(module).read_text())
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        target, equals, value = ast.unparse(node).partition(" = ")
        name = target.partition(":")[0]
        if re.fullmatch(r"_?[A-Z][a-z]\w*", name) and equals and not value.startswith("TypeVar("):
            yield name


def test_a_word_is_one_type() -> None:
    homes: dict[str, set[str]] = {}
    for module in MODULES:
        for name in type_names(module):
            homes.setdefault(name, set()).add(module)
    shared = {name: sorted(found) for name, found in homes.items() if len(found) > 1}
    assert {name: found for name, found in shared.items() if name not in SHARED_WORDS} == {}
    assert {*SHARED_WORDS} == {*shared}


def test_there_is_no_import_cycle() -> None:
    try:
        TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}", pytrace=False)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_the_foreign_packages_of_its_row_only(module: str) -> None:
    foreign = foreign_imports(module)
    room = room_of(module)
    assert foreign - sys.stdlib_module_names <= {*ROOMS[room].foreign}
    assert not foreign & (FORBIDDEN.get(room, set()) - EXCEPTIONS.get(module, set()))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_front_page_has_a_line_for_each_module_and_imports_nothing(folder: str) -> None:
    tree = ast.parse(source_path(folder).read_text())
    named = re.findall(r"^\* `(\w+)`", ast.get_docstring(tree) or "", re.MULTILINE)
    inside = [module for module in MODULES if module.rpartition(".")[0] == folder]
    assert sorted(named) == [module.rpartition(".")[2] for module in inside]
    if folder != "plugin":  # where pytest finds hooks and fixtures
        assert len(tree.body) == 1


def place_of(module: str) -> str:
    """Return the wing of *module*, or the module itself where it stands in none."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("room", FLOORS)
def test_a_wing_is_used_by_what_is_above_it_only(room: str) -> None:
    floor_of = {
        f"{room}.{place}": floor for floor, places in enumerate(FLOORS[room]) for place in places
    }
    assert {*floor_of} == {place_of(module) for module in modules_of(room)} - {room}
    arrows = {
        (place_of(module), place_of(other))
        for module in modules_of(room)
        for other in own_imports(module)
        if room_of(other) == room and place_of(other) != place_of(module)
    }
    assert [f"{a} uses {b}" for a, b in sorted(arrows) if floor_of[a] <= floor_of[b]] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_more_than_400_lines_of_code_says_why_it_is_long(module: str) -> None:
    source = source_path(module).read_text()
    if code_lines(source) > 400:
        assert "long" in (ast.get_docstring(ast.parse(source)) or "")


def code_lines(source: str) -> int:
    """Count the lines of a module that hold code: no docstring, no comment, and not blank."""
    empty = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {
        line
        for token in tokens
        if token.type not in empty
        for line in range(token.start[0], token.end[0] + 1)
    }
    texts = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    return len(
        code - {line for node in texts for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    )


IMPORTED_FIRST = """
import gc, importlib, os, sys, traceback
folder, path, foreign, *modules = sys.argv[1:]
for name in foreign.split():
    try:
        importlib.import_module(name)
    except ImportError:
        pass
assert not {*modules} & {*sys.modules}
sys.path.insert(0, path)
sys.dont_write_bytecode, sys.pycache_prefix = False, folder
gc.freeze()
for name in modules:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name)
"""
"""Each in a child of one process that has what they import from elsewhere and nothing of ours. A module is compiled by
the first child that needs it."""


def not_imported_first(path: Path, names: list[str], cache: Path) -> tuple[list[str], str]:
    """Return the modules in *path* that cannot be the first that is imported, and their errors."""
    foreign = " ".join(sorted({name for module in MODULES for name in elsewhere(module)}))
    code = [sys.executable, "-W", "ignore", "-c", IMPORTED_FIRST]
    command = [*code, str(cache), str(path), foreign, *names]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split(), done.stderr


def elsewhere(module: str) -> Iterator[str]:
    """Yield the modules of other packages that *module* imports, and those that may be modules."""
    for name in imports_of(module):
        if name.split(".")[0] != PACKAGE:
            yield name
            yield name.rpartition(".")[0] or name


def test_each_module_of_the_plugin_can_be_imported_first(tmp_path: Path) -> None:
    # Elsewhere there is no import cycle, and no front page that imports what is on it.
    names = [f"{PACKAGE}.{module}" for module in modules_of("plugin")]
    failed, errors = not_imported_first(PACKAGE_FOLDER.parent, names, tmp_path)
    assert not failed, errors


def test_a_module_that_cannot_be_imported_first_is_found(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text("from second import a\nb = a")
    (tmp_path / "second.py").write_text("import first\na = 1\n")
    (tmp_path / "third.py").write_text("import xml\nxml.no_module_of_it\n")
    names = ["first", "second", "third"]
    failed, errors = not_imported_first(tmp_path, names, tmp_path / "cache")
    assert failed == ["second", "third"]
    assert "no_module_of_it" in errors


@pytest.mark.parametrize(
    "module", sorted({*MODULES} - {*modules_of("agent"), "base.clock", "base.sockets"})
)
def test_what_tests_replace_is_reached_by_one_module_each(module: str) -> None:
    # freezegun stops the clocks, pytest-socket forbids sockets: ours are in `clock` and `sockets`.
    replaced = r"\b(time\.(time|monotonic|perf_counter)|datetime\.now|socket\.(socket|socketpair|create_server))\("
    assert not re.findall(replaced, source_path(module).read_text())


@pytest.mark.parametrize("module", modules_of("agent"))
def test_the_agent_imports_its_own_modules_by_relative_names(module: str) -> None:
    # In the sidecar the folder is a top-level package: an absolute name would not be found there.
    absolute = imported_names(source_path(module).read_text(), "elsewhere")
    assert not [name for name in absolute if name.split(".")[0] == PACKAGE]
