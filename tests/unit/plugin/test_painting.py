"""How a failure looks on a terminal: its colours, its indents, and the line to type."""

from __future__ import annotations

import re
from typing import Any, Final
from xml.etree import ElementTree

import pytest

from pytest_egress.plugin.painting import fitted, hanging, spans
from tests.support.stand_in import HEAD, RunPytest

FAILS: Final = 'def test_a(egress): traffic(egress, "https://x.test/a/path/that/is/long")\n'
TYPE: Final = 'egress.intercept_https("x.test", method="GET", path="/a/path/that/is/long")'


def shaped(line: str, width: int) -> list[str]:
    """The lines of a terminal of that width."""
    indent = hanging(line)
    return [
        " " * (indent if start else 0) + line[start:end]
        for start, end in fitted(line, width, indent)
    ]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("  short", ["  short"]),
        (
            "      The CA is in the image's bundle, and more",
            ["      The CA is in the", "        image's bundle, and", "        more"],
        ),
        (
            "   0.007 s  TCP x.test:25 -> 1 byte in 1.0 ms  UNROUTED",
            [
                "   0.007 s  TCP x.test:25",
                "            -> 1 byte in",
                "            1.0 ms  UNROUTED",
            ],
        ),
        (f"      to answer it: {TYPE}", ["      to answer it:", f"        {TYPE}"]),
        (f"  {TYPE}", [f"  {TYPE}"]),
        (
            "    from pytest_egress import smtp, forward",
            ["    from pytest_egress import smtp, forward"],
        ),
        (
            "  GET https://x.test/a/word/wider/than/all  of shop",
            ["  GET https://x.test/a/word/wider/than/all", "    of shop"],
        ),
        ("", [""]),
        (" " * 40, [" " * 40]),
    ],
)
def test_lines_hang_at_their_indent_and_the_line_to_type_stays_whole(
    line: str, shown: list[str]
) -> None:
    assert shaped(line, 29) == shown


@pytest.mark.parametrize("width", [1, 12, 40, 80])
def test_no_word_is_lost_at_any_width(width: int) -> None:
    line = f"      to answer it, as  the test has it: {TYPE}"
    assert " ".join(shaped(line, width)).split() == line.split()


@pytest.mark.parametrize(
    ("line", "coloured"),
    [
        (f"      to answer it: {TYPE}", {TYPE: "green"}),
        (
            '      to have it dial by itself: env={"HTTPS_PROXY": ""}',
            {'env={"HTTPS_PROXY": ""}': "green"},
        ),
        (
            "1 unrouted attempt of shop; nothing got out:",
            {"1 unrouted attempt of shop; nothing got out:": "red"},
        ),
        ("   0.007 s  GET https://x.test/ -> 502 in 1.0 ms  UNROUTED", {"UNROUTED": "red"}),
        ("   0.007 s  shop  TCP x.test:25  BLOCKED  [why]", {"BLOCKED": "yellow"}),
        ("   0.007 s  TCP x.test:25 -> 1 byte out  PASSTHROUGH", {"PASSTHROUGH": "cyan"}),
        ("   0.007 s  GET https://x.test/ -> 200 OK in 1.0 ms", {"-> 200 OK": "green"}),
        (
            "   0.007 s  GET https://x.test/ -> 200 OK  ACCEPTED certificate='expired'",
            {"ACCEPTED": "red"},
        ),
        (
            "   0.007 s  GET https://x.test/ -> 500, handler raised KeyError",
            {"handler raised KeyError": "red"},
        ),
        ("   0.007 s  DNS x.test A -> 198.18.0.1", {"DNS x.test A -> 198.18.0.1": "light"}),
        ("   0.007 s    -> 'hi'", {}),
        ("The CA is in the image's bundle", {}),
    ],
)
def test_outcomes_verdicts_and_lines_to_type_have_colours(
    line: str, coloured: dict[str, str]
) -> None:
    assert {line[start:end]: next(iter(markup)) for start, end, markup in spans(line)} == coloured


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize("args", [[], ["-n1"]])
def test_colour_is_as_the_option_says_and_in_no_file(
    run: RunPytest, pytester: pytest.Pytester, args: list[str]
) -> None:
    painted = run(FAILS, "--color=yes", "--junitxml=j.xml", *args, subprocess=True).stdout.str()
    assert f"to answer it: \x1b[32m\x1b[1m{TYPE}\x1b[0m" in painted
    assert "\x1b[31m\x1b[1m1 unrouted attempt of shop; nothing got out:\x1b[0m" in painted
    assert "\x1b[31m\x1b[1mUNROUTED\x1b[0m" in painted
    failure = ElementTree.parse(pytester.path / "j.xml").find(".//failure")
    assert failure is not None
    assert not {"\x1b", "#x1B"} & {*re.findall("\x1b|#x1B", failure.text or "")}
    plain = run(FAILS, "--color=no", *args, subprocess=True).stdout.str()
    assert "\x1b" not in plain
    said = re.sub(r"\x1b\[\d+m", "", painted)
    assert [line for line in plain.splitlines() if TYPE in line] == [
        line for line in said.splitlines() if TYPE in line
    ]


@pytest.mark.slow
def test_a_text_made_of_a_report_has_no_colour_even_where_it_is_forced(
    run: RunPytest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    pytester.makeconftest(
        "def pytest_runtest_logreport(report): open(f'{report.when}', 'w').write(str(report.longrepr))"
    )
    run(FAILS, subprocess=True)
    text = (pytester.path / "call").read_text()
    assert f"to answer it: {TYPE}\n" in text
    assert "\x1b[32m" not in text


@pytest.mark.slow
def test_on_a_terminal_the_text_hangs_at_its_width(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    pytester.makepyfile(test_x=HEAD + FAILS)
    child: Any = pytester.spawn_pytest("--color=no test_x.py", expect_timeout=60)
    child.expect_exact(f"      to answer it:\r\n        {TYPE}\r\n")
    child.expect_exact("is/long -> no\r\n            response yet  UNROUTED\r\n")
    child.wait()


@pytest.mark.slow
def test_a_failure_by_text_alone_of_the_tests_own_keeps_its_look(run: RunPytest) -> None:
    source = """
def test_a(egress): pytest.fail("GET https://x.test/:", pytrace=False)
"""
    output = run(source, "--color=yes", subprocess=True).stdout.str()
    assert "\nGET https://x.test/:" in output
