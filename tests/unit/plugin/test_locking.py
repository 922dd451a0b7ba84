"""A run with `egress.lock`: what fails a test, what an update writes, and what a run that is not whole leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stand_in import INI, RunPytest, lines_of

HEAD = "# Written by pytest --egress-lock=update. A new line is a new dependency: review it.\n"
LISTED = f"""{HEAD}
["shop"]
https = [
    "a.test:443",
    "old.test:443",
]
"""
ONE = """
def reach(egress, *hosts):
    egress.intercept_https("*", {})
    traffic(egress, *(f"https://{host}/" for host in hosts))
def test_a(egress): reach(egress, "a.test")
"""
TWO = ONE + 'def test_b(egress): reach(egress, "b.test", "b.test")\n'


@pytest.fixture
def lock(pytester: pytest.Pytester) -> Path:
    """The file of a suite that has switched the lock on."""
    pytester.makeini(f"{INI}egress_lock = egress.lock\n")
    file: Path = pytester.path / "egress.lock"
    file.write_text(LISTED)
    return file


def hosts_in(file: Path) -> set[str]:
    return {line.strip('", ') for line in file.read_text().splitlines() if line[:5] == '    "'}


def test_a_destination_that_is_not_listed_fails_its_test(run: RunPytest, lock: Path) -> None:
    result = run(TWO)
    result.assert_outcomes(passed=1, failed=1)
    lines_of(
        result,
        "*_ test_b _*",
        "shop reached what egress.lock does not list:",
        "",
        "  https b.test:443   2 requests, by test_x.py::test_b",
        "      GET https://b.test/",
        '      answered by: intercept_https("[*]")  declared at test_x.py:5',
        "",
        "to accept it: pytest --egress-lock=update, and commit egress.lock",
        "test_x.py:*: LockError",
        "FAILED test_x.py::test_b - shop reached https b.test:443, which egress.lock does not list",
    )
    assert lock.read_text() == LISTED


def test_a_lock_that_is_not_there_says_so(run: RunPytest, lock: Path) -> None:
    lock.unlink()
    result = run(ONE)
    result.assert_outcomes(failed=1)
    lines_of(result, "egress.lock is not there yet. to accept it: pytest --egress-lock=update, *")
    assert not lock.exists()


def test_without_the_ini_option_there_is_no_lock(run: RunPytest, pytester: pytest.Pytester) -> None:
    run(TWO).assert_outcomes(passed=2)
    run(TWO, "--egress-lock=off").assert_outcomes(passed=2)
    run(TWO, "--egress-lock").assert_outcomes(failed=2)
    assert not (pytester.path / "egress.lock").exists()


def test_unrouted_comes_before_the_lock_and_never_called_after_it(
    run: RunPytest, lock: Path
) -> None:
    result = run("""
def test_unrouted(egress):
    egress.intercept_https("b.test", {})
    traffic(egress, "https://b.test/", "https://x.test/")
def test_never(egress):
    egress.intercept_https("b.test", {})
    egress.intercept_https("never.test", {})
    traffic(egress, "https://b.test/")
def test_own(egress):
    egress.intercept_https("b.test", {})
    traffic(egress, "https://b.test/")
    assert False, "mine"
def test_after(egress):
    egress.intercept_https("a.test", {})
    traffic(egress, "https://a.test/")
""")
    result.assert_outcomes(failed=3, passed=1)
    lines_of(
        result,
        "FAILED *test_unrouted - GET https://x.test/: no route claims it",
        "FAILED *test_never - shop reached https b.test:443, which egress.lock does not list",
        "FAILED *test_own - AssertionError: mine*",
    )


def test_an_update_of_a_whole_run_writes_what_was_reached_and_takes_out_the_rest(
    run: RunPytest, lock: Path
) -> None:
    result = run(TWO, "--egress-lock=update")
    result.assert_outcomes(passed=2)
    assert hosts_in(lock) == {"a.test:443", "b.test:443"}
    lines_of(
        result,
        "egress: egress.lock: 1 line added",
        "  shop  https b.test:443",
        "egress: egress.lock: 1 line taken out",
        "  shop  https old.test:443",
    )
    before = lock.read_text()
    lines_of(run("", "--egress-lock=update"), "egress: egress.lock: nothing new")
    assert lock.read_text() == before
    run("").assert_outcomes(passed=2)


def test_a_line_that_no_test_reaches_is_a_note_of_a_whole_run(run: RunPytest, lock: Path) -> None:
    stale = "*1 line that no test reached; --egress-lock=update takes them out"
    result = run(ONE)
    result.assert_outcomes(passed=1)
    lines_of(result, stale, "  shop  https old.test:443")
    run("", "-k", "test_a").stdout.fnmatch_lines([stale])  # -k takes none away here
    run(TWO, "-k", "test_a").stdout.no_fnmatch_line(stale)


SKIPS = """
@pytest.mark.skip
def test_skips(egress): pass
"""
SKIPS_UNSEEN = """
import pytest
@pytest.fixture
def unseen(request): return request.getfixturevalue("egress")
def test_skips(unseen): pytest.skip("later")
"""
FAILS = "def test_fails(egress): assert False\n"
XFAILS = """
@pytest.mark.xfail
def test_xfails(egress): assert False
"""
HIDES = "def pytest_collection_modifyitems(items): items[:] = [i for i in items if i.name != 'test_a']\n"

EXITS = """
def test_exits():
    import pytest
    pytest.exit("enough", returncode=0)
def test_never_run(egress): pass
"""


@pytest.mark.parametrize(
    ("more", "args", "why"),
    [
        ("", ["-k", "test_b"], "1 test of it did not run"),
        ("", ["test_x.py::test_b"], "it was asked for test_x.py::test_b"),
        ("", ["folder"], "it was asked for folder"),
        ("", ["--ignore=folder"], "--ignore"),
        ("", ["--lf"], "--lf"),
        (FAILS, ["-x"], "it was not green"),
        (SKIPS, [], "test_x.py::test_skips was skipped"),
        (SKIPS_UNSEEN, [], "test_x.py::test_skips was skipped"),
        (XFAILS, [], "test_x.py::test_xfails failed as expected"),
        ("", ["-o", "python_files=test_x.py"], "-o python_files=test_x.py"),
        (EXITS, [], "it was stopped"),
    ],
    ids=["k", "node", "folder", "ignore", "lf", "x", "skip", "skip unseen", "xfail", "ini", "exit"],
)
def test_a_run_that_is_not_whole_or_not_green_adds_and_takes_nothing_out(
    run: RunPytest, lock: Path, pytester: pytest.Pytester, more: str, args: list[str], why: str
) -> None:
    folder = pytester.mkdir("folder")
    folder.joinpath("test_y.py").write_text(
        "from gateway import traffic\n"
        "def test_b(egress):\n"
        "    egress.intercept_https('*', {})\n"
        "    traffic(egress, 'https://b.test/')\n"
    )
    result = run(TWO + more, "--egress-lock=update", *args)
    assert hosts_in(lock) == {"a.test:443", "old.test:443", "b.test:443"}
    stay = f"egress: egress.lock: lines that no test reached stay, since this was not the whole suite: {why}"
    assert stay in result.outlines


def test_a_run_without_tests_takes_nothing_out(run: RunPytest, lock: Path) -> None:
    """`--fixtures` and `--cache-show` end green."""
    for option in ("--fixtures", "--cache-show"):
        run(TWO, "--egress-lock=update", option)
        assert hosts_in(lock) == {"a.test:443", "old.test:443"}


def test_tests_that_another_plugin_takes_away_are_missed(
    run: RunPytest, lock: Path, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(HIDES)
    run(TWO, "--egress-lock=update").assert_outcomes(passed=1)
    assert hosts_in(lock) == {"a.test:443", "old.test:443", "b.test:443"}


def test_a_skipped_test_that_cannot_use_egress_leaves_the_run_whole(
    run: RunPytest, lock: Path
) -> None:
    skips = "def test_skips(tmp_path): pytest.skip('later')\n"
    run(ONE + skips, "--egress-lock=update").assert_outcomes(passed=1, skipped=1)
    assert hosts_in(lock) == {"a.test:443"}


def test_a_module_that_is_skipped_is_missed(
    run: RunPytest, lock: Path, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_y="import pytest\npytest.importorskip('no_such_package')\n")
    run(ONE, "--egress-lock=update").assert_outcomes(passed=1, skipped=1)
    assert hosts_in(lock) == {"a.test:443", "old.test:443"}


def test_all_of_testpaths_is_the_whole_suite_however_it_is_asked_for(
    run: RunPytest, lock: Path, pytester: pytest.Pytester
) -> None:
    pytester.makeini(f"{INI}egress_lock = egress.lock\ntestpaths = tests\n")
    pytester.mkdir("tests").joinpath("test_y.py").write_text("def test_nothing(): pass\n")
    run("", "--egress-lock=update", "tests").assert_outcomes(passed=1)
    assert hosts_in(lock) == set()
    lock.write_text(LISTED)
    run("", "--egress-lock=update", ".").assert_outcomes(passed=1)
    assert hosts_in(lock) == set()


def test_what_fails_a_test_is_never_written(run: RunPytest, lock: Path) -> None:
    result = run(
        """
def test_unrouted(egress): traffic(egress, "https://x.test/")
def test_raises(egress):
    egress.intercept_https("y.test", lambda request: 1 / 0)
    traffic(egress, "https://y.test/")
@pytest.mark.egress(unrouted="block")
def test_blocked(egress): traffic(egress, "https://z.test/")
""",
        "--egress-lock=update",
    )
    result.assert_outcomes(failed=2, passed=1)
    assert lock.read_text() == LISTED.replace(
        "https = [", 'blocked = [\n    "z.test:443",\n]\nhttps = ['
    )


def test_what_is_blocked_is_checked_too(run: RunPytest, lock: Path) -> None:
    result = run("""
@pytest.mark.egress(unrouted="block")
def test_policy(egress): traffic(egress, "https://z.test/")
def test_route(egress):
    egress.block("z.test")
    traffic(egress, "https://z.test/")
""")
    result.assert_outcomes(failed=2)
    lines_of(
        result,
        "  blocked z.test:443   1 attempt, by test_x.py::test_policy",
        '      blocked by: unrouted="block"',
        '      blocked by: block("z.test")  declared at *',
    )


def test_what_is_reached_after_a_test_fails_its_teardown(run: RunPytest, lock: Path) -> None:
    result = run("""
@pytest.fixture
def late(egress):
    egress.intercept_https("*", {})
    traffic(egress, "https://a.test/")
    yield
    traffic(egress, "https://late.test/")
def test_a(late): pass
def test_b(egress): pass
""")
    result.assert_outcomes(passed=2, errors=1)
    lines_of(
        result,
        "  https late.test:443   1 request, by test_x.py::test_a",
        "This came after the test had ended, and before its containers were removed.",
        "ERROR test_x.py::test_a - shop reached https late.test:443, which egress.lock does not list",
    )


def test_a_secret_in_a_host_is_shown_and_written_by_its_name(run: RunPytest, lock: Path) -> None:
    source = """
def test_a(egress):
    egress._inner.session.hide({"API_KEY": "live-4eC39HqLyjWD"})
    egress.intercept_https("*", {})
    traffic(egress, "https://live-4ec39hqlyjwd.evil.test/")
"""
    result = run(source)
    result.assert_outcomes(failed=1)
    lines_of(result, "  https <API_KEY>.evil.test:443   1 request, by *")
    result = run("", "--egress-lock=update")
    lines_of(result, "*1 line not written, since they have a secret in them, or are no hosts")
    assert "live" not in lock.read_text()
    assert "4ec39hqlyjwd" not in str(result.stdout)


def test_a_secret_in_the_name_of_a_test_is_not_told(run: RunPytest, lock: Path) -> None:
    source = """
@pytest.mark.parametrize("key", ["live-4eC39HqLyjWD"])
def test_a(egress, key):
    egress._inner.session.hide({"API_KEY": key})
    pytest.skip("later")
"""
    result = run(source, "--egress-lock=update")
    lines_of(result, "egress: *not the whole suite: test_x.py::test_a[[]<API_KEY>] was skipped")


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [
        ("<<<<<<< HEAD\n", [], "ERROR: egress.lock: line 1 has a merge conflict: '<<<<<<< HEAD'"),
        ("", ["--egress-lock=updat"], "ERROR: --egress-lock=updat: it takes check, update or off"),
        (
            "",
            ["-o", "egress_lock=no/x"],
            "ERROR: egress_lock = no/x in *: it takes the path of a file*",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_test(
    run: RunPytest, lock: Path, text: str, args: list[str], said: str
) -> None:
    lock.write_text(text)
    result = run(ONE, *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_a_file_that_cannot_be_written_is_a_line_and_no_failure(
    run: RunPytest, lock: Path, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
        import pytest_egress.plugin.locking
        def full(*_):
            raise OSError("no space left on device")
        pytest_egress.plugin.locking.write_whole = full
    """)
    result = run(TWO, "--egress-lock=update")
    result.assert_outcomes(passed=2)
    lines_of(result, "egress: egress.lock could not be written: no space left on device")


@pytest.mark.parametrize(
    ("meanwhile", "hosts", "said"),
    [
        (
            LISTED.replace('    "old', '    "new.test:443",\n    "old'),
            {"a.test:443", "b.test:443", "new.test:443"},
            "egress: egress.lock: 1 line added",
        ),
        (
            f"<<<<<<< HEAD\n{LISTED}",
            {"a.test:443", "old.test:443"},
            "egress: egress.lock could not be written: egress.lock: line 1 has a merge conflict*",
        ),
    ],
)
def test_what_was_written_while_the_run_went_on_stays(
    run: RunPytest, lock: Path, meanwhile: str, hosts: set[str], said: str
) -> None:
    writes = (
        f"import pathlib\ndef test_c(): pathlib.Path({str(lock)!r}).write_text({meanwhile!r})\n"
    )
    lines_of(run(TWO + writes, "--egress-lock=update"), said)
    assert hosts_in(lock) == hosts


@pytest.mark.plugins("xdist")
def test_workers_compare_and_the_controller_writes_once(run: RunPytest, lock: Path) -> None:
    run(TWO, "-n2").assert_outcomes(passed=1, failed=1)
    result = run(TWO + SKIPS, "-n2", "--egress-lock=update")
    result.assert_outcomes(passed=2, skipped=1)
    assert hosts_in(lock) == {"a.test:443", "old.test:443", "b.test:443"}
    result = run(TWO, "-n2", "--egress-lock=update")
    assert hosts_in(lock) == {"a.test:443", "b.test:443"}
    assert result.outlines.count("egress: egress.lock: 1 line taken out") == 1


@pytest.mark.plugins("xdist")
def test_a_worker_that_crashes_takes_nothing_out(run: RunPytest, lock: Path) -> None:
    crash = "def test_crash(): import os; os._exit(3)\n"
    run(TWO + crash, "-n1", "--egress-lock=update", "--max-worker-restart=0")
    assert "old.test:443" in hosts_in(lock)
