"""Runs pytest in pytest with real containers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import trustme  # noqa: F401

# Before pytester takes its snapshot of sys.modules: cryptography can be imported only once.

CONFTEST = """
import textwrap
import pytest

@pytest.fixture(scope="session")
def image():
    return {image!r}

@pytest.fixture(scope="module")
def shop(module_egress, image):
    return module_egress.start(image, ["sleep", "infinity"])

@pytest.fixture
def sh(shop):
    return lambda script: shop.exec(["sh", "-c", script], check=False).stdout

@pytest.fixture
def python(shop):
    return lambda code: shop.exec(["python3", "-c", textwrap.dedent(code)], check=False).stdout
"""


def only_plugins(*names: str) -> dict[str, str]:
    """The environment of a run that loads our plugin and these: all that are installed take most of its time."""
    options = " ".join(f"-p {name}" for name in ["egress", *names])
    return {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": options}


class InnerRun:
    """One run of pytest inside: its reports, and what it printed."""

    def __init__(self, pytester: pytest.Pytester, *args: str) -> None:
        self.result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)
        self.output = self.result.stdout.str()
        recorder = self.result.reprec  # type: ignore[attr-defined]  # absent from the stub only
        self.reports: list[pytest.TestReport] = recorder.getreports("pytest_runtest_logreport")

    def report(self, name: str, when: str = "call") -> pytest.TestReport:
        """The report of one test's phase."""
        (found,) = (
            report
            for report in self.reports
            if report.nodeid.endswith(f"::{name}") and report.when == when
        )
        return found

    def verdict(self, name: str = "test_a") -> str:
        """The text that a test failed with, without what varies: its place, and our addresses."""
        report = self.report(name)
        assert report.failed, self.output
        text = re.sub(r"(?s)\n\n\S+\.py:\d+: \w+(\n-+ .*)?$", "", report.longreprtext)
        return scrubbed(text)

    def sections(self, name: str = "test_a", when: str = "call") -> dict[str, str]:
        """What its report has beside the failure, with times as T."""
        longrepr: Any = self.report(name, when).longrepr
        return {
            title: re.sub(r" *\d+\.\d+ (ms|s)\b", r" T \1", scrubbed(text))
            .replace("\n ", "\n")
            .strip()
            for title, text, _ in longrepr.sections
        }


def scrubbed(text: str) -> str:
    """A text without the addresses that names were given, and without white space at line ends."""
    text = re.sub(r"(?m) +$", "", text)
    return re.sub(r"fd00:198:18::\w+|198\.18\.\d+\.\d+", "ADDRESS", text)


Inside = Callable[..., InnerRun]


def report_text(indented: str) -> str:
    """An expected text, as it is written in a test."""
    return textwrap.dedent(indented).strip("\n")
