"""Workers of pytest-xdist: on one engine they get nothing of each other, and each may have an engine of its own."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any, Final

import docker
import pytest

from pytest_egress.base.clock import wall
from pytest_egress.engine.endpoint import engine_address
from pytest_egress.engine.leftovers import SESSION_LABEL, SIDECAR, TARGET
from pytest_egress.targets.sidecars.relay import RELAY
from tests.support.engines import OwnEngine, PrivateEngine
from tests.support.leftovers import until
from tests.support.project import ROOT

pytestmark = pytest.mark.plugins("xdist")

EXAMPLE: Final = ROOT / "examples" / "test_two_engines.py"
MODULE: Final = """
import json, os, pytest
from pytest_egress import http_ok
from pytest_egress.engine.endpoint import engine_address

@pytest.fixture
def note(request, worker_id, session_egress):
    def note(**facts):
        facts |= {"worker": worker_id, "test": request.node.name}
        facts["session"] = session_egress._inner.session.engine.labels["org.pytest-egress.session"]
        with open(f"notes-{worker_id}", "a") as file: print(json.dumps(facts), file=file)
    return note
"""


class Worker:
    """Runs pytest with workers, and reads what their tests have noted."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester

    def run(self, source: str, *args: str) -> pytest.RunResult:
        self.pytester.makepyfile(test_x=MODULE + textwrap.dedent(source))
        options = ("-pno:cacheprovider", "-pno:rerunfailures", "-Wignore")
        return self.pytester.runpytest_subprocess(*options, *args)

    def notes(self) -> list[dict[str, Any]]:
        files = self.pytester.path.glob("notes-*")
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def workers(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Worker:
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_EGRESS_ENGINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return Worker(pytester)


# One engine.


@pytest.mark.parametrize("count", [4, 16])
def test_workers_on_one_engine_get_nothing_of_each_other(
    workers: Worker, clients_image: str, count: int
) -> None:
    result = workers.run(
        f"""
        @pytest.fixture(scope="session")
        def shop(session_egress):  # its name, its addresses and the names it asks for are everyone's
            server = ["python3", "-m", "http.server", "8080"]
            return session_egress.start({clients_image!r}, server, wait=http_ok(8080))
        @pytest.mark.parametrize("n", range({2 * count}))
        def test_a(egress, shop, note, worker_id, n):
            me = f"{{worker_id}}-{{n}}"
            route = egress.intercept_https("api.test", lambda request: f"{{me}} {{request.path}}")
            paths = [f"/{{me}}/{{k}}" for k in range(5)]
            urls = [f"https://api.test{{path}}" for path in paths]
            result = shop.exec(["curl", "-sS", "--fail", "-w", "\\\\n", *urls])
            assert result.stdout.splitlines() == [f"{{me}} {{path}}" for path in paths], result
            assert [call.request.path for call in route.calls] == paths
            assert egress.exchanges == route.calls
            note(target=shop.id, sidecar=shop._docker.attrs["HostConfig"]["NetworkMode"],
                 name=shop._docker.name, folder=egress._inner.session.engine.folder)
        """,
        f"-n{count}",
    )
    result.assert_outcomes(passed=2 * count)
    result.stdout.no_fnmatch_line("*outside of any test*")
    notes = workers.notes()
    assert len(notes) == 2 * count
    assert len({note["worker"] for note in notes}) == count, "some worker ran no test"
    for kind in ("session", "target", "sidecar", "name", "folder"):
        of_worker = {(note["worker"], note[kind]) for note in notes}
        assert len({value for _, value in of_worker}) == len(of_worker) == count, kind


def test_a_worker_that_fails_shows_its_own_attempts_alone(
    workers: Worker, clients_image: str
) -> None:
    result = workers.run(
        f"""
        @pytest.mark.parametrize("n", range(4))
        def test_a(egress, n):
            egress.run({clients_image!r}, ["curl", "-sS", f"https://x{{n}}.test/"])
        """,
        "-n4",
    )
    result.assert_outcomes(failed=4)
    summary = [line for line in result.outlines if line.startswith("FAILED")]
    assert len(summary) == 4
    for number in range(4):
        (line,) = (line for line in summary if f"test_a[{number}]" in line)
        assert line.endswith(f" - GET https://x{number}.test/: no route claims it")


# An engine for each worker.


@pytest.fixture(scope="module")
def second(
    own_engine: OwnEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateEngine]:
    with own_engine(tmp_path_factory.mktemp("second"), tls=True) as engine:
        yield engine


ASKS: Final = """
def test_a(egress, note):
    egress.run({image!r}, ["sh", "-c", "exit 0"])
    client = egress._inner.session.engine.client
    note(engine=engine_address(client), id=client.info()["ID"])
"""


def test_worker_n_takes_engine_n_and_begins_again_where_there_are_fewer(
    workers: Worker,
    second: PrivateEngine,
    engine_client: docker.DockerClient,
    bare_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second.load(engine_client, bare_image)
    first = engine_address(engine_client)
    monkeypatch.setenv("PYTEST_EGRESS_ENGINES", f"{first},{second.address}")
    result = workers.run(ASKS.format(image=bare_image), "-n4", "--dist=each")
    result.assert_outcomes(passed=4)
    engines = [engine_client.info()["ID"], second.client().info()["ID"]]
    expected = {f"gw{n}": {engines[n % 2]} for n in range(4)}
    for worker, ids in expected.items():
        assert {note["id"] for note in workers.notes() if note["worker"] == worker} == ids
    assert until(lambda: not second.client().containers.list(all=True, ignore_removed=True))


def test_without_workers_it_is_the_first(
    workers: Worker, second: PrivateEngine, engine_client: docker.DockerClient, bare_image: str
) -> None:
    second.load(engine_client, bare_image)
    workers.pytester.makeini(
        f"[pytest]\negress_engines =\n  {second.address}\n  unix:///never.sock\n"
    )
    result = workers.run(ASKS.format(image=bare_image))
    result.assert_outcomes(passed=1)
    assert [note["engine"] for note in workers.notes()] == [second.address]


def test_an_engine_may_be_reached_by_its_certificate(
    workers: Worker,
    second: PrivateEngine,
    engine_client: docker.DockerClient,
    bare_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second.load(engine_client, bare_image)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(second.cert_path))
    addresses = f"{engine_address(engine_client)},{second.tls_address}"
    result = workers.run(
        ASKS.format(image=bare_image), "-n2", "--dist=each", f"--egress-engines={addresses}"
    )
    result.assert_outcomes(passed=2)
    assert {note["id"] for note in workers.notes() if note["worker"] == "gw1"} == {
        second.client().info()["ID"]
    }


def test_an_image_that_one_engine_lacks_is_missed_there(
    workers: Worker, second: PrivateEngine, engine_client: docker.DockerClient, roots_image: str
) -> None:
    result = workers.run(
        ASKS.format(image=roots_image),
        "-n2",
        "--dist=each",
        f"--egress-engines={engine_address(engine_client)},{second.address}",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [f"E *ImageError: the image '{roots_image}' is not on the engine at {second.address} and *"]
    )


def test_an_engine_that_does_not_answer_is_named(workers: Worker, bare_image: str) -> None:
    result = workers.run(ASKS.format(image=bare_image), "--egress-engines=unix:///never.sock")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *EngineError: no Docker engine answers at unix:///never.sock: *",
            "E *or name another with egress_engines; *",
        ]
    )


def test_the_example_of_two_engines_uses_both(
    workers: Worker, second: PrivateEngine, engine_client: docker.DockerClient, shop_image: str
) -> None:
    second.load(engine_client, shop_image)
    for name in (EXAMPLE.name, "conftest.py"):
        shutil.copy(EXAMPLE.with_name(name), workers.pytester.path)
    since = int(wall())
    result = workers.pytester.runpytest_subprocess(
        "-n2",
        "-pno:cacheprovider",
        f"--egress-engines={engine_address(engine_client)},{second.address}",
        EXAMPLE.name,
    )
    result.assert_outcomes(passed=4)
    created = second.client().events(
        since=since,
        until=int(wall()) + 1,
        filters={"type": "container", "event": "create", "label": SESSION_LABEL},
        decode=True,
    )
    names = [event["Actor"]["Attributes"]["name"] for event in created]
    assert sum(name.startswith(TARGET) for name in names) == 1, "its worker's shop"
    sidecars = [it for it in names if it.startswith(SIDECAR) and not it.startswith(RELAY)]
    assert len(sidecars) in (1, 2), "its own, and one that is ready for a next container"
