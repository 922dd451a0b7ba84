"""Which tests have a window, and what happens to what comes after it. A stand-in takes the gateway's place."""

from __future__ import annotations

import pytest

from tests.support.stand_in import UNROUTED_X, RunPytest, lines_of

# Fixtures that are asked for while a test runs.

SHARED = """
@pytest.fixture(scope="session")
def everywhere(session_egress): return session_egress
@pytest.fixture(scope="module")
def shop(module_egress): return module_egress
@pytest.fixture(scope="class")
def klass(class_egress): return class_egress
@pytest.fixture(scope="module")
def behind_shop(shop): return shop
@pytest.fixture(scope="module")
def hidden(request): return request.getfixturevalue("module_egress")
@pytest.fixture(scope="module")
def behind_hidden(hidden): return hidden
@pytest.fixture(scope="module")
def hidden_twice(request): return request.getfixturevalue("behind_hidden")
@pytest.fixture
def own(hidden_twice): return hidden_twice
@pytest.fixture
def hidden_own(request): return request.getfixturevalue("hidden_twice")
@pytest.fixture(scope="module")
def factory(request): return request.getfixturevalue
"""
MODULES = ("everywhere", "shop", "behind_shop", "hidden", "behind_hidden", "hidden_twice")
BY_REQUEST = [f"request.getfixturevalue({n!r})" for n in (*MODULES, "klass", "own", "hidden_own")]
BY_FACTORY = [f"request.getfixturevalue('factory')({n!r})" for n in MODULES]


@pytest.mark.parametrize("how", BY_REQUEST + BY_FACTORY)
def test_a_test_that_asks_for_a_shared_egress_while_it_runs_is_judged(
    run: RunPytest, how: str
) -> None:
    result = run(f"""
{SHARED}
class TestIt:
    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_a(self, request, n): traffic({how}, "https://x.test/")
    def test_b(self): pass
""")
    result.assert_outcomes(failed=3, passed=1)
    lines_of(result, f"FAILED *test_a[[]1] - {UNROUTED_X}*", f"FAILED *test_a[[]3] - {UNROUTED_X}*")
    result.stdout.no_fnmatch_line("*outside of any test*")


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize("xdist", [False, True])
def test_a_fixture_that_asks_for_it_out_of_sight_is_known_when_it_is_cached(
    run: RunPytest, xdist: bool
) -> None:
    result = run(
        f"""
{SHARED}
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a(hidden_twice, n): traffic(hidden_twice, "https://x.test/")
""",
        *["-n1"] * xdist,
        subprocess=xdist,
    )
    result.assert_outcomes(failed=3)
    result.stdout.no_fnmatch_line("*outside of any test*")


def test_another_fixture_of_that_name_hides_no_traffic(run: RunPytest) -> None:
    result = run(
        f"""
{SHARED}
def test_a(hidden_twice): traffic(hidden_twice, "https://x.test/")
class TestOther:
    @pytest.fixture(scope="class")
    def hidden_twice(self): pass
    def test_b(self, hidden_twice): pass
def test_c(hidden_twice): traffic(hidden_twice, "https://x.test/")
def test_d(request): traffic(request.getfixturevalue("hidden_twice"), "https://x.test/")
""",
        "-Wignore",  # newer pytest deprecates such fixtures in classes
    )
    result.assert_outcomes(failed=3, passed=1)
    result.stdout.no_fnmatch_line("*outside of any test*")


def test_a_test_of_another_fixture_of_that_name_is_not_judged(run: RunPytest) -> None:
    result = run(
        f"""
{SHARED}
kept = []
def test_a(hidden_twice): kept.append(hidden_twice)
class TestOther:
    @pytest.fixture(scope="class")
    def hidden_twice(self): pass
    def test_b(self, hidden_twice): traffic(kept[0], "https://x.test/")
    def test_c(self, request):
        request.getfixturevalue("hidden_twice")
        traffic(kept[0], "https://x.test/")
""",
        "-Wignore",  # newer pytest deprecates such fixtures in classes
    )
    result.assert_outcomes(passed=3)
    lines_of(result, "*outside of any test*", "shop: GET https://x.test/*UNROUTED*(2 times)")


def test_what_a_test_asks_for_in_its_set_up_is_judged_too(run: RunPytest) -> None:
    result = run(f"""
{SHARED}
@pytest.fixture
def driven(request): traffic(request.getfixturevalue("shop"), "https://x.test/")
def test_a(driven): pass
def test_b(driven): pass
@pytest.fixture
def broken(driven): raise RuntimeError("not ready")
def test_c(broken): pass
def test_d(request): assert not request.getfixturevalue("shop").ledger
""")
    result.assert_outcomes(failed=2, passed=1, errors=1)
    lines_of(result, "*ERROR at setup of test_c*", "*- egress -*", "*GET https://x.test/*UNROUTED")


def test_a_test_that_uses_none_of_them_has_no_window_beside_those_that_do(run: RunPytest) -> None:
    result = run(f"""
{SHARED}
import types
kept = []
@pytest.fixture(scope="module")
def plain(): return 1
@pytest.fixture(scope="module")
def also_plain(request): return request.getfixturevalue("plain")
def test_a(shop, plain, also_plain): kept.append(shop)
def test_b(request):
    assert request.getfixturevalue("also_plain") == 1
    traffic(kept[0], "https://x.test/")
    assert kept[0]._inner.session.ledger.window is None
def test_c(plain): traffic(kept[0], "https://x.test/")
""")
    result.assert_outcomes(passed=3)
    lines_of(result, "*traffic outside of any test*", "shop: GET https://x.test/*(2 times)")


def test_a_fixture_of_the_same_name_that_uses_no_egress_is_not_taken_for_it(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        test_other="import pytest\nfrom gateway import traffic\nimport test_first\n"
        "@pytest.fixture(scope='module')\ndef shop(): return 1\n"
        "def test_a(shop): traffic(test_first.kept[0], 'https://x.test/')\n",
        test_first="import pytest\nkept = []\n"
        "@pytest.fixture(scope='module')\n"
        "def shop(request): return request.getfixturevalue('session_egress')\n"
        "def test_a(shop): kept.append(shop)\n",
    )
    run("", "test_first.py", "test_other.py").assert_outcomes(passed=2)


def test_calls_of_a_wider_route_are_those_of_a_test_that_asked_for_it_while_it_runs(
    run: RunPytest,
) -> None:
    result = run("""
@pytest.fixture(scope="module")
def route(module_egress): return module_egress.intercept_https("a.test")
@pytest.mark.parametrize("n", [1, 2])
def test_a(request, n):
    route, shop = request.getfixturevalue("route"), request.getfixturevalue("module_egress")
    route.assert_not_called()
    traffic(shop, "https://a.test/")
    route.assert_called_once()
def test_b(request, session_egress, module_egress, route):
    traffic(session_egress, "https://a.test/")  # by the nearest scope that is there
    route.assert_called_once()
""")
    result.assert_outcomes(passed=3)


def test_a_doctest_that_asks_for_a_shared_egress_is_judged(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        "import pytest\n@pytest.fixture(scope='session')\ndef shop(session_egress): return session_egress\n"
    )
    for name in ("a", "b"):
        pytester.maketxtfile(
            **{
                f"test_{name}": ">>> from gateway import attempt\n"
                ">>> attempt(getfixture('shop'), 'https://x.test/')\n502\n"
            }
        )
    run("").assert_outcomes(failed=2)


def test_a_test_that_first_makes_the_session_while_it_runs_is_judged(run: RunPytest) -> None:
    result = run("""
def test_a(request): traffic(request.getfixturevalue("session_egress"), "https://x.test/")
def test_b(request):
    egress = request.getfixturevalue("session_egress")
    assert egress._inner.session.ledger.window is not None
""")
    result.assert_outcomes(failed=1, passed=1)


# After a test.


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize("xdist", [False, True])
def test_what_a_tests_own_container_does_after_it_fails_its_teardown(
    run: RunPytest, xdist: bool
) -> None:
    result = run(
        """
@pytest.fixture
def client(egress):
    yield
    traffic(egress, "https://x.test/")
def test_a(client): pass
def test_b(egress): pass
""",
        *["-n1"] * xdist,
        subprocess=xdist,
    )
    result.assert_outcomes(passed=2, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines_of(
        result,
        "*ERROR at teardown of test_a*",
        "1 unrouted attempt of shop; nothing got out:",
        "",
        "  GET https://x.test/",
        '      to answer it: egress.intercept_https("x.test", method="GET", path="/")',
        "",
        "This came after the test had ended, and before its containers were removed.",
        "",
        "test_x.py:*: UnroutedError",
        "*- egress -*",
        "*GET https://x.test/*UNROUTED",
        f"ERROR *test_a - {UNROUTED_X}*",
    )


def test_what_a_handler_raises_after_its_test_fails_the_teardown_with_its_traceback(
    run: RunPytest,
) -> None:
    result = run("""
@pytest.fixture
def client(egress):
    yield
    traffic(egress, "https://a.test/")
def test_a(client, egress):
    def handler(request): raise LookupError("no such charge")
    egress.intercept_https("a.test", handler, optional=True)
""")
    result.assert_outcomes(passed=1, errors=1)
    lines_of(
        result,
        "*def handler(request): raise LookupError(*",
        "E   LookupError: no such charge",
        "It failed the test:",
        "the handler of intercept_https(*raised LookupError",
    )


def test_after_a_test_its_own_policy_holds(run: RunPytest) -> None:
    result = run("""
@pytest.fixture
def client(egress):
    yield
    traffic(egress, "https://x.test/")
@pytest.mark.egress(unrouted="block")
def test_a(client): pass
""")
    result.assert_outcomes(passed=1)


def test_a_test_that_has_not_passed_is_not_failed_once_more_by_what_follows(run: RunPytest) -> None:
    result = run("""
@pytest.fixture
def client(egress):
    yield
    traffic(egress, "https://x.test/")
def test_own(client): assert 1 == 2
def test_verdict(client, egress): traffic(egress, "https://x.test/")
def test_skip(client): pytest.skip("later")
@pytest.mark.xfail
def test_xfail(client): assert 1 == 2
@pytest.fixture
def broken(client): raise RuntimeError("not ready")
def test_setup(broken): pass
""")
    result.assert_outcomes(failed=2, skipped=1, xfailed=1, errors=1)
    lines_of(result, "*traffic outside of any test*", "shop: GET https://x.test/*UNROUTED")


def test_of_two_teardowns_that_fail_both_are_told(run: RunPytest) -> None:
    result = run("""
@pytest.fixture
def client(egress):
    yield
    traffic(egress, "https://x.test/")
    raise RuntimeError("mine")
def test_a(client): pass
""")
    result.assert_outcomes(passed=1, errors=1)
    lines_of(result, "*RuntimeError: mine*")
    if pytest.version_tuple >= (8,):  # before, the first alone
        lines_of(result, "*1 unrouted attempt of shop*")


# No container.


def test_no_egress_of_no_container_is_an_error_that_says_what_to_type(run: RunPytest) -> None:
    result = run("""
def test_a(egress): egress.assert_no_egress()
def test_b(egress): egress.assert_only("a.test", "b.test")
""")
    result.assert_outcomes(failed=2)
    lines_of(
        result,
        ">   def test_a(egress): egress.assert_no_egress()",
        "E   pytest_egress.errors.CallError: expected no egress, which proves nothing here.",
        "E   No container ran in this test. egress answers what containers send: start one with",
        "E   egress.run(image, command) or egress.start(image).",
        "E   What the test process itself sends is not intercepted.",
        "E   *CallError: expected only a.test, b.test, which proves nothing here.",
    )


# Afterwards.

TOO_LATE = """
    import pytest_egress
    kept = []

    @pytest.fixture(scope="session", autouse=True)
    def at_the_end():
        yield
        egress, wide, *routes = kept
        asked = [lambda: egress.ledger, lambda: egress.exchanges, egress.assert_no_egress, egress.assert_only]
        asked += [lambda: wide.ledger, lambda: egress.assert_order(*routes), lambda: egress.assert_before(*routes)]
        asked += [lambda: egress.assert_not_sent('x'), lambda: routes[0].assert_not_sent('x')]
        for route in routes:
            asked += [lambda r=route: r.calls, lambda r=route: r.call_count, route.assert_not_called]
        for ask in asked:
            with pytest.raises(pytest_egress.CallError, match="too late"):
                ask()
        print("all of", repr(egress), repr(routes))

    def test_a(egress, module_egress):
        kept.extend([egress, module_egress])
        kept.append(egress.intercept_https("api.test"))
        kept.append(module_egress.intercept_https("wide.test"))
        traffic(egress, "https://api.test/", "https://wide.test/")
        assert len(egress.exchanges) == 2 and kept[-1].call_count == 1

    def test_b(): pass  # the last test's report is made after the end of all scopes
"""


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize("xdist", [False, True])
def test_whoever_asks_when_all_has_been_let_go_of_gets_no_empty_answer(
    run: RunPytest, xdist: bool
) -> None:
    result = run(TOO_LATE, *["-n1"] * xdist, subprocess=xdist)
    result.assert_outcomes(passed=2)
