"""`@pytest.mark.egress_sweep`: a second item for each marked test, which runs it once for each cell before itself.

Imported, and its hooks registered, for the first marked test that is collected: other runs know nothing of it. A cell
is a copy of the test, and runs by the whole protocol of pytest, with a report of its own.

It is long, because what pytest does with one item, from its collection to its report, is read in that order.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from typing import Any, Final

import pytest

from pytest_egress.base.clock import monotonic
from pytest_egress.errors import CommandError, SweepError
from pytest_egress.plugin.case import CASE, QUIET, Case
from pytest_egress.plugin.copies import copy_of, named, set_id, take_method_name
from pytest_egress.plugin.run import RUN
from pytest_egress.plugin.swept import NO_PLACE, PROPERTY
from pytest_egress.routes.table import RouteTable
from pytest_egress.sweep.calls import host_of
from pytest_egress.sweep.cells import CallRow, Cell, Seen, cells_of, parsed
from pytest_egress.sweep.faults import FAULTS
from pytest_egress.sweep.outages import SweptPlace, outage, places_of
from pytest_egress.sweep.settings import Settings, settings_of
from pytest_egress.sweep.trial import MAX_CALLS, QUIET_SECONDS, SweepTrial
from pytest_egress.sweep.verdict import (
    Aftermath,
    ContainerEnd,
    Letters,
    failed_of,
    letters_of,
    text_of,
)
from pytest_egress.traffic.entries import Entry, Exchange, TcpConnection

MARKER: Final = "egress_sweep"
HAPPY_SECONDS: Final = 9e8
"""The time of a happy path: any."""

HAS_FAILED: Final = "the happy path has failed"
IS_QUIET: Final = "the happy path is skipped, or expected to fail"

GIVEN_UP: Final = "the client closed"
"""Begins the note of a call whose client has left before there was an answer."""

TOLD_CALLS: Final = 20
"""How many calls of the happy path are told where a cell is named whose call is none of them."""

LOOK_SECONDS: Final = 0.05
LATE_SECONDS: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Happy:
    """What came of the happy path.

    Attributes:
        problem: Why there is none; "" where the test has passed.
        is_told: Whether a report of its own says so.
        is_skipped: Whether the test was skipped.
        seconds: How long it took.
        codes: The exit codes of its containers, by name.
        places: What it has dialled and looked up, by the names of these calls.
    """

    calls: dict[str, Seen] = field(default_factory=dict)
    problem: str = ""
    is_told: bool = False
    is_skipped: bool = False
    is_over_limit: bool = False
    seconds: float = 0.0
    codes: dict[str, int] = field(default_factory=dict)
    places: dict[str, SweptPlace] = field(default_factory=dict)

    def is_of_place(self, row: CallRow) -> bool:
        """Whether a row is what comes before calls, which a pool or a cache may save the next run."""
        seen = self.calls.get(row.call)
        return seen is not None and seen.kinds <= {"dial", "name"}


@dataclass(eq=False, kw_only=True)
class Planned:
    """The cell that an item is.

    Attributes:
        base: The test.
        place: Its number among those of the test, in its sweep.
        is_named: Whether the command line has its name.
        happy: That of the test, once it is known.
        letters, met, exit_code: What came of its run.
    """

    base: pytest.Function
    cell: Cell
    place: int = NO_PLACE
    is_named: bool = False
    happy: Happy | None = None
    letters: Letters = "-"
    met: int = 0
    exit_code: int = 0


PLANNED: Final = pytest.StashKey[Planned]()
HAPPY: Final = pytest.StashKey[Happy]()
TRIAL: Final = pytest.StashKey[SweepTrial]()
GONE: Final = pytest.StashKey[Collection[str]]()
"""The names of the containers that had ended before the run of a test, whose ends say nothing of it."""

PROBE: Final = pytest.StashKey[list[pytest.TestReport]]()
"""Of a run of the happy path that is logged nowhere: its reports."""

RESTLESS: Final = pytest.StashKey[set[str]]()
"""Of the run: the calls that shared containers went on to make after they had met a fault."""

BROKEN: Final = pytest.StashKey[BaseException]()
"""The exception by which the set-up of a cell has failed: it is judged as that of the test."""


def marked(item: pytest.Item) -> Settings | None:
    """The settings of a test that is swept; None of any other."""
    marker = item.get_closest_marker(MARKER)
    if marker is None or isinstance(item, Sweep):
        return None
    return settings_of(marker.args, marker.kwargs)


def check_item(item: pytest.Item) -> None:
    """Refuse what cannot be copied: TypeError."""
    if not isinstance(item, (Sweep, pytest.Function)):
        raise TypeError(
            f"test functions and methods are swept, and this is a {type(item).__name__}"
        )


def expanded(collector: pytest.Collector, items: Iterable[Any]) -> Iterator[Any]:
    """Each node, and after a marked test its sweep, and those of its cells that are run by name.

    The session collects again what the command line names: that has been expanded before.
    """
    config, items = collector.config, list(items)
    swept = [item for item in items if is_new(item, collector)]
    if swept and not config.pluginmanager.has_plugin(PLUGIN):
        config.pluginmanager.register(Sweeps(), PLUGIN)
        config.pluginmanager.register(Within(), f"{PLUGIN}-within")
    asked = asked_cells(config, swept)
    for item in items:
        yield item
        if item not in swept:
            continue
        if config.stash[RUN].sweep == "on":
            yield Sweep.from_parent(
                item.parent or item.session, name=named(item.name, "sweep"), base=item
            )
        for cell, is_named in asked.get(item, ()):
            yield cell_item(Planned(base=item, cell=cell, is_named=is_named))


def is_new(item: object, collector: pytest.Collector) -> bool:
    """Whether a node is a test to sweep that this collector has just made."""
    is_own = isinstance(item, pytest.Function) and item.parent is collector
    return is_own and item.get_closest_marker(MARKER) is not None  # type: ignore[attr-defined]


def asked_cells(
    config: pytest.Config, swept: Sequence[pytest.Function]
) -> dict[pytest.Function, list[tuple[Cell, bool]]]:
    """The cells of each test that the command line names, or that --lf or --ff run, and whether the first is so.

    A cell is of the test whose name is the longest that begins its own: parameters may be `a` and `a-B`.
    """
    found: dict[pytest.Function, list[tuple[Cell, bool]]] = {}
    for name, is_named in asked_names(config, swept):
        owners = [item for item in swept if name.startswith(beginning_of(item))]
        owner = max(owners, key=lambda item: len(item.nodeid), default=None)
        if owner is None or not name.endswith("]"):
            continue
        if cell := parsed(name[len(beginning_of(owner)) : -1]):
            found.setdefault(owner, []).append((cell, is_named))
    return found


def asked_names(
    config: pytest.Config, swept: Sequence[pytest.Function]
) -> Iterator[tuple[str, bool]]:
    """The names within the module of these tests that may be of cells, and whether the command line has them."""
    if not swept:
        return
    path, module = swept[0].path.resolve(), f"{swept[0].nodeid.partition('::')[0]}::"
    again = config.getoption("lf", False) or config.getoption("failedfirst", False)
    failed = config.cache.get("cache/lastfailed", {}) if again else {}
    names: dict[str, bool] = {}
    for asked in config.args:
        place, mark, name = str(asked).partition("::")
        if mark and (config.invocation_params.dir / place).resolve() == path:
            names[name] = True
    for each in failed:
        if each.startswith(module):
            names.setdefault(each.removeprefix(module), False)
    yield from names.items()


def beginning_of(item: pytest.Function) -> str:
    """What the names of a test's cells begin with, within its module."""
    return named(item.nodeid.partition("::")[2], "")[:-1]


def cell_item(planned: Planned) -> pytest.Function:
    clone = copy_of(planned.base, str(planned.cell))
    clone.stash[PLANNED] = planned
    return clone


class Sweep(pytest.Item):
    """`test[sweep]`: its cells run before it. It fails where the sweep was not whole."""

    def __init__(self, *, base: pytest.Function, **rest: Any) -> None:
        super().__init__(**rest)
        self.base, self.problem, self.skips = base, "", False
        set_id(self, named(base.nodeid, "sweep"))
        mine = [mark for mark in base.own_markers if mark.name not in OF_A_TEST]
        self.own_markers[:] = mine
        self.keywords.update({mark.name: mark for mark in mine})

    def reportinfo(self) -> tuple[Any, int | None, str]:
        path, line, _ = self.base.reportinfo()
        return path, line, self.name

    def runtest(self) -> None:
        if self.problem and self.skips:
            pytest.skip(self.problem)
        if self.problem:
            raise SweepError(self.problem)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, SweepError):
            text: Any = excinfo.getrepr(style="value", chain=False)
            text.reprcrash.message = self.problem.partition("\n")[0]
            return text
        return super().repr_failure(excinfo, style)

    def run_cells(self) -> None:
        """Run the cells, and note what is said of the sweep as a whole."""
        if is_setup_only(self.config):
            return
        if (mode := self.config.stash[RUN].record_mode) != "none":
            self.problem, self.skips = f"nothing is swept while {mode} records cassettes", True
            return
        settings = marked(self.base)
        assert settings is not None
        happy = happy_of(self.base, self)
        if happy.problem:
            self.problem, self.skips = happy.problem, happy.is_told or happy.is_skipped
        elif happy.is_over_limit:
            self.problem = f"more than {MAX_CALLS} different calls came: no sweep can be whole"
        elif not happy.calls:
            self.problem = "nothing was swept: no call of a container was answered by a route"
        elif unmatched := [*settings.unmatched([*happy.calls])]:
            calls = "".join(f"\n  {call}" for call in happy.calls)
            self.problem = f"no call is meant by {', '.join(unmatched)}. The calls are:{calls}"
        else:
            self._run_cells(settings, happy)

    def _run_cells(self, settings: Settings, happy: Happy) -> None:
        only = self.config.getoption("egress_sweep_only") or "*"
        cells = [*cells_of(happy.calls, settings.faults, settings.only)]
        places = {cell.row: number for number, cell in enumerate(cells)}
        queue = [cell for cell in cells if is_chosen(cell, only)]
        if not queue:
            self.problem = f"no cell is meant by --egress-sweep-only={only}" if cells else NO_CELLS
            self.skips = bool(cells)
            return
        unmet, ran = {cell.row for cell in queue if not happy.is_of_place(cell.row)}, 0
        while queue and not (self.session.shouldfail or self.session.shouldstop):
            if ran == settings.limit:
                self.problem = f"{len(queue)} cells or more were not run: limit={settings.limit}"
                return
            cell, ran = queue.pop(0), ran + 1
            planned = Planned(base=self.base, cell=cell, place=places[cell.row], happy=happy)
            self._run(planned)
            unmet -= {cell.row} if planned.met else set()
            if planned.letters == "HUNG":  # another call to the same host would take as long
                alike = [each for each in queue if is_alike(each, cell)]
                queue, unmet = [e for e in queue if e not in alike], unmet - {e.row for e in alike}
            again = Cell(row=cell.row, fault=cell.fault, is_once=True)
            has_once = FAULTS[cell.fault].outage is None and not cell.is_once
            if planned.met > 1 and has_once and is_chosen(again, only):
                queue.append(again)
        if queue:
            self.problem, self.skips = f"the run ends: {len(queue)} cells were not run", True
        elif unmet:
            rows = "".join(f"\n  {row}" for row in places if row in unmet)
            self.problem = (
                f"calls of the happy path came again in no run, so none of them failed:{rows}"
            )

    def _run(self, planned: Planned) -> None:
        """A worker of pytest-xdist checks that reports are of what stands at the place of the item that runs."""
        clone, items = cell_item(planned), self.session.items
        self.session.testscollected += 1  # of which the terminal shows percents
        place = items.index(self)
        items[place] = clone
        try:
            self.ihook.pytest_runtest_protocol(item=clone, nextitem=self)
        finally:
            items[place] = self


OF_A_TEST: Final = ("skip", "skipif", "xfail", "usefixtures", "parametrize")
"""The markers of a test that are none of its sweep's."""

NO_CELLS: Final = "nothing was swept: no fault of faults= is for the calls that only= means"


def is_setup_only(config: pytest.Config) -> bool:
    """Whether no test is called: --setup-only, --setup-plan."""
    return bool(config.getoption("setuponly", False))


def is_chosen(cell: Cell, only: str) -> bool:
    return fnmatchcase(str(cell), only)


def is_alike(cell: Cell, hung: Cell) -> bool:
    return cell.fault == hung.fault and host_of(cell.row.call) == host_of(hung.row.call)


def happy_of(base: pytest.Function, following: pytest.Item) -> Happy:
    """What came of the happy path of a test, which is run now where it has not run in this process.

    Args:
        following: The item that runs next.
    """
    if HAPPY in base.stash:
        return base.stash[HAPPY]
    probe = copy_of(base, "happy path")
    reports = probe.stash[PROBE] = []
    probe.ihook.pytest_runtest_protocol(item=probe, nextitem=following)
    happy = probe.stash.get(HAPPY, None)
    failed = [report for report in reports if report.failed]
    if failed:
        happy = Happy(problem=f"the happy path fails:\n{failed[0].longreprtext}")
    elif happy is None or happy.problem:
        happy = Happy(problem=IS_QUIET, is_skipped=True)
    base.stash[HAPPY] = happy
    return happy


def reports_of(item: pytest.Item, following: pytest.Item) -> Iterator[pytest.TestReport]:
    """Run an item; its reports are logged nowhere."""
    steps: list[tuple[Any, dict[str, Any]]] = [
        ("setup", {}),
        ("call", {}),
        ("teardown", {"nextitem": following}),
    ]
    has_passed = True
    for when, given in steps:
        if when == "call" and not has_passed:
            continue
        run = partial(getattr(item.ihook, f"pytest_runtest_{when}"), item=item, **given)
        call = pytest.CallInfo.from_call(run, when, (pytest.exit.Exception, KeyboardInterrupt))
        report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
        has_passed = report.passed
        yield report


PLUGIN: Final = "egress-sweep"


class Within:
    """The hooks that act within those of other plugins."""

    # Before those that log reports: pytest's own, and that of pytest-rerunfailures. Wrappers are around it, such as
    # the timer of pytest-timeout and the filters of warnings.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item) -> bool | None:
        if PROBE not in item.stash:
            return None
        item.stash[PROBE] += reports_of(item, nextitem)
        return True

    # The innermost wrapper: the window is still open.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            if TRIAL in item.stash:
                settle(item)


class Sweeps:
    """The hooks that act while a marked test or one of its cells runs."""

    # The outermost wrapper: no other plugin's is around the cells.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if isinstance(item, Sweep):
            item.run_cells()
        elif PLANNED in item.stash and not is_setup_only(item.config):
            planned = item.stash[PLANNED]
            planned.happy = planned.happy or happy_of(planned.base, item)
        if PLANNED in item.stash or PROBE in item.stash:
            take_method_name(item)
        return (yield)

    # Within that of `Cases`, which opens the window.
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        settings = marked(item)
        if settings is None or CASE not in item.stash or is_setup_only(item.config):
            return (yield)
        planned = item.stash.get(PLANNED, None)
        begin(item, settings, planned)
        try:
            return (yield)
        except QUIET as ending:
            end_fault(item)
            note_skip(item, planned, ending)
            raise
        except BaseException as error:  # pytest.fail() raises no Exception
            if planned is None:
                raise
            item.stash[BROKEN] = error
            item.runtest = pass_by  # type: ignore[method-assign]
            settle(item)
            return None

    # Around that of `Cases`, which raises the verdict on the traffic.
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        if (trial := item.stash.get(TRIAL, None)) is None:
            return (yield)
        error: BaseException | None = None
        try:
            result = yield
        except QUIET as ending:
            note_skip(item, item.stash.get(PLANNED, None), ending)
            raise
        except BaseException as raised:
            if trial.cell is None:
                raise
            result, error = None, raised
        if trial.cell is None:
            item.stash[HAPPY] = happy_from(item.stash[CASE], trial, item.stash[GONE])
            return result
        kept = kept_errors(item)
        if kept and isinstance(kept[0].value, QUIET):
            note_skip(item, item.stash[PLANNED], kept[0].value)
            return result
        error = kept[0].value if error is None and kept else error
        failure = end(item, item.stash[PLANNED], item.stash.get(BROKEN, error) or error)
        if failure is error and kept:
            return result
        kept.clear()
        if failure is None:
            item.stash[CASE].passed = True
            return result
        if failure is error:
            raise failure
        raise failure from error

    # Around that of pytest which applies xfail.
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if HAPPY in item.stash and report.when != "teardown":
            if report.skipped or hasattr(report, "wasxfail"):  # no cell of it could fail
                item.stash[HAPPY] = Happy(problem=IS_QUIET, is_skipped=True)
            elif report.failed:  # a strict xfail whose test has passed, or a method of unittest
                item.stash[HAPPY] = Happy(problem=HAS_FAILED, is_told=True)
        return report


def kept_errors(item: pytest.Item) -> list[pytest.ExceptionInfo[BaseException]]:
    """What a method of unittest has failed or skipped by, which pytest raises only with its report."""
    found: list[pytest.ExceptionInfo[BaseException]] | None = getattr(item, "_excinfo", None)
    return [] if found is None else found


def pass_by() -> None:
    """The call of a cell whose set-up has failed."""


def begin(item: pytest.Item, settings: Settings, planned: Planned | None) -> None:
    """Begin a run of the test; what an earlier one of the same item has seen is forgotten."""
    case, seconds = item.stash[CASE], HAPPY_SECONDS
    tables: tuple[RouteTable, ...] = ()
    item.__dict__.pop("runtest", None)
    if BROKEN in item.stash:
        del item.stash[BROKEN]
    if planned is None:
        item.stash[HAPPY] = Happy(problem=HAS_FAILED, is_told=True)
    else:
        happy = planned.happy
        assert happy is not None
        if happy.is_skipped or happy.is_told:
            pytest.skip(happy.problem)
        if happy.problem:
            raise SweepError(happy.problem)
        if planned.is_named and (problem := unknown_call(planned.cell.row, happy)):
            raise SweepError(problem)
        seconds = happy.seconds + settings.patience
        case.options = case.options._replace(assert_all_called=False)
        tables = tables_of(planned.cell, happy, case)
    cell = None if planned is None else planned.cell
    item.stash[TRIAL] = case.window.trial = SweepTrial(cell, seconds, tables)
    if tables:
        case.session.act_on_routes()
    item.stash[GONE] = {each.name for each in case.session.live() if not each.is_running()}


def tables_of(cell: Cell, happy: Happy, case: Case) -> tuple[RouteTable, ...]:
    """What fails before there is a call, for the cell that it is for."""
    place = happy.places.get(cell.row.call)
    if FAULTS[cell.fault].outage is None or place is None:
        return ()
    return (outage(cell.fault, place, case.session.ledger),)


def unknown_call(row: CallRow, happy: Happy) -> str:
    """What is said of a cell whose call is none of the happy path: its fault would meet nothing; "" of any other."""
    seen = happy.calls.get(row.call)
    if seen is not None and row.number <= seen.times:
        return ""
    told = [f"\n  {call}: {seen.times}" for call, seen in islice(happy.calls.items(), TOLD_CALLS)]
    rest = len(happy.calls) - len(told)
    calls = "".join([*told, f"\n  and {rest} more" if rest else ""])
    return f"the happy path makes no call {row}. Its calls, and how often each came, are:{calls or ' none'}"


def settle(item: pytest.Item) -> None:
    """End the fault of a cell, and wait until none of its clients is left that a later cell could meet."""
    case, trial = item.stash[CASE], item.stash[TRIAL]
    if trial.cell is None:
        return
    end_fault(item)
    await_clients(item)
    if is_met_in_shared(case):
        await_quiet(case, trial, item.config.stash.setdefault(RESTLESS, set()), trial.cell.row.call)


def end_fault(item: pytest.Item) -> None:
    trial = item.stash[TRIAL]
    has_routes = bool(trial.tables)
    trial.end_fault()
    if has_routes:  # the kernels of shared containers have their rules
        item.stash[CASE].session.act_on_routes()


def is_met_in_shared(case: Case) -> bool:
    """Whether a container met the fault that outlives the test."""
    shared = {each.container for each in case.session.shared(case.window)}
    return any(each.container in shared for each in met_of(case))


def await_quiet(case: Case, trial: SweepTrial, restless: set[str], call: str) -> None:
    """Wait until a shared container tries a call no more; note one that it goes on to make."""
    since = monotonic()
    until = since + max(trial.seconds_left(), 2 * QUIET_SECONDS)
    while call not in restless and (left := trial.restless_seconds(since)):
        if monotonic() > until:
            restless.update([call] if trial.late_tries else ())
            return
        case.window.over.wait(min(left, LOOK_SECONDS))


def await_clients(item: pytest.Item) -> None:
    """Wait until those have left, or have waited too long, whose call gets no answer."""
    window, trial = item.stash[CASE].window, item.stash[TRIAL]
    until = monotonic() + trial.seconds_left() + LATE_SECONDS
    while monotonic() < until and any(map(is_open, met_of(item.stash[CASE]))):
        window.over.wait(LOOK_SECONDS)


def met_of(case: Case) -> list[Entry]:
    """The calls that met the fault. A dial of another address of the same name is none of its own."""
    return [each for each in list(case.window.entries) if each.swept and is_call(each)]


def is_call(entry: Entry) -> bool:
    return not isinstance(entry, TcpConnection) or entry.outcome == "routed"


def seconds_of(entry: Entry) -> float | None:
    """How long a call took; None while it is open."""
    return entry.duration if isinstance(entry, (Exchange, TcpConnection)) else 0.0


def is_open(entry: Entry) -> bool:
    return seconds_of(entry) is None


def happy_from(case: Case, trial: SweepTrial, gone: Collection[str]) -> Happy:
    places = places_of(case.window.entries)
    before = {
        call: Seen(1, frozenset({"dial" if place.port else "name"}))
        for call, place in places.items()
    }
    return Happy(
        calls={**trial.calls, **{call: before[call] for call in before if call not in trial.calls}},
        places=places,
        seconds=trial.seconds,
        codes={name: ended.exit_code for name, ended in ends_of(case, trial, gone)[0].items()},
        is_over_limit=trial.is_over_limit,
    )


def ends_of(
    case: Case, trial: SweepTrial, gone: Collection[str]
) -> tuple[dict[str, ContainerEnd], list[str]]:
    """The ends of the run's containers, and the names of those that still run.

    Args:
        gone: Those that had ended before.
    """
    ended, running = {**trial.ended}, []
    for container in case.session.live():
        if container.name in ended or container.name in gone:
            continue
        if container.is_running():
            running.append(container.name)
        else:
            found = container.wait(LATE_SECONDS)
            has_spoken = bool(found.stdout_bytes.strip() or found.stderr_bytes.strip())
            ended[container.name] = ContainerEnd(found.exit_code, has_spoken=has_spoken)
    return ended, running


def end(item: pytest.Item, planned: Planned, error: BaseException | None) -> BaseException | None:
    """Judge the run of a cell, and note it; return the exception by which it fails, if it does."""
    case, trial, happy = item.stash[CASE], item.stash[TRIAL], planned.happy
    settings = marked(item)
    assert settings is not None
    assert happy is not None
    seconds, met = trial.seconds, met_of(case)
    offence = case.verdict if error is case.verdict else case.judge(case.unlisted)
    ended, running = ends_of(case, trial, item.stash[GONE])
    for name, code in exits_told(error):
        ended.setdefault(name, code)
    planned.met = len(met) and len(met) + trial.late_tries
    is_restless = planned.cell.row.call in item.config.stash.get(RESTLESS, ())
    has_to_pass = settings.has_to_pass(
        planned.cell.row.call, is_tried_once_more=planned.cell.is_once or planned.met == 1
    )
    outcome = Aftermath(
        met=len(met),
        error=error,
        offence=offence,
        late=trial.late,
        waits=planned.cell.fault == "silence" and not all(map(has_given_up, met)),
        ended=ended,
        running=running,
        usual=happy.codes,
        has_to_pass=trial.has_asked or has_to_pass,
        is_unsure=planned.cell.is_once and is_restless and is_met_in_shared(case),
    )
    planned.letters = letters = letters_of(outcome)
    waited = max((seconds_of(each) or 0 for each in met), default=0) if letters != "-" else 0
    planned.exit_code = next((end.exit_code for end in failed_of(outcome)), 0)
    note(item, planned, seconds, waited if planned.cell.fault == "silence" else 0)
    if letters == "-":
        pytest.skip(f"{planned.cell}: the fault met no call")
    if letters == "ok?":
        case.verdict = None
        pytest.skip(f"{planned.cell}: {UNSURE}")
    if letters in ("ok", "err", "err?"):
        case.verdict = None
        return None
    if letters in ("STRAY", "FAILS"):
        return offence or error
    allowed = happy.seconds + settings.patience
    text = f"{planned.cell}: {text_of(letters, outcome, allowed)}\n{again(item)}"
    case.verdict = SweepError(text)
    return case.verdict


UNSURE: Final = "the test passes, but a shared container goes on making this call, and may have met the fault by that"


def note_skip(item: pytest.Item, planned: Planned | None, ending: BaseException) -> None:
    """Note the run of a cell that its test, or a fixture, has skipped."""
    if planned is None or not isinstance(ending, (pytest.skip.Exception, pytest.xfail.Exception)):
        return
    planned.met, planned.letters = len(met_of(item.stash[CASE])), "skip"
    note(item, planned, item.stash[TRIAL].seconds)


def has_given_up(entry: Entry) -> bool:
    return entry.note.startswith(GIVEN_UP)


def exits_told(error: BaseException | None) -> Iterator[tuple[str, ContainerEnd]]:
    """What an error says of containers that have ended, such as one that was never ready."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, CommandError) and error.container and error.exit_code is not None:
            yield (
                error.container,
                ContainerEnd(error.exit_code, has_spoken=bool((error.logs or "").strip())),
            )
        error = error.__cause__ or error.__context__


def again(item: pytest.Item) -> str:
    return f"To run this cell alone: pytest {shlex.quote(item.nodeid)}"


def note(item: pytest.Item, planned: Planned, seconds: float, waited: float = 0) -> None:
    """Give the report of a cell its result."""
    cell = planned.cell
    data = {
        "test": planned.base.nodeid,
        "place": planned.place,
        "call": cell.row.call,
        "number": cell.row.number,
        "fault": cell.fault,
        "once": cell.is_once,
        "letters": planned.letters,
        "exit_code": planned.exit_code,
        "met": planned.met,
        "seconds": round(seconds, 2),
        "waited": round(waited, 2),
    }
    item.user_properties[:] = [each for each in item.user_properties if each[0] != PROPERTY]
    item.user_properties.append((PROPERTY, json.dumps(data)))
