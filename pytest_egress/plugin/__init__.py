"""pytest: options, markers, fixtures, windows and verdicts. No other room imports pytest.

A verdict is raised in the call phase by the innermost wrapper, so that capture, xfail, --pdb, -x and reruns treat it
like any failure of the test itself. Importing this room costs about a millisecond: everything else of the package, and
what of this room only a test that uses egress needs, is imported where such a test runs.

* `options`: of the command line, the environment and the ini file, and those of `@pytest.mark.egress`.
* `markers`: what each takes, and the routes that it declares.
* `usage`: which tests use egress.
* `fixtures`: `egress` and its kind.
* `case`: one run of a test that uses egress.
* `run`: the hooks that act while tests run.
* `reports`: how a failure is shown, and where a debugger stands.
* `screen`: what takes long, while it does.
* `prompts`: debugger prompts.

pytest takes hooks and fixtures from this module, which is the package's entry point.
"""

from pytest_egress.plugin.fixtures import (
    class_egress,
    egress,
    egress_ca,
    egress_container,
    egress_docker_client,
    module_egress,
    session_egress,
)
from pytest_egress.plugin.markers import (
    pytest_collection_modifyitems,
    pytest_make_collect_report,
)
from pytest_egress.plugin.options import pytest_addoption
from pytest_egress.plugin.run import pytest_configure

__all__ = [
    "class_egress",
    "egress",
    "egress_ca",
    "egress_container",
    "egress_docker_client",
    "module_egress",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_make_collect_report",
    "session_egress",
]
