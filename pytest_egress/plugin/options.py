"""The options of the plugin, and those of `@pytest.mark.egress`.

A marker overrides the command line, which overrides the environment, which overrides the ini file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from pytest_egress.base.choices import (
    LINKS,
    LOCK_MODES,
    NAME_POLICIES,
    POLICIES,
    RECORD_MODES,
    SWITCH,
    AcceptedKeywords,
    NamePolicy,
    Policy,
    alternatives,
)


# No dataclass: that would take a quarter of a millisecond of every run of pytest.
class Options(NamedTuple):
    """The options that apply to a test."""

    unrouted: Policy = "fail"  # what happens to an attempt that no route claims
    dns: NamePolicy = "synthetic"  # how DNS answers a name that no route names
    assert_all_called: bool = True  # whether the test's own routes must be called
    timeout: float = 5.0  # seconds for which handlers may continue after the test


def is_seconds(value: object) -> bool:
    from pytest_egress.base.clock import is_seconds as is_time

    return is_time(value)


ACCEPTED_OPTIONS: Final[AcceptedKeywords] = {
    "unrouted": (lambda value: value in POLICIES, alternatives([*map(repr, POLICIES)])),
    "dns": (lambda value: value in NAME_POLICIES, alternatives([*map(repr, NAME_POLICIES)])),
    "assert_all_called": (lambda value: isinstance(value, bool), "True or False"),
    "timeout": (is_seconds, "a number of seconds"),
}
"""Of `@pytest.mark.egress`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("egress", "egress of containers")
    group.addoption(
        "--egress-unrouted",
        metavar="|".join(POLICIES),
        help="What a container's attempt means that no route claims: "
        "fail the test (default), just be refused, or reach the real upstream (TCP).",
    )
    group.addoption(
        "--egress-dns",
        metavar="|".join(NAME_POLICIES),
        help="What DNS says of a name that no route names: an address of its own (default), "
        "or NXDOMAIN, which is an attempt that no route claims.",
    )
    group.addoption(
        "--egress-record-mode",
        metavar="|".join(RECORD_MODES),
        help="When a cassette() is recorded: never (default); once, where its file is not there; new_episodes, "
        "what it has not; or rewrite, all of it anew.",
    )
    group.addoption(
        "--egress-keep",
        action="store_true",
        default=None,
        help="Leave the containers of failed tests, stopped, for a look at them.",
    )
    group.addoption(
        "--egress-watch",
        action="store_true",
        default=False,
        help="Print a line for each attempt of a container when its outcome is known; not with -n.",
    )
    group.addoption(
        "--egress-link",
        metavar="|".join(LINKS),
        help="How the sidecar of a container is reached: by its sockets' descriptors, which takes an "
        "engine on this machine, or over one stream of the engine's API; auto (default) tries both.",
    )
    group.addoption(
        "--egress-sidecar-image",
        metavar="IMAGE",
        help="An image with Python 3.10 or newer that sidecars run, instead of this machine's "
        "Python, which is the default where the engine sees it.",
    )
    group.addoption(
        "--egress-sidecar-reuse",
        metavar="|".join(SWITCH),
        help="Whether a sidecar serves one container after the other (default), which starts them sooner, and for "
        "which its first process has CAP_SYS_ADMIN; or one alone.",
    )
    group.addoption(
        "--egress-engines",
        metavar="ADDRESS,...",
        help="Engines, each as DOCKER_HOST has it: worker gwN of pytest-xdist takes number N, "
        "from the start again where there are fewer; without workers it is the first.",
    )
    group.addoption(
        "--egress-lock",
        metavar="|".join(LOCK_MODES),
        nargs="?",
        const="check",
        help="Fail a test whose container reaches what egress.lock does not list (check, the default where the ini "
        "file has egress_lock), or write what containers reach into it (update).",
    )
    parser.addini(
        "egress_lock", "The file with the destinations of images, such as egress.lock.", default=""
    )
    group.addoption(
        "--egress-report",
        metavar="DIR",
        help="Write a page, a HAR, the attempts as JSON and the logs of each failed test that uses egress to a folder "
        "in DIR, and an index and a summary of them.",
    )
    group.addoption(
        "--egress-report-all",
        action="store_true",
        default=None,
        help="With --egress-report: also of the tests that have passed.",
    )
    group.addoption(
        "--egress-sweep",
        metavar="|".join(SWITCH),
        help="Whether tests with @pytest.mark.egress_sweep are swept (default), or run alone.",
    )
    group.addoption(
        "--egress-sweep-only",
        metavar="GLOB",
        help='Of all sweeps run only the cells with such a name, as in "*: silence".',
    )
    parser.addini("egress_sweep", "Default of --egress-sweep.", default="on")
    parser.addini("egress_report", "Default of --egress-report.", default="")
    parser.addini("egress_unrouted", "Default of --egress-unrouted.", default="fail")
    parser.addini("egress_record_mode", "Default of --egress-record-mode.", default="none")
    parser.addini("egress_dns", "Default of --egress-dns.", default="synthetic")
    parser.addini("egress_link", "Default of --egress-link.", default="auto")
    parser.addini("egress_sidecar_image", "Default of --egress-sidecar-image.", default="")
    parser.addini("egress_sidecar_reuse", "Default of --egress-sidecar-reuse.", default="on")
    parser.addini("egress_engines", "Default of --egress-engines.", type="linelist", default=[])
    parser.addini(
        "egress_trust",
        "Files in containers, by their absolute paths, that get the CA where they are there: PEM bundles "
        "or Java keystores.",
        type="linelist",
        default=[],
    )
    parser.addini("egress_keep", "Default of --egress-keep.", type="bool", default=False)


def choice_option(config: pytest.Config, name: str, accepted: tuple[str, ...]) -> Any:
    """A value, wherever it was set, that is none of the accepted words raises `pytest.UsageError`."""
    dashed, variable = name.replace("_", "-"), f"PYTEST_{name.upper()}"
    if value := config.getoption(name):
        source = f"--{dashed}={value}"
    elif value := os.environ.get(variable):
        source = f"{variable}={value} in the environment"
    else:
        value = config.getini(name)
        source = f"{name} = {value} in {config.inipath or '-o'}"
    if value not in accepted:
        why = REFUSED.get((name, value), "")
        raise pytest.UsageError(f"{source}: {why}it takes {alternatives(accepted)}")
    return value


REFUSED: Final = {
    ("egress_record_mode", "all"): "it would keep what is no longer sent, where rewrite does not; "
}
"""Why words are refused that other tools take."""


ENGINE_SCHEMES: Final = ("unix", "tcp", "ssh", "http", "https")


def engine_addresses(config: pytest.Config) -> list[str]:
    """No address means the engine of the environment; a malformed one raises `pytest.UsageError`."""
    if text := config.getoption("egress_engines"):
        source = "--egress-engines"
    elif text := os.environ.get("PYTEST_EGRESS_ENGINES"):
        source = "PYTEST_EGRESS_ENGINES in the environment"
    else:
        text = "\n".join(config.getini("egress_engines"))
        source = f"egress_engines in {config.inipath or '-o'}"
    addresses = str(text).replace(",", " ").split()
    for address in addresses:
        scheme, _, rest = address.partition("://")
        if scheme not in ENGINE_SCHEMES or not rest:
            raise pytest.UsageError(
                f"{source}: {address!r} is no address of an engine; it takes what DOCKER_HOST does, "
                "unix:///run/docker.sock or tcp://192.0.2.1:2376, several with commas between them"
            )
    return addresses


LOCK: Final = "egress.lock"  # beside the ini file, where that names no other


def lock_option(config: pytest.Config) -> tuple[str, Path]:
    """What is done with a lock, and its file. A word that is none of `LOCK_MODES` raises `pytest.UsageError`."""
    named: str = config.getini("egress_lock")
    if mode := config.getoption("egress_lock"):
        source = f"--egress-lock={mode}"
    elif mode := os.environ.get("PYTEST_EGRESS_LOCK"):
        source = f"PYTEST_EGRESS_LOCK={mode} in the environment"
    else:
        mode, source = ("check" if named else "off"), ""
    if mode not in LOCK_MODES:
        raise pytest.UsageError(f"{source}: it takes {alternatives(LOCK_MODES)}")
    folder = config.inipath.parent if config.inipath is not None else config.rootpath
    path = Path(folder, named or LOCK)
    if mode != "off" and (path.is_dir() or not path.parent.is_dir()):
        where = f"egress_lock = {named} in {config.inipath or '-o'}"
        raise pytest.UsageError(f"{where}: it takes the path of a file, in a folder that is there")
    return mode, path


def trust_option(config: pytest.Config) -> list[str]:
    """The files get the CA in every container. A path that is not absolute raises `pytest.UsageError`."""
    paths: list[str] = config.getini("egress_trust")
    for path in paths:
        if not path.startswith("/"):
            raise pytest.UsageError(
                f"egress_trust in {config.inipath or '-o'}: {path!r} is no absolute path of a file in a container; "
                "it takes one a line"
            )
    return paths


def worker_number(config: pytest.Config) -> int:
    """0 where the process is no worker of pytest-xdist, or its name has no number."""
    worker: str = getattr(config, "workerinput", {}).get("workerid", "")
    number = worker.removeprefix("gw")
    return int(number) if number.isdigit() else 0


TRUE: Final = ("1", "true", "yes", "on")
FALSE: Final = ("0", "false", "no", "off")


def keep_option(config: pytest.Config) -> bool:
    """A value that is neither true nor false raises `pytest.UsageError`."""
    if config.getoption("egress_keep") is not None:
        return True
    valid = f"it takes one of {', '.join((*TRUE, *FALSE))}"
    if text := os.environ.get("PYTEST_EGRESS_KEEP"):
        if text.lower() not in (*TRUE, *FALSE):
            raise pytest.UsageError(f"PYTEST_EGRESS_KEEP={text} in the environment: {valid}")
        return text.lower() in TRUE
    try:
        return bool(config.getini("egress_keep"))
    except (
        pytest.UsageError,
        TypeError,
        ValueError,
    ) as error:  # which, depends on pytest's version
        source = f"egress_keep in {config.inipath or '-o'}"
        raise pytest.UsageError(f"{source}: {error}; {valid}") from None


def watch_option(config: pytest.Config) -> bool:
    """With workers, which have no terminal, it raises `pytest.UsageError`."""
    if not config.getoption("egress_watch"):
        return False
    if config.getoption("numprocesses", None) or config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            "--egress-watch prints what one process sees: it takes no workers of pytest-xdist. Run with -n 0"
        )
    return True


class ReportOption(NamedTuple):
    """Where a report is written, and whether of all tests, or of those that failed."""

    folder: str
    of_all: bool


def report_option(config: pytest.Config) -> ReportOption | None:
    """None for no report. `pytest.UsageError` for a folder that is missing with --egress-report-all, or not ours."""
    of_all = bool(config.getoption("egress_report_all"))
    if (sent := getattr(config, "workerinput", {}).get("egress report")) is not None:
        return ReportOption(sent, of_all) if sent else None
    given = config.getoption("egress_report") or os.environ.get("PYTEST_EGRESS_REPORT")
    base = config.invocation_params.dir
    if not given and (given := config.getini("egress_report")):
        base = config.rootpath
    if given:
        from pytest_egress.evidence.folder import foreign_file

        path = base / os.path.expanduser(given)
        if (file := foreign_file(path)) is not None:
            raise pytest.UsageError(
                f"--egress-report={given}: it would replace {file.name} there, which is of no report; "
                "name another folder, or remove the file"
            )
        return ReportOption(str(path), of_all)
    if of_all:
        raise pytest.UsageError(
            "--egress-report-all: it needs a folder to write to; add --egress-report=DIR"
        )
    return None


def sidecar_image_option(config: pytest.Config) -> str | None:
    given = config.getoption("egress_sidecar_image") or os.environ.get(
        "PYTEST_EGRESS_SIDECAR_IMAGE"
    )
    return given or config.getini("egress_sidecar_image") or None
