"""What an import brings in, and which names are public."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

from tests.support.stand_in import RunPytest, keep_quiet, lines_of, runner_of


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)


@pytest.fixture
def run(pytester: pytest.Pytester) -> RunPytest:
    return runner_of(pytester)


# Costs.


def modules_after(statement: str) -> set[str]:
    """The modules that a statement imports, beyond those that pytest and its own imports need."""
    code = f"import sys, pytest; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


TABLES = {
    *("pytest_egress.base", "pytest_egress.base.choices"),
    *("pytest_egress.routes", "pytest_egress.routes.kinds"),
}  # which import nothing themselves


OF_EVERY_RUN = {
    *("pytest_egress.plugin", "pytest_egress.plugin.fixtures", "pytest_egress.plugin.markers"),
    *("pytest_egress.plugin.options", "pytest_egress.plugin.run", "pytest_egress.plugin.usage"),
    *("pytest_egress.plugin.header", "pytest_egress.plugin.cases", "pytest_egress.plugin.secrets"),
}  # of the plugin


def test_importing_the_plugin_imports_nothing_but_tables() -> None:
    assert modules_after("import pytest_egress.plugin") == {"pytest_egress", *OF_EVERY_RUN, *TABLES}


def test_importing_the_package_imports_nothing_else() -> None:
    assert modules_after("import pytest_egress") == {"pytest_egress"}


def test_a_run_that_does_not_use_egress_imports_nothing_of_it_but_tables(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile("def test_a(): pass")
    pytester.makeconftest("""
def pytest_unconfigure():
    import sys
    print("imported:", *sorted(name for name in sys.modules if name.startswith("pytest_egress.")))
""")
    result = run("", "-s", subprocess=True)
    lines_of(result, " ".join(["imported:", *sorted([*TABLES, *OF_EVERY_RUN])]))


def test_every_public_name_is_there_and_listed_in_order() -> None:
    import pytest_egress as package

    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="'pytest_egress' has no attribute 'nothing'"):
        _ = package.nothing


def test_an_old_name_is_refused_with_the_new_one() -> None:
    with pytest.raises(ImportError) as caught:
        exec("from pytest_egress import AcceptedError")
    text = "pytest_egress.AcceptedError is pytest_egress.CertificateAcceptedError now"
    assert str(caught.value) == text


def test_type_checkers_see_the_names_that_are_there_at_run_time() -> None:
    import pytest_egress as package

    (block,) = (
        node for node in ast.parse(inspect.getsource(package)).body if isinstance(node, ast.If)
    )
    seen = {
        node.module: [(each.name, each.asname) for each in node.names]
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == {
        f"pytest_egress.{module}": [(name, name) for name in names.split()]
        for module, names in package._NAMES.items()
    }


def test_every_error_is_a_public_name() -> None:
    import pytest_egress as package
    from pytest_egress import errors

    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    # The first is caught as the KeyError that it is, and no test meets the others.
    assert defined - {"AbsentError", "ClientHelloError", "LockFileError"} <= set(package.__all__)
