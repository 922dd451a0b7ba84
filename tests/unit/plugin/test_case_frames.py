"""Which frame is the user's: where --pdb stands, and where a report points. Real pdb, at a terminal."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.debugger import Debug, Debugger
from tests.support.stand_in import RunPytest, lines_of


@pytest.fixture
def debug(pytester: pytest.Pytester) -> Debug:
    """Start it on the source of a module."""
    return lambda source, *args: Debugger(pytester, source, *args)


# At a terminal.

UNROUTED: Final = 'traffic(egress, "https://x.test/")'
NEVER: Final = 'egress.intercept_https("never.test")'


@pytest.mark.slow
@pytest.mark.parametrize("line", [UNROUTED, NEVER])
def test_at_a_verdict_pdb_stands_in_the_test_at_its_last_line(debug: Debug, line: str) -> None:
    debugger = debug(f"def test_a(egress):\n    local = 41\n    {line}\n")
    assert debugger.stands_at == line
    assert debugger.tell("p local + 1") == "42"
    assert debugger.tell("p len(egress.ledger)") == ("1" if line == UNROUTED else "0")
    assert "pytest_egress/" not in debugger.tell("w")
    assert "test_a" in debugger.quit()


@pytest.mark.plugins("asyncio")
@pytest.mark.parametrize(
    "test",
    [
        f"@pytest.mark.asyncio\nasync def test_a(egress):\n    local = 41\n    {UNROUTED}\n",
        f"class TestA:\n    def test_a(self, egress):\n        local = 41\n        {UNROUTED}\n",
        "import functools\n"
        "def wrapped(f):\n    @functools.wraps(f)\n    def call(**named): return f(**named)\n    return call\n"
        f"@wrapped\ndef test_a(egress):\n    local = 41\n    {UNROUTED}\n",
        "class TestU(unittest.TestCase):\n    @pytest.fixture(autouse=True)\n"
        "    def have(self, egress): self.egress = egress\n"
        f"    def test_a(self):\n        local, egress = 41, self.egress\n        {UNROUTED}\n",
    ],
    ids=["async", "method", "decorated", "unittest"],
)
def test_so_it_does_in_every_kind_of_test(debug: Debug, test: str) -> None:
    assert debug(test).tell("p local + 1") == "42"


RAISES: Final = """
def test_a(egress):
    outer = "test"
    def handler(request):
        inner = "handler"
        return {}["missing"]
    egress.intercept_https("a.test", handler)
    traffic(egress, "https://a.test/")
"""


def test_at_a_handlers_error_pdb_stands_in_the_handler_and_the_test_is_above(debug: Debug) -> None:
    debugger = debug(RAISES)
    assert debugger.stands_at == 'return {}["missing"]'
    assert debugger.tell("p inner, request.url") == "('handler', 'https://a.test/')"
    assert debugger.tell("up").endswith('-> traffic(egress, "https://a.test/")')
    assert debugger.tell("p outer") == "'test'"


def test_what_a_handler_calls_is_the_users_too_and_what_it_calls_of_ours_is_not(
    debug: Debug,
) -> None:
    debugger = debug("""
async def answer(request):
    inner = "helper"
    return request.forward("nonsense")
def test_a(egress):
    def handler(request):
        return asyncio.run(answer(request))
    egress.intercept_https("a.test", handler)
    traffic(egress, "https://a.test/")
""")
    assert debugger.stands_at == 'return request.forward("nonsense")'
    assert debugger.tell("p inner") == "'helper'"


def test_where_a_handler_fails_what_we_raise_in_the_test_it_is_the_handler(debug: Debug) -> None:
    debugger = debug(f"{RAISES}    egress['none']\n")
    assert debugger.stands_at == 'return {}["missing"]'
    assert debugger.tell("up").endswith("-> egress['none']")


def test_where_the_test_itself_raises_it_is_the_test(debug: Debug) -> None:
    debugger = debug(f"{RAISES}    assert outer == 'own'\n")
    assert debugger.stands_at == "assert outer == 'own'"


@pytest.mark.parametrize(
    "line",
    [
        'egress.intercept_https("a.test", 5)',
        "egress.intercept_https(5)",
        "egress.intercept_https()",
        'egress.start("shop", wait=5)',
        "egress.assert_no_egress()",
        'egress["none"]',
    ],
)
def test_at_an_error_of_a_call_pdb_stands_at_the_line_of_the_test(debug: Debug, line: str) -> None:
    debugger = debug(f"def test_a(egress):\n    local = 41\n    {line}\n")
    assert debugger.stands_at == line
    assert debugger.tell("p local + 1") == "42"


@pytest.mark.parametrize("scope", ["function", "module"])
def test_in_the_teardown_of_a_fixture_it_is_the_line_of_the_fixture(
    debug: Debug, scope: str
) -> None:
    name = "egress" if scope == "function" else "module_egress"
    debugger = debug(f"""
@pytest.fixture(scope="{scope}")
def own({name}):
    local = 41
    yield
    {name}["none"]
def test_a(own): pass
""")
    assert debugger.stands_at == f'{name}["none"]'
    assert debugger.tell("p local + 1") == "42"


def test_at_a_verdict_on_what_came_late_it_is_the_test(debug: Debug) -> None:
    debugger = debug("""
@pytest.fixture
def ends(egress):
    yield
    traffic(egress, "https://late.test/")
def test_a(egress, request):
    local = 41
    request.addfinalizer(lambda: traffic(egress, "https://late.test/"))
""")
    assert debugger.stands_at.startswith("request.addfinalizer(")
    assert debugger.tell("p local + 1") == "42"


def test_full_trace_leaves_every_frame(debug: Debug) -> None:
    debugger = debug('def test_a(egress):\n    egress["none"]\n', "--full-trace")
    assert "egress.py" in debugger.tell("w")
    assert debugger.stands_at == "raise LookupError(" or "LookupError" in debugger.tell("l")


# In a report.


@pytest.mark.parametrize("own", ["", "    assert False, 'own'\n"])
def test_a_handler_that_returned_what_is_no_answer_is_told_of_without_a_traceback(
    run: RunPytest, own: str
) -> None:
    result = run(f"""
def test_a(egress):
    @egress.intercept_https("a.test")
    def handler(request):
        return object()
    traffic(egress, "https://a.test/")
{own}
""")
    lines_of(
        result, "*TypeError: handler, at test_x.py:5, returned <object object at *> is no answer*"
    )
    result.stdout.no_fnmatch_line("*entries are hidden*")
    result.stdout.no_fnmatch_line("*pytest_egress/*.py*")
