"""--egress-watch: a line for each attempt while tests run."""

from __future__ import annotations

import pytest

from tests.support.stand_in import RunPytest, keep_quiet

SOURCE = """
def test_a(egress):
    egress.intercept_https("x.test", 200)
    traffic(egress, "https://x.test/", "https://y.test/")
def test_b(): pass
"""
LINES = [
    "*  shop  GET https://x.test/  200",
    "*  shop  GET https://y.test/  no route",
    '          egress.intercept_https("y.test", method="GET", path="/")',
    "F. *",
]


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)


@pytest.mark.slow
def test_the_lines_stand_before_the_outcome_of_their_test(run: RunPytest) -> None:
    result = run(SOURCE, "--egress-watch", subprocess=True)
    result.stdout.fnmatch_lines(LINES, consecutive=True)
    assert "\x1b[" not in result.stdout.str()


@pytest.mark.slow
def test_a_colour_says_what_became_of_an_attempt(run: RunPytest) -> None:
    result = run(SOURCE, "--egress-watch", "--color=yes", "-q", subprocess=True)
    result.stdout.re_match_lines([r"\x1b\[32m .* 200\x1b\[0m", r"\x1b\[31m .* no route\x1b\[0m"])


@pytest.mark.slow
def test_without_the_option_there_is_no_line(run: RunPytest) -> None:
    result = run(SOURCE, subprocess=True)
    result.stdout.no_fnmatch_line("*  shop  GET *  200")


@pytest.mark.plugins("xdist")
def test_workers_are_refused_and_none_is_not(run: RunPytest) -> None:
    result = run(SOURCE, "--egress-watch", "-n1")
    result.stderr.fnmatch_lines(["*--egress-watch prints what one process sees*Run with -n 0"])
    assert run(SOURCE, "--egress-watch", "-n0").ret == 1
