"""Options: which of them counts, and what is wrong with a bad one."""

from __future__ import annotations

import pytest

from tests.support.stand_in import INI, RunPytest, lines_of

# Options.


def policy_test(expected: str) -> str:
    return (
        f"def test_a(egress): assert egress._inner.session.ledger.window.policy == {expected!r}\n"
    )


@pytest.mark.parametrize(
    ("ini", "environment", "args", "marker", "expected"),
    [
        ("", "", [], "", "fail"),
        ("block", "", [], "", "block"),
        ("block", "fail", [], "", "fail"),
        ("fail", "fail", ["--egress-unrouted=block"], "", "block"),
        ("fail", "fail", ["--egress-unrouted=fail"], "block", "block"),
    ],
    ids=["default", "ini", "environment", "command-line", "marker"],
)
def test_marker_then_command_line_then_environment_then_ini_then_default(
    run: RunPytest,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    ini: str,
    environment: str,
    args: list[str],
    marker: str,
    expected: str,
) -> None:
    if ini:
        pytester.makeini(f"{INI}egress_unrouted = {ini}")
    monkeypatch.setenv("PYTEST_EGRESS_UNROUTED", environment)
    mark = f"@pytest.mark.egress(unrouted={marker!r})\n" if marker else ""
    run(mark + policy_test(expected), *args).assert_outcomes(passed=1)


def test_the_options_hold_outside_of_tests_too(run: RunPytest) -> None:
    result = run(
        """
def test_a(module_egress, egress):
    session = egress._inner.session
    assert (module_egress._inner.between.policy, module_egress._inner.between.dns) == ("passthrough", "strict")
    assert session.ledger.window.dns == "synthetic"
test_a = pytest.mark.egress(dns="synthetic")(test_a)
""",
        "--egress-unrouted=passthrough",
        "--egress-dns=strict",
    )
    result.assert_outcomes(passed=1)


def test_options_of_markers_are_merged_key_by_key(run: RunPytest) -> None:
    result = run("""
from pytest_egress.plugin.case import CASE
from pytest_egress.plugin.options import Options
pytestmark = pytest.mark.egress(unrouted="block", timeout=1)
@pytest.mark.egress(timeout=2, assert_all_called=False)
class TestC:
    @pytest.mark.egress(timeout=3)
    def test_a(self, request):
        options = request.node.stash[CASE].options
        assert options == Options(unrouted="block", timeout=3, assert_all_called=False)
""")
    result.assert_outcomes(passed=1)


def test_assert_all_called_can_be_switched_off(run: RunPytest) -> None:
    result = run("""
@pytest.mark.intercept_https("never.test")
@pytest.mark.egress(assert_all_called=False)
def test_a(): pass
""")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("ini", "variables", "args", "text"),
    [
        (
            "",
            {},
            ["--egress-unrouted=ignore"],
            "--egress-unrouted=ignore: it takes fail, block or passthrough",
        ),
        (
            "",
            {"PYTEST_EGRESS_UNROUTED": "ignore"},
            [],
            "PYTEST_EGRESS_UNROUTED=ignore in the environment: it takes fail, block or passthrough",
        ),
        (
            "egress_unrouted = ignore",
            {},
            [],
            "egress_unrouted = ignore in *tox.ini: it takes fail, block or passthrough",
        ),
        (
            "egress_dns = none",
            {},
            [],
            "egress_dns = none in *tox.ini: it takes synthetic or strict",
        ),
        (
            "",
            {"PYTEST_EGRESS_LINK": "rope"},
            [],
            "PYTEST_EGRESS_LINK=rope in the environment: it takes auto, descriptor or stream",
        ),
        (
            "",
            {},
            ["--egress-sidecar-reuse=never"],
            "--egress-sidecar-reuse=never: it takes on or off",
        ),
        (
            "",
            {"PYTEST_EGRESS_KEEP": "maybe"},
            [],
            "PYTEST_EGRESS_KEEP=maybe in the environment: it takes one of 1, true, *",
        ),
        (
            "egress_keep = maybe",
            {},
            [],
            "egress_keep in *tox.ini: *'maybe'*it takes one of 1, true, *",
        ),
        (
            "",
            {},
            ["--egress-engines=unix:///a.sock,ci@b.test"],
            "--egress-engines: 'ci@b.test' is no address of an engine; it takes what DOCKER_HOST does, *",
        ),
        (
            "",
            {"PYTEST_EGRESS_ENGINES": "unix://"},
            [],
            "PYTEST_EGRESS_ENGINES in the environment: 'unix://' is no address of an engine; *",
        ),
        (
            "egress_engines =\n  unix:///a.sock\n  /b.sock",
            {},
            [],
            "egress_engines in *tox.ini: '/b.sock' is no address of an engine; *",
        ),
    ],
)
def test_a_bad_option_names_its_value_its_source_and_the_valid_ones(
    run: RunPytest,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    ini: str,
    variables: dict[str, str],
    args: list[str],
    text: str,
) -> None:
    pytester.makeini(INI + ini)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = run("def test_a(): pass", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {text}"])


def test_the_header_says_only_what_is_set(run: RunPytest, monkeypatch: pytest.MonkeyPatch) -> None:
    run("def test_a(): pass").stdout.no_fnmatch_line("*egress: *")
    result = run("", "--egress-unrouted=block", "--egress-dns=strict", "--egress-keep")
    lines_of(result, "egress: unrouted=block, dns=strict, keeps containers of failed tests")
    lines_of(
        run("", "--egress-engines=unix:///a,tcp://b:1"), "egress: engines=unix:///a, tcp://b:1"
    )
    monkeypatch.setenv("PYTEST_EGRESS_KEEP", "on")
    lines_of(run(""), "egress: keeps containers of failed tests")
    monkeypatch.setenv("PYTEST_EGRESS_KEEP", "0")
    run("").stdout.no_fnmatch_line("*egress: *")


def test_a_sidecar_serves_several_containers_unless_another_choice_is_made(run: RunPytest) -> None:
    run("def test_a(egress): assert egress._inner.session.sidecars._reuse").assert_outcomes(
        passed=1
    )


@pytest.mark.parametrize(("given", "said"), [("on", "True"), ("off", "False")])
def test_whether_sidecars_are_used_again_is_chosen_in_three_ways(
    run: RunPytest,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    said: str,
) -> None:
    source = f"def test_a(egress): assert egress._inner.session.sidecars._reuse is {said}"
    run(source, f"--egress-sidecar-reuse={given}").assert_outcomes(passed=1)
    with monkeypatch.context() as environment:
        environment.setenv("PYTEST_EGRESS_SIDECAR_REUSE", given)
        run("").assert_outcomes(passed=1)
    pytester.makeini(f"[pytest]\negress_sidecar_reuse = {given}")
    run("").assert_outcomes(passed=1)
