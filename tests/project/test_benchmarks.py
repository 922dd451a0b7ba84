"""What the benchmarks do with what they measured. No test looks at how long anything took."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import compare, engine_calls, growth, page, peers
from benchmarks.all_parts import PARTS
from benchmarks.compare import chosen, worker, worktree
from benchmarks.engine_calls import Call, Step
from benchmarks.figures import OURS, Figure, Row, line, number, rows_of, spread, table
from benchmarks.parts import Measure, Part, Subject, run, subjects
from benchmarks.peers import HYPERCORN, MOCKSERVER, WIREMOCK
from tests.support.project import ROOT

RATE = "requests/s"


def figures(**values: list[float]) -> dict[Figure, list[float]]:
    """What each round gave, by whose it is."""
    return {Figure("echo", RATE, of.replace("ours", OURS)): found for of, found in values.items()}


def fake_part(measure: Measure, *rows: Row, rounds: int = 3) -> Part:
    @contextmanager
    def prepare(of: Collection[str]) -> Iterator[Measure]:
        yield measure

    return Part(name="fake", rows=rows, rounds=rounds, prepare=prepare)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345.6, "12,346"),
        (100, "100"),
        (99.96, "100.0"),
        (12.34, "12.3"),
        (0.5, "0.50"),
        (0, "0.00"),
    ],
)
def test_a_number_has_as_many_digits_as_one_reads(value: float, text: str) -> None:
    assert number(value) == text


def test_a_spread_that_shows_nothing_is_left_out() -> None:
    assert spread([1.0, 0.25, 3.5]) == "0.25 to 3.50"
    assert (spread([2.0, 2.001]), spread([2.0]), spread([])) == ("", "", "")


def test_a_ratio_is_that_of_each_round_and_its_median_is_in_the_row() -> None:
    # The machine was slow in the second round, and slowed both.
    samples = figures(ours=[100, 50, 120], bare=[200, 100, 200])

    assert line(rows_of("echo", RATE, "bare")[0], samples, {}) == (
        "| echo | requests/s | 100 | bare | 200 | 0.50 | 0.50 to 0.60 |"
    )


def test_a_round_that_only_one_has_is_in_no_ratio() -> None:
    samples = figures(ours=[100, 100, 900], bare=[200, 200])

    assert "| 0.50 |  |" in line(rows_of("echo", RATE, "bare")[0], samples, {})


def test_what_is_compared_with_nothing_has_its_own_range() -> None:
    row = Row(subject="echo", unit=RATE)

    assert line(row, figures(ours=[10, 30, 20]), {}) == (
        "| echo | requests/s | 20.0 |  |  |  | 10.0 to 30.0 |"
    )


def test_a_peer_that_is_missing_has_its_reason_in_its_row() -> None:
    rows = rows_of("echo", RATE, "bare", "peer|s")

    text = table(rows, figures(ours=[10.0], bare=[10.0]), {"peer|s": "npm cannot install it"})

    *_, bare, peer = text.splitlines()
    assert bare == "| echo | requests/s | 10.0 | bare | 10.0 | 1.00 |  |"
    assert peer == (
        "| echo | requests/s | 10.0 | peer/s | not available: npm cannot install it |  |  |"
    )


def test_every_row_has_as_many_cells_as_the_head() -> None:
    rows = [row for part in PARTS.values() for row in part.rows]

    lines = table(rows, {}, {}).splitlines()

    assert len(lines) == len(rows) + 2
    assert {each.count("|") for each in lines} == {8}


def test_no_two_rows_are_about_the_same() -> None:
    rows = [(r.subject, r.unit, r.ours, r.against) for part in PARTS.values() for r in part.rows]
    assert len(rows) == len({*rows})


def test_what_several_rows_need_is_measured_once_a_round() -> None:
    asked: list[tuple[str, str]] = []

    def measure(subject: str, of: str) -> Mapping[str, float]:
        asked.append((subject, of))
        return {RATE: float(len(asked)), "ms": 1.0}

    rows = (*rows_of("echo", RATE, "bare", "peer"), *rows_of("echo", "ms", "bare"))
    result = run(fake_part(measure, *rows, rounds=2))

    one_round = [("echo", OURS), ("echo", "bare"), ("echo", "peer")]
    assert asked == one_round * 2
    assert result.samples[Figure("echo", RATE, OURS)] == [1.0, 4.0]


def test_a_peer_that_fails_is_left_out_and_the_others_are_measured() -> None:
    asked: list[str] = []

    def measure(subject: str, of: str) -> Mapping[str, float]:
        asked.append(of)
        if of == "peer":
            raise RuntimeError("nothing answers\nat all")
        return {RATE: 1.0}

    result = run(fake_part(measure, *rows_of("echo", RATE, "peer", "bare"), rounds=2))

    assert asked == [OURS, "peer", "bare", OURS, "bare"]
    assert result.missing == {"peer": "it failed: nothing answers"}


def test_a_part_that_fails_has_no_rows_and_ends_no_other_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "versions", lambda: ["Python 3"])
    measured = [{RATE: 1.0}, {RATE: 2.0}]  # the third round fails

    def fail(subject: str, of: str) -> Mapping[str, float]:
        return measured.pop()

    def works(subject: str, of: str) -> Mapping[str, float]:
        return {RATE: 5.0}

    first = fake_part(fail, Row(subject="echo", unit=RATE))
    second = fake_part(works, Row(subject="download", unit=RATE))
    with pytest.raises(SystemExit, match="failed, and not in the table: fake"):
        page.measured([first, dataclasses.replace(second, name="another")])

    shown, said = capsys.readouterr()
    assert "| download | requests/s | 5.00 |" in shown
    assert "echo" not in shown
    assert said.splitlines() == [
        "benchmarks: fake: 3 rounds",
        "benchmarks: fake failed: IndexError('pop from empty list')",
        "benchmarks: another: 3 rounds",
    ]


def test_a_verdict_after_the_last_round_fails_the_part_too() -> None:
    @contextmanager
    def prepare(of: Collection[str]) -> Iterator[Measure]:
        yield lambda subject, of: {RATE: 1.0}
        raise ValueError("too many attempts")

    part = Part(name="fake", rows=rows_of("echo", RATE, "bare"), rounds=1, prepare=prepare)
    with pytest.raises(ValueError, match="too many attempts"):
        run(part)


def test_a_peer_that_can_never_be_had_is_not_asked_for() -> None:
    asked: list[str] = []

    def measure(subject: str, of: str) -> Mapping[str, float]:
        asked.append(of)
        return {RATE: 1.0}

    result = run(fake_part(measure, *rows_of("echo", RATE, MOCKSERVER), rounds=1))

    assert asked == [OURS]
    assert "Maven" in result.missing[MOCKSERVER]


def test_a_peer_that_cannot_be_installed_leaves_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, folder = tmp_path / "bin", tmp_path / "peers"
    programs.mkdir()
    for name, text in {"npm": "echo no registry; exit 1", "java": "exit 0"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    for name in ("mitmproxy", "hypercorn"):
        (folder / name).mkdir(parents=True)
        (folder / name / "installed").touch()

    path = f"{programs}:{os.environ['PATH']}"
    ensure = [ROOT / "scripts/ensure-peers", folder]
    done = subprocess.run(ensure, env=os.environ | {"PATH": path}, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("it cannot be had: npm cannot install") == 2
    monkeypatch.setattr(peers, "PEERS", folder)
    monkeypatch.setattr(peers, "INSIDE", set())  # which are about who runs this
    assert peers.why_missing(WIREMOCK) == "npm cannot install wiremock@>=3.13"
    assert peers.why_missing(HYPERCORN) is None


def test_an_exponent_tells_flat_from_proportional_from_worse() -> None:
    sizes = (10, 100, 1000)
    assert growth.exponent({size: 7.0 for size in sizes}) == pytest.approx(0)
    assert growth.exponent({size: 3.0 * size for size in sizes}) == pytest.approx(1)
    assert growth.exponent({size: 3.0 * size**2 for size in sizes}) == pytest.approx(2)


def test_growth_is_shown_by_size() -> None:
    routes = growth.Growth(of="routes", unit="µs", sizes=(10, 1000), costs=lambda size: {"a": size})

    assert growth.table(routes, growth.measure(routes)) == (
        "| by routes, µs | 10 | 1,000 | exponent |\n"
        "|---|---:|---:|---:|\n"
        "| a | 10.0 | 1,000 | 1.00 |"
    )


def test_a_call_is_named_by_what_it_is_about() -> None:
    host, target = "http+docker://localhost/v1.45", "0123456789abcdef"
    roles = {target: "target"}
    assert [
        engine_calls.label_of(method, f"{host}{path}", roles)
        for method, path in (
            ("GET", "/images/pytest-egress-test/clients:latest/json"),
            ("POST", "/containers/create?name=pytest-egress-sidecar-95c0b9820359"),
            ("POST", f"/containers/{target}/start"),
            ("GET", f"/containers/{target}/json"),
            ("PUT", f"/containers/{target}/archive?path=%2F"),
            ("HEAD", f"/containers/{target}/archive?path=%2Fetc"),
            ("DELETE", f"/containers/{target}?v=True&link=False&force=True"),
            ("POST", "/containers/fedcba9876543210/kill"),
            ("GET", "/version"),
            ("GET", "/images/sha256:0123/history"),
            ("GET", "/images/json"),
            ("GET", "/containers/json?all=1"),
        )
    ] == [
        "image: inspect",
        "sidecar: create",
        "target: start",
        "target: inspect",
        "target: put files",
        "target: read files",
        "target: delete",
        "container: kill",
        "engine: GET version",
        "image: history",
        "engine: list images",
        "engine: list containers",
    ]


def test_the_calls_of_a_run_are_the_medians_of_all_runs_that_have_them() -> None:
    runs = [(10.0, 11.0), (20.0, 21.0), (30.0, 31.0)]
    calls = [
        *(Call("target: start", begin + 0.25, begin + 0.5) for begin, _ in runs),
        *(
            Call("target: logs", begin + after, begin + after + 0.125)
            for begin, _ in runs
            for after in (0.5, 0.75)
        ),
        Call("engine: GET version", 20.0, 20.5),
        Call("sidecar: create", 11.5, 12.5),  # in the background
    ]

    found = engine_calls.steps(calls, runs)

    assert found == [
        Step("target: start", 0.25, 0.25),
        Step("target: logs", 0.5, 0.125),
        Step("target: logs", 0.75, 0.125),
    ]
    assert engine_calls.table(found, 1.0) == (
        "| call | begins after, ms | takes, ms |\n"
        "|---|---:|---:|\n"
        "| target: start | 250 | 250 |\n"
        "| target: logs, 2 times | 500 | 250 |\n"
        "| the whole run | | 1,000 |\n"
    )


def test_the_page_says_whether_other_programs_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "versions", lambda: ["Python 3"])
    seen = "0.02 cores were busy before the first round, 0.10 after the last"
    assert f" Nothing else ran ({seen})." in page.origin(0.02, 0.1, 5)
    for before, after in ((1.0, 0.0), (0.0, 1.0)):
        assert "**Other programs ran (" in page.origin(before, after, 5)


def test_a_process_that_works_keeps_a_core_busy() -> None:
    before, began = page.busy_seconds(), time.process_time()
    while time.process_time() - began < 0.2:
        pass
    assert page.busy_seconds() - before >= 0.1  # it counts in hundredths, each core's


def test_the_table_replaces_what_stands_between_the_comments() -> None:
    text = "# Title\n\n<!-- calls: begin -->\n{}<!-- calls: end -->\n\nprose\n"

    after = page.replaced(text.format("old\n"), "calls", "new\n")

    assert after == text.format("new\n")
    assert page.replaced(after, "calls", "new\n") == after


def test_a_page_without_the_comments_is_left_alone() -> None:
    with pytest.raises(SystemExit, match="has no <!-- calls: begin -->"):
        page.replaced("<!-- calls: end -->\n<!-- calls: begin -->", "calls", "new")


def test_the_results_have_the_rows_of_every_part() -> None:
    _, of_table, _ = page.between(page.RESULTS.read_text(), "table")
    missing = [
        row.subject
        for part in PARTS.values()
        for row in part.rows
        if part.in_table and f"| {row.subject} | {row.unit} |" not in of_table
    ]
    assert missing == []  # make bench ARGS=page writes it


def test_the_page_shows_rows_of_the_results_as_they_are_there() -> None:
    _, whole, _ = page.between(page.RESULTS.read_text(), "table")
    _, of_page, _ = page.between(page.PAGE.read_text(), "table")

    assert of_page.strip() == page.shown(whole).strip()
    rows = [line for line in of_page.splitlines() if line.startswith("|")]
    assert sorted(map(page.key, rows[2:]), key=str) == sorted(page.SHOWN, key=str)


def test_each_row_that_the_page_shows_is_measured() -> None:
    measured = {
        (row.subject, row.unit, row.against) for part in PARTS.values() for row in part.rows
    }
    assert set(page.SHOWN) - measured == set()


def test_the_names_of_rows_and_of_parts_choose() -> None:
    assert [part.name for part in chosen([])] == [p.name for p in PARTS.values() if p.in_table]
    (throughput,) = chosen(["HTTPS, Keep-Alive"])
    assert {row.subject for row in throughput.rows} == {
        "HTTPS, keep-alive",
        "HTTPS, keep-alive, 32 connections",
    }
    assert [part.name for part in chosen(["trust", "near misses"])] == ["routes", "trust"]
    with pytest.raises(SystemExit, match="no row has 'cold start' in it"):
        chosen(["cold start"])


def test_two_commits_are_compared_in_what_is_ours() -> None:
    (links,) = chosen(["links"])
    assert compare.own_subjects(links) == [
        Subject("a link, HTTPS with keep-alive", "stream link"),
        Subject("a link, bodies of 16 MB", "stream link"),
    ]
    assert {row.against for row in compare.rows_against({}, links, "v1")} == {"v1"}
    assert subjects(links.rows) != compare.own_subjects(links)


def repository(folder: Path) -> Path:
    """A repository with one commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.test"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    return folder


def worktrees(folder: Path) -> int:
    """How many worktrees a repository has, its own among them."""
    command = ["git", "-C", str(folder), "worktree", "list", "--porcelain"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.count("worktree ")


def test_a_commit_that_is_not_there_ends_with_what_git_says(tmp_path: Path) -> None:
    with (
        pytest.raises(SystemExit, match=r"worktree add .* invalid reference: nowhere"),
        worktree(repository(tmp_path), "nowhere"),
    ):
        pass
    assert worktrees(tmp_path) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_comparison_that_is_ended_leaves_no_worktree(tmp_path: Path, how: signal.Signals) -> None:
    code = (
        "import signal, time; from pathlib import Path; from benchmarks.compare import ends_as_one_types, worktree\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "ends_as_one_types()\n"
        f"with worktree(Path({str(repository(tmp_path))!r}), 'HEAD') as tree:\n"
        "    print(tree, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        tree = Path(output.readline().strip())
        assert (tree / ".git").exists()
        assert worktrees(tmp_path) == 2
        process.send_signal(how)
        assert process.wait() != 0
    assert not tree.parent.exists()
    assert worktrees(tmp_path) == 1


def test_a_worker_measures_the_package_of_its_tree(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    (tmp_path / "pytest_egress").mkdir()
    (tmp_path / "pytest_egress" / "__init__.py").write_text("raise SystemExit('another package')")
    with (
        pytest.raises(RuntimeError, match="has failed"),
        worker(tmp_path, PARTS["routes"]) as process,
        pytest.raises(RuntimeError, match="has ended"),
    ):
        process.measure(Subject("finding the route of a request", "with 10,000 routes"))


def test_this_tree_is_compared_with_a_commit() -> None:
    before = worktrees(ROOT)

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "compare", "HEAD", "finding the route"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    (row,) = (each for each in done.stdout.splitlines() if each.startswith("| finding"))
    assert row.startswith("| finding the route of a request, with 10,000 routes | µs | ")
    assert " | HEAD | " in row
    assert "not available" not in row
    assert worktrees(ROOT) == before
