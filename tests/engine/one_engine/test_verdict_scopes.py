"""Whose traffic it is: policies, shared containers, markers, and workers."""

from __future__ import annotations

import re

import pytest

from tests.support.inner_runs import Inside, report_text, scrubbed

# What a report has beside the verdict.


def test_a_failure_has_the_timeline_and_the_end_of_each_log(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, sh, image):
            egress.intercept_https("api.shop.test", {"id": 1})
            command = "curl -sS https://api.shop.test/v1; echo; echo done"
            egress.run(image, ["sh", "-c", command])
            sh("curl -sS http://x.test/")
        """)
    assert run.sections() == {
        "egress": report_text("""
 T s  clients:latest#2  GET https://api.shop.test/v1 -> 200 OK in T ms  (looked up T ms before)
 T s  clients:latest  GET http://x.test/ -> 502 Bad Gateway in T ms  UNROUTED  (looked up T ms before)
        """),
        "container clients:latest#2": '{"id": 1}\ndone',
    }
    assert "---- egress ----" in run.output
    assert "---- container clients:latest#2 ----" in run.output


def test_a_test_that_passes_shows_nothing_of_it(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, image):
            egress.intercept_https("api.shop.test", {"id": 1})
            assert egress.run(image, "curl -sS https://api.shop.test/v1").stdout == '{"id": 1}'
        """)
    run.result.assert_outcomes(passed=1)
    assert [report.sections for report in run.reports] == [[], [], []]
    header = r"^egress: \w+ \S+ at \S+, (descriptor|stream) link, sidecar with this Python [\d.]+$"
    output, count = re.subn(header, "", run.output, flags=re.MULTILINE)
    assert count == 1
    assert "egress" not in re.sub("plugins: .*", "", output)


# Policies.

ATTEMPT = """
    def test_a(egress, sh):
        assert sh("curl -sS https://api.shop.test/v1") == (
            'pytest-egress: GET https://api.shop.test/v1 is blocked by unrouted="block"\\n'
        )
        assert [e.outcome for e in egress.exchanges] == ["blocked"]
"""


def test_what_is_unrouted_is_only_refused_where_an_option_says_so(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester
) -> None:
    inside(ATTEMPT, "--egress-unrouted=block").result.assert_outcomes(passed=1)
    marked = ATTEMPT.replace("def", '@__import__("pytest").mark.egress(unrouted="block")\n    def')
    inside(marked).result.assert_outcomes(passed=1)
    pytester.makeini(
        "[pytest]\negress_unrouted = block\nasyncio_default_fixture_loop_scope = function\n"
    )
    inside(ATTEMPT).result.assert_outcomes(passed=1)
    monkeypatch.setenv("PYTEST_EGRESS_UNROUTED", "fail")
    inside(ATTEMPT).result.assert_outcomes(failed=1)


def test_an_address_that_is_blocked_is_refused_and_fails_nothing(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, sh, python):
            egress.block("*.ads.test")
            egress.block("203.0.113.0/24")
            assert sh("curl -sS https://x.ads.test/v1") == (
                "pytest-egress: GET https://x.ads.test/v1 is blocked by "
                'block("*.ads.test")  declared at test_shop.py:3\\n'
            )
            python('''
                import socket
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    sock = socket.socket(type=kind)
                    try:
                        sock.connect(("203.0.113.5", 7))
                        sock.send(b"x")
                        sock.recv(1)
                    except OSError: pass
            ''')
            outcomes = [e.outcome for e in egress.ledger if e.outcome != "recorded"]
            assert outcomes == ["blocked"] * 3
        """)
    run.result.assert_outcomes(passed=1)


# Whose traffic it is.


def test_a_shared_container_is_answered_by_the_routes_of_each_test(inside: Inside) -> None:
    run = inside("""
        import pytest
        @pytest.fixture(scope="module")
        def base(module_egress):
            return module_egress.intercept_https("api.shop.test", {"by": "module"})
        def test_a(egress, sh, base):
            mine = egress.intercept_https("api.shop.test", {"by": "a"})
            assert sh("curl -sS https://api.shop.test") == '{"by": "a"}'
            assert (mine.call_count, base.call_count) == (1, 0)
        def test_b(egress, sh, base):
            assert sh("curl -sS https://api.shop.test") == '{"by": "module"}'
            base.assert_called_once()
        def test_c(egress, sh, base):
            base.assert_not_called()
            assert egress.ledger == []
        """)
    run.result.assert_outcomes(passed=3)


def test_what_a_shared_container_sends_while_it_starts_belongs_to_no_test(inside: Inside) -> None:
    run = inside("""
        import pytest
        from pytest_egress import log_line
        SCRIPT = "curl -sS https://config.test/v1; echo; echo up; sleep 600"
        @pytest.fixture(scope="module")
        def config(module_egress):
            return module_egress.intercept_https("config.test", {"v": 1})
        @pytest.fixture(scope="module")
        def ready(module_egress, config, image):
            return module_egress.start(image, ["sh", "-c", SCRIPT], wait=log_line("^up$"))
        def test_a(egress, ready, config, module_egress):
            assert ready.logs() == '{"v": 1}\\nup\\n'
            assert egress.ledger == [] and config.call_count == 0
            assert len(module_egress.exchanges) == 1
            assert ready.exec("curl -sS https://config.test/v1").stdout == '{"v": 1}'
            assert config.call_count == 1 and len(egress.exchanges) == 1
        """)
    run.result.assert_outcomes(passed=1)


def test_what_is_unrouted_while_a_shared_container_starts_fails_its_fixture(
    inside: Inside,
) -> None:
    run = inside("""
        import pytest
        from pytest_egress import log_line
        SCRIPT = "curl -sS https://config.test/v1; echo; echo up; sleep 600"
        @pytest.fixture(scope="module")
        def ready(module_egress, image):
            return module_egress.start(image, ["sh", "-c", SCRIPT], wait=log_line("^up$"))
        def test_a(egress, ready): pass
        def test_b(egress): pass
        """)
    run.result.assert_outcomes(errors=1, passed=1)
    shown = scrubbed(run.report("test_a", "setup").longreprtext)
    assert (
        report_text("""
E       pytest_egress.errors.UnroutedError: 1 unrouted attempt of clients:latest; nothing got out:
E
E         GET https://config.test/v1
E             to answer it: egress.intercept_https("config.test", method="GET", path="/v1")
    """)
        in shown
    )
    assert " -> 502 Bad Gateway in T ms  UNROUTED" in run.sections("test_a", "setup")["egress"]


def test_what_a_shared_container_sends_between_tests_is_in_the_summary(inside: Inside) -> None:
    run = inside("""
        import pytest
        @pytest.fixture
        def after(shop):
            yield
            shop.exec(["sh", "-c", "for i in 1 2; do curl -sS https://late.test/x; done"])
        def test_a(after, egress): pass
        def test_b(egress): assert egress.ledger == []
        """)
    run.result.assert_outcomes(passed=2)
    run.result.stdout.fnmatch_lines_random(["*== egress: traffic outside of any test ==*"])
    line = next(line for line in run.output.splitlines() if "late.test" in line)
    assert re.sub(r"[\d.]+ ms", "T ms", line) == (
        "clients:latest: GET https://late.test/x -> 502 Bad Gateway in T ms  UNROUTED  (2 times)"
    )


def test_a_test_without_an_egress_fixture_is_never_judged(inside: Inside) -> None:
    run = inside("""
        kept = []
        def test_a(egress, shop):
            kept.append(shop)
        def test_b():
            kept[0].exec("curl -sS https://nobodys.test/")
        """)
    run.result.assert_outcomes(passed=2)
    assert "nobodys.test" in run.output


# Markers.


def test_markers_of_module_class_and_parameter_are_routes_of_their_scope(inside: Inside) -> None:
    run = inside("""
        import pytest
        pytestmark = [
            pytest.mark.intercept_https("a.test", {"by": "module"}),
            pytest.mark.intercept_https("b.test", {"by": "module"}),
            pytest.mark.intercept_https("c.test", {"by": "module"}),
        ]

        @pytest.mark.intercept_https("b.test", {"by": "class"})
        @pytest.mark.intercept_https("c.test", {"by": "class"})
        class TestIt:
            @pytest.mark.intercept_https("c.test", {"by": "topmost"})
            @pytest.mark.intercept_https("c.test", {"by": "lower"}, optional=True)
            def test_nearest(self, sh):
                names = "https://a.test https://b.test https://c.test"
                assert sh("curl -sS " + names) == (
                    '{"by": "module"}{"by": "class"}{"by": "topmost"}'
                )

            @pytest.mark.parametrize("host", [
                pytest.param("x.test", marks=pytest.mark.intercept_https("x.test", {"by": "x"})),
                pytest.param("y.test", marks=pytest.mark.egress_block("y.test")),
            ])
            def test_param(self, sh, host):
                assert ('{"by": "x"}' == sh("curl -sS https://" + host)) == (host == "x.test")

        @pytest.mark.intercept_https("never.test")
        def test_required(sh): pass
        """)
    run.result.assert_outcomes(passed=3, failed=1)
    assert run.verdict("test_required").startswith(
        'a route was never called:\n\n  intercept_https("never.test")\n\n'
    )


def test_the_marked_container_is_started_and_ready(inside: Inside, clients_image: str) -> None:
    run = inside(f"""
        import pytest
        from pytest_egress import log_line
        IMAGE = {clients_image!r}
        @pytest.mark.egress_container(
            IMAGE, ["sh", "-c", "echo up; sleep 600"], wait=log_line("up"), env={{"A": "b"}}
        )
        @pytest.mark.intercept_https("api.shop.test", {{"id": 1}})
        def test_a(egress_container, egress):
            assert egress_container.logs() == "up\\n"
            assert egress_container.exec(["sh", "-c", "echo $A"]).stdout == "b\\n"
            assert egress_container.exec("curl -sS https://api.shop.test").stdout == '{{"id": 1}}'

        @pytest.mark.egress_container(IMAGE, ["sleep", "600"])
        def test_alone(egress):
            assert len(egress.containers) == 1

        @pytest.mark.egress_container(IMAGE, ["sh", "-c", "exit 3"], wait=log_line("up"))
        def test_not_ready(egress_container): pass
        """)
    run.result.assert_outcomes(passed=2, errors=1)
    assert "clients:latest exited with code 3 before it was ready: " in run.output


# pytest-xdist.


@pytest.mark.plugins("xdist")
def test_workers_have_containers_of_their_own(inside: Inside, pytester: pytest.Pytester) -> None:
    inside(
        """
        import pytest
        @pytest.mark.parametrize("number", range(4))
        def test_a(egress, sh, number):
            route = egress.intercept_https("api.shop.test", {"number": number})
            assert sh("curl -sS https://api.shop.test/") == '{"number": %d}' % number
            route.assert_called_once()
        def test_unrouted(egress, sh):
            sh("curl -sS https://unrouted.test/")
        """,
        "--collect-only",
    )
    result = pytester.runpytest_subprocess("-n2", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        [
            "1 unrouted attempt of clients:latest; nothing got out:",
            "  GET https://unrouted.test/",
            "test_shop.py:*: UnroutedError",
            "FAILED *::test_unrouted - GET https://unrouted.test/: *",
        ]
    )
