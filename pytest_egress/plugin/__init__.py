"""The pytest plugin: options, markers, fixtures, windows and verdicts. No other room imports pytest.

A verdict is raised in the call phase by the innermost wrapper, so that capture, xfail, --pdb, -x and reruns treat it
like any failure of the test itself. Importing this room costs about a millisecond: everything else of the package, and
what of this room only a test that uses egress needs, is imported where such a test runs.

* `options`: the options of the command line, the environment, the ini file and `@pytest.mark.egress`.
* `markers`: the arguments that each marker takes, and the routes that it declares.
* `usage`: which tests use egress.
* `fixtures`: `egress`, its counterparts for wider scopes, and the fixtures that users override.
* `case`: one run of a test that uses egress: its window and its verdict.
* `locking`: compares the destinations of a run with `egress.lock`, or writes them there.
* `run`: one run of pytest: its options, its session, and the screen and prompts beside it.
* `cases`: the hooks that act while one test runs.
* `sweep`: the second item of a test with `@pytest.mark.egress_sweep`, and its cells.
* `swept`: what the reports of cells say: a matrix for each test.
* `copies`: copies of test items.
* `header`: the lines at the beginning and the end of a run.
* `reports`: how a failure is shown, and at which frame a debugger stops.
* `secrets`: what pytest itself would show of a secret.
* `painting`: the colours and indents of a failure on a terminal.
* `screen`: shows on the terminal what takes long.
* `watching`: the lines of --egress-watch.
* `evidence`: the report of a run: the folder of each test, its index and its summary.
* `prompts`: debugger prompts, and the deadlines that wait for them.

pytest takes hooks and fixtures from this module, which is the package's entry point.
"""

from pytest_egress.plugin.cases import pytest_configure
from pytest_egress.plugin.fixtures import (
    class_egress,
    egress,
    egress_ca,
    egress_container,
    egress_docker_client,
    egress_engine,
    egress_redaction,
    egress_stack,
    module_egress,
    session_egress,
)
from pytest_egress.plugin.markers import (
    pytest_collection_modifyitems,
    pytest_make_collect_report,
)
from pytest_egress.plugin.options import pytest_addoption
from pytest_egress.plugin.secrets import (
    pytest_assertrepr_compare,
    pytest_make_parametrize_id,
)

__all__ = [
    "class_egress",
    "egress",
    "egress_ca",
    "egress_container",
    "egress_docker_client",
    "egress_engine",
    "egress_redaction",
    "egress_stack",
    "module_egress",
    "pytest_addoption",
    "pytest_assertrepr_compare",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_make_collect_report",
    "pytest_make_parametrize_id",
    "session_egress",
]
