"""Fixtures of each scope, and the session that they share."""

from __future__ import annotations

import pytest

from tests.support.stand_in import UNROUTED_X, RunPytest, lines_of


def test_session_fixtures_can_be_set_up_again(run: RunPytest, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session", params=[1, 2])
def kind(request): return request.param
@pytest.fixture(scope="session")
def session_egress(kind, session_egress): return session_egress
""")
    result = run("def test_a(egress): traffic(egress, 'https://x.test/')", "--setup-show")
    result.assert_outcomes(failed=2)
    lines_of(result, f"FAILED *test_a[[]1] - {UNROUTED_X}*", f"FAILED *test_a[[]2] - {UNROUTED_X}*")


def test_setup_only_closes_the_window(run: RunPytest) -> None:
    result = run(
        """
windows = []
@pytest.fixture
def last(egress):
    yield
    windows.append(egress._inner.session.ledger.window)
    assert windows == [None]
def test_a(last): pass
""",
        "--setup-only",
    )
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*ERROR*")


# Scopes and markers.


def test_scopes_nest_and_the_nearest_route_answers(run: RunPytest) -> None:
    result = run("""
def answered(egress, *hosts): return [attempt(egress, f"https://{host}.test/") for host in hosts]
@pytest.fixture(scope="session", autouse=True)
def wide(session_egress):
    session_egress.intercept_https("a.test", lambda r: "session")
    session_egress.intercept_https("s.test", lambda r: "session")
@pytest.fixture(scope="module")
def shop(module_egress):
    module_egress.intercept_https("m.test", lambda r: "module")
    module_egress.intercept_https("a.test", lambda r: "module")
@pytest.fixture(scope="class")
def klass(class_egress): class_egress.intercept_https("c.test", lambda r: "class")
@pytest.mark.usefixtures("klass", "shop")
class TestC:
    def test_a(self, egress):
        egress.intercept_https("a.test", lambda r: "test")
        assert answered(egress, *"smca") == ["session", "module", "class", "test"]
    def test_b(self, egress): assert answered(egress, "a") == ["module"]
@pytest.mark.egress(unrouted="block")
def test_c(egress): assert answered(egress, "c") == [502]
""")
    result.assert_outcomes(passed=3)


def test_a_session_that_cannot_be_had_is_one_error_of_its_test(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(docker="")  # of the project: `python -m pytest` takes it for docker-py
    result = run("def test_a(egress): pass", subprocess=True)
    result.assert_outcomes(errors=1)
    lines_of(result, "E *ModuleNotFoundError: No module named 'docker.*")


def test_collection_starts_nothing(run: RunPytest, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session")
def egress_docker_client(): raise AssertionError("contacted")
def pytest_unconfigure():
    import sys
    print("docker imported:", "docker" in sys.modules)
""")
    source = "@pytest.mark.egress_container('shop')\n@pytest.mark.egress_block('a.test')\ndef test_a(egress): pass"
    result = run(source, "--collect-only", "-s", subprocess=True)
    assert result.ret == 0
    lines_of(result, "docker imported: False")


# Fixtures that users override.


def test_the_client_and_the_ca_can_be_overridden_and_outlive_the_session(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session")
def egress_docker_client():
    print("client made")
    yield "the client"
    print("client gone")
@pytest.fixture(scope="session")
def egress_ca():
    print("CA made")
    return "the CA"
@pytest.fixture(scope="session", autouse=True)
def watched(session_egress):
    close = session_egress._inner.session.close
    def noted(): close(); print("session closed")
    session_egress._inner.session.close = noted
""")
    result = run(
        """
def test_a(egress): print("test_a")
def test_b(egress, pytestconfig):
    engine = egress._inner.session.engine
    from pytest_egress.plugin.run import RUN
    run = pytestconfig.stash[RUN]
    assert (run.fixture("egress_ca"), run.fixture("egress_docker_client")) == ("the CA", "the client")
    assert run.fixture("egress_docker_client") == "the client"
""",
        "-s",
    )
    result.assert_outcomes(passed=2)
    lines = [line.rpartition("test_x.py ")[2].lstrip(".") for line in result.outlines]
    wanted = ["test_a", "CA made", "client made", "session closed", "client gone"]
    assert [line for line in lines if line in wanted] == wanted


def test_nothing_is_contacted_before_a_container_starts(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
import pytest
@pytest.fixture(scope="session")
def egress_docker_client(): raise AssertionError("contacted")
@pytest.fixture(scope="session")
def egress_ca(): raise AssertionError("made")
""")
    result = run("""
def test_a(egress): pass
def test_b(egress):
    with pytest.raises(AssertionError, match=r"\\Acontacted"):
        egress.start("shop:latest")
""")
    result.assert_outcomes(passed=2)
