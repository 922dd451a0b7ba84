"""What tests against the real engine share."""

from __future__ import annotations

import textwrap

import pytest

from pytest_egress.engine.leftovers import SESSION_LABEL
from tests.support.inner_runs import CONFTEST, InnerRun, Inside
from tests.support.stand_in import RunPytest


@pytest.fixture
def inside(pytester: pytest.Pytester, clients_image: str) -> Inside:
    """Runs a module of tests against the real engine."""
    pytester.makeconftest(CONFTEST.format(image=clients_image))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")

    def run(code: str, *args: str) -> InnerRun:
        (pytester.path / "test_shop.py").write_text(textwrap.dedent(code))
        return InnerRun(pytester, *args)

    return run


@pytest.fixture
def run_real(pytester: pytest.Pytester, clients_image: str) -> RunPytest:
    """Run pytest on the source of a module with real containers, in a process of its own."""
    pytester.makeconftest(f"""
        import pathlib, pytest
        @pytest.fixture(scope="session")
        def image(session_egress):
            label = session_egress._inner.session.engine.labels["{SESSION_LABEL}"]
            pathlib.Path("session").write_text(label)
            return {clients_image!r}
        @pytest.fixture(scope="module")
        def shop(module_egress):
            return module_egress.start({clients_image!r}, ["sleep", "infinity"])
        @pytest.fixture
        def curl(shop):
            return lambda url: shop.exec(["curl", "-sS", "--max-time", "20", url], check=False).stdout
        """)

    def run(source: str, *args: str, subprocess: bool = True) -> pytest.RunResult:
        pytester.makepyfile(test_x="import pytest\n" + textwrap.dedent(source))
        return pytester.runpytest_subprocess("-pno:cacheprovider", *args)

    return run
