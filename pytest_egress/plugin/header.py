"""`Header`: the lines at the beginning and the end of a run, and what the workers of pytest-xdist send for them."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.plugin.options import Options
from pytest_egress.plugin.run import Run
from pytest_egress.plugin.usage import uses_egress


class Header:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._announced = ""
        self._session: pytest.Session | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_report_header(self) -> str | None:
        default = Options()
        said = [
            f"{name}={getattr(self._run.options, name)}"
            for name in ("unrouted", "dns")
            if getattr(self._run.options, name) != getattr(default, name)
        ]
        said += [f"engines={', '.join(self._run.engines)}"] if self._run.engines else []
        said += [*([f"records ({mode})"] if (mode := self._run.record_mode) != "none" else [])]
        said += [*(["keeps containers of failed tests"] if self._run.keep else [])]
        return f"egress: {', '.join(said)}" if said else None

    def pytest_report_collectionfinish(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> str | None:
        """The line names the engine of the environment; the summary names other engines that were used."""
        quiet = config.getoption("verbose") < 0 or config.getoption("collectonly")
        if quiet or not any(map(uses_egress, items)):
            return None
        from pytest_egress.errors import EngineError

        try:
            from pytest_egress.engine.engine import contact

            self._run.client, name = contact(self._run.engine_client, self._run.engine)
        except (EngineError, ImportError):  # a project may have a docker.py of its own
            self._run.answers = False
            return None  # a test will raise it, unless a fixture of the user's names another engine
        self._announced = f"{name}, {self._run.session().provisioner.setups[0]}"
        return f"egress: {self._announced}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The process that writes to the terminal paints the failures, and counts the cells that a worker has run."""
        if report.user_properties and hasattr(report, "node") and self._session is not None:
            from pytest_egress.plugin.swept import is_added

            self._session.testscollected += is_added(report)  # of which it shows percents
        if report.failed:
            from pytest_egress.plugin.painting import paint

            paint(report)

    # Runs after the last fixture's teardown, and inside the wrapper of pytest-xdist that sends workeroutput.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The controller of pytest-xdist gets this worker's traffic outside of any test, and its engines."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["egress"] = self._run.outside
            session.config.workeroutput["egress engines"] = self._run.used

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", {})  # absent when the worker crashed
        self._run.outside += [f"[{node.gateway.id}] {line}" for line in output.get("egress", ())]
        self._run.used += output.get("egress engines", ())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the traffic outside of any test, the engines that the header could not name, and the fault sweeps."""
        if terminalreporter.verbosity >= 0:
            for engine in sorted({*self._run.used} - {self._announced}):
                terminalreporter.write_line(f"egress: {engine}")
        if self._run.outside:
            from pytest_egress.base.escaping import escaped
            from pytest_egress.plugin.painting import write_text

            terminalreporter.section("egress: traffic outside of any test")
            writer = terminalreporter.config.get_terminal_writer()
            write_text(writer, escaped("\n".join(self._run.outside)))
        plugins = terminalreporter.config.pluginmanager
        if plugins.has_plugin("egress-sweep") or plugins.has_plugin("dsession"):
            self._show_sweeps(terminalreporter)

    def _show_sweeps(self, terminalreporter: pytest.TerminalReporter) -> None:
        reports = [report for found in terminalreporter.stats.values() for report in found]
        if not any(getattr(report, "user_properties", ()) for report in reports):
            return
        from pytest_egress.base.escaping import escaped
        from pytest_egress.plugin.swept import SweptTests

        for test, lines in SweptTests(reports).matrices():
            terminalreporter.section(f"egress sweep: {escaped(test)}")
            terminalreporter.write_line(escaped("\n".join(lines)))
