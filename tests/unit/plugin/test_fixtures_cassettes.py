"""Cassettes in runs of pytest: what each mode writes, and what a test is told."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml  # noqa: F401

import pytest_egress.cassettes
import pytest_egress.egress  # noqa: F401
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.stand_in import RunPytest, lines_of

# Before pytester takes its snapshot of sys.modules: a second run inside would have other classes of the same names.

IMPORTS = "from pytest_egress import cassette\n"
TWO = (
    IMPORTS
    + """
def test_a(egress):
    egress.intercept_https("api.test", cassette())
    traffic(egress, "https://api.test/a", "https://api.test/b")
"""
)


@pytest.fixture(autouse=True)
def real_servers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs that real servers were asked; each answer has its number."""
    asked: list[str] = []
    numbers = itertools.count(1)

    def forward(request: Request, *_: object) -> Response:
        asked.append(request.url)
        return Response(json={"n": next(numbers)})

    monkeypatch.setattr(Request, "forward", forward)
    return asked


def own(pytester: pytest.Pytester, name: str = "test_x/test_a.yaml") -> Path:
    return pytester.path / "cassettes" / name


def test_a_test_is_recorded_once_and_then_asks_no_server(
    run: RunPytest, pytester: pytest.Pytester, real_servers: list[str]
) -> None:
    """A recording that expires, and is recorded again in CI (vcr)."""
    result = run(TWO, "--egress-record-mode=once")
    result.assert_outcomes(passed=1)
    lines_of(result, "egress: records (once)")
    assert real_servers == ["https://api.test/a", "https://api.test/b"]
    text = own(pytester).read_text()
    run(TWO).assert_outcomes(passed=1)
    run(TWO, "--egress-record-mode=once").assert_outcomes(passed=1)
    assert (len(real_servers), own(pytester).read_text()) == (2, text)


def test_a_test_without_its_file_says_what_to_type(run: RunPytest) -> None:
    result = run(TWO)
    result.assert_outcomes(failed=1)
    lines_of(
        result,
        "*there is no cassettes/test_x/test_a.yaml; record it: "
        "pytest --egress-record-mode=once test_x.py::test_a",
    )


def test_a_failed_test_writes_nothing_and_leaves_the_old_file(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    run(TWO + "    assert False\n", "--egress-record-mode=once").assert_outcomes(failed=1)
    assert not own(pytester).exists()
    run(TWO, "--egress-record-mode=once").assert_outcomes(passed=1)
    text = own(pytester).read_text()
    run(TWO + "    assert False\n", "--egress-record-mode=rewrite").assert_outcomes(failed=1)
    assert own(pytester).read_text() == text
    run(TWO, "--egress-record-mode=rewrite").assert_outcomes(passed=1)
    assert own(pytester).read_text() != text


def test_an_unknown_request_and_one_too_many_are_unrouted_with_the_nearest_recording(
    run: RunPytest,
) -> None:
    """ "Can't overwrite existing cassette", "0 matchers failed" (vcrpy)."""
    run(TWO, "--egress-record-mode=once").assert_outcomes(passed=1)
    asked = TWO + '    traffic(egress, "https://api.test/c", "https://api.test/a")\n'
    result = run(asked)
    result.assert_outcomes(failed=1)
    lines_of(
        result,
        "*path: '/c' is not '/a'*",
        "*so says the nearest recording, cassettes/test_x/test_a.yaml:4",
        "*record it: pytest --egress-record-mode=new_episodes test_x.py::test_a",
        "*recordings: recorded 1 time in cassettes/test_x/test_a.yaml, and asked once more; "
        "repeat=True plays the last one again*",
    )


def test_a_recording_that_nothing_asks_for_fails_the_test_with_its_line(run: RunPytest) -> None:
    """Nobody notices that a recording is not used (vcrpy, vcr, php-vcr, go-vcr, pydantic-ai)."""
    run(TWO, "--egress-record-mode=once").assert_outcomes(passed=1)
    result = run(TWO.replace(', "https://api.test/b"', ""))
    result.assert_outcomes(failed=1)
    lines_of(
        result,
        "a recording was never asked for:",
        "  cassettes/test_x/test_a.yaml:*: GET https://api.test/b",
    )
    optional = TWO.replace(', "https://api.test/b"', "").replace(
        "cassette())", "cassette(), optional=True)"
    )
    run(optional).assert_outcomes(passed=1)


def test_the_marker_answers_what_no_route_claims_of_any_scope(
    run: RunPytest, pytester: pytest.Pytester, real_servers: list[str]
) -> None:
    source = (
        IMPORTS
        + """
@pytest.fixture(scope="module", autouse=True)
def route(module_egress):
    module_egress.intercept_https("own.test", {"own": 1})

@pytest.mark.egress_cassette()
def test_a(egress):
    egress.intercept_http("api.test:8080", {"own": 2}, path="/own")
    traffic(egress, "https://own.test/", "http://api.test:8080/own", "http://api.test:8080/b", "https://c.test/")
"""
    )
    run(source, "--egress-record-mode=once").assert_outcomes(passed=1)
    assert real_servers == ["http://api.test:8080/b", "https://c.test/"]
    run(source).assert_outcomes(passed=1)
    assert len(real_servers) == 2


SHARED = (
    IMPORTS
    + """
@pytest.fixture(scope="module", autouse=True)
def route(module_egress):
    module_egress.intercept_https("api.test", cassette())

def test_a(egress):
    traffic(egress, "https://api.test/a")

def test_b(egress):
    traffic(egress, "https://api.test/b")
"""
)


def test_a_module_has_a_file_of_its_own_which_a_failed_test_does_not_write(
    run: RunPytest, pytester: pytest.Pytester, real_servers: list[str]
) -> None:
    run(SHARED + "    assert False\n", "--egress-record-mode=once").assert_outcomes(
        passed=1, failed=1
    )
    assert not own(pytester, "test_x.yaml").exists()
    run(SHARED, "--egress-record-mode=once").assert_outcomes(passed=2)
    assert own(pytester, "test_x.yaml").exists()
    run(SHARED, "-k", "test_b").assert_outcomes(passed=1, deselected=1)
    assert len(real_servers) == 4


def test_all_is_refused_with_what_to_use(run: RunPytest) -> None:
    """Old recordings stay, since `all` appends (vcrpy, vcr)."""
    result = run(TWO, "--egress-record-mode=all")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*--egress-record-mode=all: it would keep what is no longer sent, where rewrite does not; "
            "it takes none, once, new_episodes or rewrite*"
        ]
    )


def test_a_malformed_marker_fails_the_collection_of_its_test(run: RunPytest) -> None:
    result = run("@pytest.mark.egress_cassette(ignore='json.id')\ndef test_a(): pass\n")
    assert "@pytest.mark.egress_cassette: cassette(ignore=" in result.stdout.str()


@pytest.mark.plugins("xdist")
def test_workers_record_their_tests_own_files_and_no_shared_one(run: RunPytest) -> None:
    """Workers that wrote one file lost most of it, and pytest said passed (syrupy)."""
    source = (
        IMPORTS
        + "def test_a(egress): egress.intercept_https('api.test', cassette({}), optional=True)\n"
    )
    mode = ("-n1", "--egress-record-mode=rewrite")
    run(source.format(""), *mode, subprocess=True).assert_outcomes(passed=1)
    result = run(source.format("'all.yaml'"), *mode, subprocess=True)
    lines_of(result, "*all.yaml: several processes run tests (pytest -n)*record it with -n 0*")


def test_a_shared_file_that_is_rewritten_loses_nothing_unless_all_tests_are_green(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    two = (
        IMPORTS
        + """
def test_a(egress):
    egress.intercept_https("api.test", cassette("api.yaml"))
    traffic(egress, "https://api.test/a")

def test_b(egress):
    egress.intercept_https("api.test", cassette("api.yaml"))
    traffic(egress, "https://api.test/b")
"""
    )
    file, rewrite = pytester.path / "api.yaml", "--egress-record-mode=rewrite"
    run(two, rewrite).assert_outcomes(passed=2)
    moved = two.replace("test/b", "test/c")
    result = run(moved + "    assert False\n", rewrite)
    result.assert_outcomes(passed=1, failed=1)
    lines_of(result, "egress: api.yaml keeps 1 recording that this run has not asked for: *")
    assert "https://api.test/b" in file.read_text()
    run(moved, rewrite, "-k", "test_b").assert_outcomes(passed=1, deselected=1)
    assert [f"https://api.test/{each}" in file.read_text() for each in "abc"] == [True] * 3
    run(moved, rewrite).assert_outcomes(passed=2)
    assert [f"https://api.test/{each}" in file.read_text() for each in "abc"] == [True, False, True]
