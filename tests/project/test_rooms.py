"""Tests stand in rooms: those that need no engine mirror the package, and what tests share is in `support`."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.project import ROOT

TESTS: Final = ROOT / "tests"
UNIT: Final = TESTS / "unit"
PACKAGE: Final = ROOT / "pytest_egress"
MOST_LINES: Final = 800
ROOMS: Final = {"engine", "foreign", "hostile", "images", "project", "support", "unit"}

ONLY_DATA: Final = "has facts or values and no code to speak of"
BY_ENGINE: Final = (
    "needs a real kernel, engine or client: the tests of `engine` and `hostile` hold it"
)
IN_PARTS: Final = "holds together what the tests of its neighbours begin with, and is never alone"

WITHOUT_FILE: Final = {
    "agent/addresses": ONLY_DATA,
    "agent/capture": BY_ENGINE,
    "agent/keeper": "engine/test_recycled reads its privileges, and moves it",
    "agent/main": "link/test_descriptor and engine/capture/test_capture talk with it",
    "agent/mux_frames": "test_mux reads and writes its frames",
    "agent/original_destination": BY_ENGINE,
    "agent/pump": "link/test_stream has one at each end",
    "agent/stream": "link/test_stream talks with it",
    "base/forks": "each test of a forked child, of whatever room, holds it",
    "base/once": IN_PARTS,
    "base/unset": ONLY_DATA,
    "endpoint/refusal": "test_bodies and test_calls read each of them",
    "endpoint/server": BY_ENGINE,
    "errors": ONLY_DATA,
    "evidence/facts": "test_encoder reads what it tells of each entry",
    "gateway/attempt": ONLY_DATA,
    "gateway/tls/authority": "test_handshake asks it for each certificate",
    "gateway/http/calling": "test_answering and its files call whatever answers",
    "gateway/destination": ONLY_DATA,
    "gateway/http/forwarding": "upstream/test_exchange and test_exchange_left forward by it",
    "gateway/http/incoming": ONLY_DATA,
    "gateway/http/named_hosts": "test_answering_misdirected asks it about each host",
    "gateway/tls/sockets": "raw/test_sockets and test_handshake read by it",
    "traffic/tls/clients": "test_hello tells the clients of its hellos",
    "gateway/http2/wire": "test_server and its floods send on it",
    "gateway/http3/handshake": "http3/test_server makes those that succeed and those that fail",
    "gateway/http3/sockets": "http3/test_server and test_endpoint deliver to it",
    "gateway/recorder": IN_PARTS,
    "gateway/http/replies": "test_answering_unrouted and test_answering_grpc read them",
    "gateway/http/sending": "test_answering_responses and test_answering_streams send by it",
    "gateway/site": ONLY_DATA,
    "gateway/tcp_info": "test_server_probes tells by it who was silent",
    "gateway/upstream/body": "test_http1 and test_http2 have one in each exchange",
    "gateway/upstream/upstreams": "test_exchange and raw/test_server_passing connect by it",
    "link/interface": ONLY_DATA,
    "plugin/header": "test_run reads its lines",
    "plugin/cases": "test_run and test_case run their tests by it",
    "plugin/copies": "test_sweep runs copies of each kind of test",
    "routes/duplex": ONLY_DATA,
    "routes/raw/kafka_consumers": "gateway/raw/test_server_kafka_consumers asks it",
    "routes/raw/kafka_server": "gateway/raw/test_server_kafka talks with it",
    "routes/sequences": ONLY_DATA,
    "sweep/faults": "test_trial and gateway/http/test_replacing answer by each of them",
    "targets/container": BY_ENGINE,
    "targets/contents": BY_ENGINE,
    "targets/plan": "test_options checks what it refuses",
    "targets/results": BY_ENGINE,
    "targets/trust/roots": BY_ENGINE,
    "targets/trust/runtimes": BY_ENGINE,
    "traffic/dns/answers": "gateway/dns/test_names_answers declares them",
    "traffic/kafka/codes": ONLY_DATA,
    "traffic/kafka/library": ONLY_DATA,
    "traffic/shown": "test_redaction and each test of a message read what it makes",
    "traffic/http/head": "gateway/http1/test_server sends them",
    "traffic/http/http3": "gateway/http3/test_server asks it for each request",
    "traffic/http/multiplexed": ONLY_DATA,
    "traffic/http/quic": "gateway/http3/test_server connects to it",
}
"""Modules that have no file of tests in `unit`, and why."""

WITHOUT_MODULE: Final = {
    "imports": "is about the package itself, and what its import brings in",
    "plugin/other_plugins": "is about plugins of others, whichever of our modules they meet",
}
"""Files of tests in `unit` that are of no module, and why."""

MODULES: Final = sorted(
    str(path.relative_to(PACKAGE).with_suffix(""))
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
)
FILES: Final = sorted(
    str(path.parent.relative_to(UNIT) / path.stem.removeprefix("test_"))
    for path in UNIT.rglob("test_*.py")
)


def sources() -> Iterator[Path]:
    """Every Python file of the tests, but programs of images and of other people's suites."""
    foreign = {"images", "foreign"}
    yield from (path for path in sorted(TESTS.rglob("*.py")) if not foreign & {*path.parts})


def module_of(file: str) -> str | None:
    """The module that a file of tests is named after: by its name, or by its beginning and a subject."""
    found = [name for name in MODULES if file == name or file.startswith(f"{name}_")]
    return max(found, key=len, default=None)


def test_each_file_of_units_has_its_module() -> None:
    assert [file for file in FILES if module_of(file) is None] == sorted(WITHOUT_MODULE)


def test_each_module_has_its_file_of_units() -> None:
    tested = {module_of(file) for file in FILES}
    assert [name for name in MODULES if name not in tested] == sorted(WITHOUT_FILE)


def test_there_are_no_other_rooms() -> None:
    folders = {path.name for path in TESTS.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == ROOMS
    assert [path.name for path in TESTS.glob("*.py")] == ["conftest.py"]


def test_no_unit_asks_for_an_engine() -> None:
    asking = [
        f"{path.relative_to(TESTS)}: {node.name}"
        for path in sorted(UNIT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and any(
            name.endswith("_image") or name in ("engine_client", "own_engine", "witness")
            for name in (argument.arg for argument in node.args.args)
        )
    ]
    assert asking == []


def imported(path: Path) -> Iterator[str]:
    """The name of everything that a module imports from a package, with the package's."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_of_tests_imports_another() -> None:
    found = {
        str(path.relative_to(TESTS))
        for path in sources()
        for name in imported(path)
        if name.startswith("tests.") and ".test_" in name
    }
    assert found == {"hostile/fuzz.py"}  # which feeds the properties that they hold


def test_no_file_has_more_lines_than_one_reads() -> None:
    lines = {str(path.relative_to(TESTS)): path.read_text().count("\n") for path in sources()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_no_two_classes_and_no_two_shared_functions_have_one_name() -> None:
    places = defaultdict(list)
    for path in sources():
        for node in ast.parse(path.read_text()).body:
            kinds = (
                (ast.ClassDef, ast.FunctionDef)
                if path.parent == TESTS / "support"
                else ast.ClassDef
            )
            if isinstance(node, kinds) and node.name != "main":
                places[node.name].append(str(path.relative_to(TESTS)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
