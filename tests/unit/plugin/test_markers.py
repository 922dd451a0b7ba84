"""Markers declare routes and containers."""

from __future__ import annotations

import inspect
from typing import Final

import pytest

from pytest_egress import Egress
from pytest_egress.plugin.markers import MARKERS
from pytest_egress.plugin.usage import EGRESS_FIXTURES
from pytest_egress.targets.options import START_OPTIONS
from tests.support.stand_in import HEAD, RunPytest, lines_of


def test_a_marker_is_enough_and_stays_with_its_parameter(run: RunPytest) -> None:
    result = run("""
@pytest.mark.intercept_https("a.test")
def test_a(): pass
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.intercept_https("a.test")), 2])
def test_p(n, request): assert ("egress" in request.fixturenames) == (n == 1)
def test_none(request): assert not [name for name in request.fixturenames if "egress" in name]
""")
    result.assert_outcomes(failed=2, passed=2)
    lines_of(result, "FAILED *test_a - *: never called*", "FAILED *test_p[[]1] - *: never called*")


@pytest.mark.parametrize(
    ("marker", "url", "answer"),
    [
        ("intercept_https('a.test', {'id': 1})", "https://a.test/", '{"id": 1}'),
        ("intercept_http('a.test', b'plain', path='/p')", "http://a.test/p", "plain"),
        ("egress_block('a.test')", "https://a.test/", 502),
        ("egress(unrouted='block')", "https://a.test/", 502),
    ],
)
def test_each_marker_does_as_it_says(run: RunPytest, marker: str, url: str, answer: object) -> None:
    result = run(
        f"""
@pytest.mark.{marker}
def test_a(request):
    egress = request.getfixturevalue("egress")
    assert "egress" in request.fixturenames
    assert attempt(egress, {url!r}) == {answer!r}
""",
        "--strict-markers",
    )
    result.assert_outcomes(passed=1)


def test_the_topmost_of_stacked_decorators_wins(run: RunPytest) -> None:
    result = run("""
@pytest.mark.intercept_https("a.test", b"top", optional=True)
@pytest.mark.intercept_https("a.test", b"bottom", optional=True)
def test_a(egress): assert attempt(egress, "https://a.test/") == "top"
@pytest.mark.egress(unrouted="block", timeout=1)
@pytest.mark.egress(unrouted="fail", assert_all_called=False)
def test_b(egress):
    egress.intercept_https("never.test")
    attempt(egress, "https://x.test/")
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.intercept_https("a.test", b"param"))])
@pytest.mark.intercept_https("a.test", b"decorator", optional=True)
def test_c(n, egress): assert attempt(egress, "https://a.test/") == "param"
""")
    result.assert_outcomes(passed=3)


def test_markers_of_classes_and_modules_are_routes_of_that_scope_and_never_required(
    run: RunPytest,
) -> None:
    result = run("""
pytestmark = [
    pytest.mark.intercept_https("a.test", b"module"),
    pytest.mark.intercept_https("m.test", b"module"),
]
def hosts(egress): return [route.address for route in egress.routes]
@pytest.mark.intercept_https("a.test", b"class")
class TestC:
    @pytest.mark.intercept_https("a.test", b"test")
    def test_own(self, egress): assert attempt(egress, "https://a.test/") == "test"
    def test_class(self, egress, class_egress, module_egress):
        assert attempt(egress, "https://a.test/") == "class"
        assert (hosts(egress), hosts(class_egress), hosts(module_egress)) == (
            [], ["a.test"], ["a.test", "m.test"])
    class TestInner:
        @pytest.mark.usefixtures("egress")
        def test_inner(self, egress): assert attempt(egress, "https://a.test/") == "class"
@pytest.mark.intercept_https("f.test", optional=True)
def test_module(egress, class_egress, module_egress):
    assert attempt(egress, "https://a.test/") == "module"
    assert (hosts(egress), hosts(class_egress)) == (["f.test"], [])
def test_unused(): pass
""")
    result.assert_outcomes(passed=5)


def test_a_packages_marker_is_a_route_of_its_modules(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
import pytest
def pytest_collection_modifyitems(items):
    package = next(node for node in items[0].listchain() if node.name == "pack")
    package.add_marker(pytest.mark.intercept_https("a.test", b"package"))
""")
    source = """
def test_a(request):
    egress = request.getfixturevalue("egress")
    assert "egress" in request.fixturenames
    assert attempt(egress, "https://a.test/") == "package"
"""
    (pytester.mkpydir("pack") / "test_y.py").write_text(HEAD + source)
    run("").assert_outcomes(passed=1)


def test_a_marker_that_is_added_while_collecting_is_enough(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("""
import pytest
def pytest_collection_modifyitems(items):
    items[0].add_marker(pytest.mark.intercept_https("never.test"))
""")
    result = run("def test_a(): pass\ndef test_b(): pass")
    lines_of(result, "FAILED *test_a - *: never called*")
    result.assert_outcomes(failed=1, passed=1)


def test_the_markers_routes_answer_what_other_fixtures_set_off(run: RunPytest) -> None:
    result = run("""
@pytest.fixture
def client(module_egress): traffic(module_egress, "https://a.test/")
@pytest.mark.intercept_https("a.test")
def test_a(client, egress): egress["a.test"].assert_called_once()
""")
    result.assert_outcomes(passed=1)


CONTAINERS: Final = """
import pytest
@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    from pytest_egress.egress import Egress
    def start(self, image, command=None, **options):
        print("started", image, command, options, [route.address for route in self.routes])
        return image
    monkeypatch.setattr(Egress, "start", start)
"""


def test_the_container_marker_alone_starts_the_container(
    run: RunPytest, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(CONTAINERS)
    result = run(
        """
@pytest.fixture
def routes(egress): egress.intercept_https("a.test", optional=True)
@pytest.mark.egress_container("shop:latest", ["serve"], env={"A": "1"})
def test_a(routes): pass
@pytest.mark.egress_container("base:latest")
class TestC:
    @pytest.mark.egress_container("top:latest")
    @pytest.mark.egress_container("bottom:latest")
    def test_own(self, egress_container): assert egress_container == "top:latest"
    def test_class(self, egress_container): assert egress_container == "base:latest"
def test_without(egress_container): pass
""",
        "-rP",
    )
    result.assert_outcomes(passed=3, errors=1)
    lines_of(result, "started shop:latest [[]'serve'] {'env': {'A': '1'}} [[]'a.test']")
    lines_of(
        result, "E *UsageError: *@pytest.mark.egress_container(image, command=None, ?*options)*"
    )


@pytest.mark.plugins("xdist")
@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [[], ["--continue-on-collection-errors"], ["--collect-only"], ["-n2"]],
    ids=str,
)
def test_a_malformed_marker_is_an_error_of_that_tests_collection(
    run: RunPytest, args: list[str]
) -> None:
    result = run(
        """
@pytest.mark.intercept_https("http://x.test")
def test_bad(): pass
def test_good(): pass
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.intercept_https("")), 2])
def test_p(n): pass
""",
        *args,
        subprocess="-n2" in args,
    )
    lines_of(result, "test_x.py:*: test_bad: @pytest.mark.intercept_https: *'http://x.test'*")
    lines_of(result, "ERROR test_x.py::test_bad*", "ERROR test_x.py::test_p[[]1]*")
    outcomes = result.parseoutcomes()
    assert outcomes["errors"] == 2
    goes_on = args in (["-n2"], ["--continue-on-collection-errors"])
    assert outcomes.get("passed", 0) == (2 if goes_on else 0)


def test_beside_a_malformed_marker_a_named_test_runs(run: RunPytest) -> None:
    source = "@pytest.mark.egress_block('')\ndef test_bad(): pass\ndef test_good(): pass\n"
    run(source, "test_x.py::test_good").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        ("intercept_https", "*"),
        ("intercept_https()", "*address*"),
        ("intercept_https('a.test', 'text')", "*'text'*Response(text='text')*"),
        ("intercept_https('a.test', colour=1)", "*colour=*it takes method, path,*"),
        ("intercept_http('a.test', path='x')", "*path='x'*"),
        ("egress_block('host:99999')", "*99999*"),
        (
            "intercept_tcp('db.test', 503)",
            "*503 is no answer of a raw route: it takes a function of *",
        ),
        ("intercept_tcp('db.test', b'', path='/')", "*path=; it takes times, optional, name"),
        ("intercept_tls('db.test', lambda: 1)", "*with one argument, a connected socket; *"),
        ("intercept_tls('db.test', alpn='imap')", "*alpn='imap': it takes names of protocols, *"),
        ("intercept_https('a.test', certificate='expird')", "*; did you mean 'expired'?"),
        ("intercept_http('a.test', certificate='expired')", "*does not take certificate=; *"),
        ("intercept_tls('a.test', tls_version='1.1')", "*tls_version='1.1': it takes 'TLSv1', *"),
        ("intercept_tcp('db.test', alpn=())", "*alpn=; it takes times, optional, name"),
        (
            "egress_passthrough()",
            "*passthrough() missing 1 required positional argument: 'address'",
        ),
        ("egress_passthrough('a.test/x')", "*'a.test/x' is no address: it has a path*"),
        ("egress_dns('a.test')", "*dns('a.test') has no answer: it takes an IP address, *"),
        ("egress_dns('a.test:53', '192.0.2.7')", "*'a.test:53': names have no port in DNS*"),
        ("egress_dns('192.0.2.7', '192.0.2.7')", "*'192.0.2.7': DNS is asked for names*"),
        ("egress_dns('a.test', 'nxdomain')", "*'nxdomain' is no answer of DNS: it takes an IP *"),
        ("egress_dns('a.test', 1)", "*1 is no answer of DNS: it takes an IP address, a list *"),
        ("egress_container()", "*image*"),
        ("egress_engine('shop')", "it takes no arguments"),
        ("egress_compose('nowhere.yaml')", "there is no '*/nowhere.yaml': a path is relative *"),
        (
            "egress_compose('test_x.py', wait=8080)",
            "*wait= takes a dict of services and *, not 8080",
        ),
        ("egress_compose('test_x.py', service='web')", "*unexpected keyword argument 'service'*"),
        ("egress_container('shop', network='host')", "*network='host' is refused*"),
        ("egress_container('shop', wait=8080)", "*wait= takes port_open(port), *, not 8080"),
        ("egress_container('shop', timeout=None)", "*timeout=None: it takes a number of seconds"),
        (
            "egress_container('shop', files={'/a': 1})",
            "*files=*'/a': ...* takes str, bytes or a Path*",
        ),
        ("egress_container('shop', enviroment={})", "*there is no option enviroment=; *"),
        ("egress_container('shop', env={'A': None})", "*env?'A'? is None: leave it out, *"),
        ("egress('block')", "*'block' needs a name; it takes the keywords unrouted, *"),
        (
            "egress(unrouted='ignore')",
            "*unrouted='ignore': it takes 'fail', 'block' or 'passthrough'",
        ),
        ("egress(dns='none')", "*dns='none': it takes 'synthetic' or 'strict'"),
        ("egress(assert_all_called=1)", "*assert_all_called=1: it takes True or False"),
        ("egress(timeout='5')", "*timeout='5': it takes a number of seconds"),
        ("egress(timeout=float('nan'))", "*timeout=nan: it takes a number of seconds"),
        ("egress(timeout=-1)", "*timeout=-1: it takes a number of seconds"),
        ("egress(colour=1)", "*does not take colour=; it takes the keywords unrouted, *"),
    ],
)
def test_a_malformed_marker_is_refused_with_its_value_and_the_accepted_forms(
    run: RunPytest, marker: str, text: str
) -> None:
    result = run(f"@pytest.mark.{marker}\ndef test_a(): pass\n")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    name = marker.partition("(")[0]
    lines_of(result, f"test_x.py:3: test_a: @pytest.mark.{name}: {text}")


def test_the_markers_options_of_a_container_are_those_of_start() -> None:
    named = [
        parameter.name
        for parameter in inspect.signature(Egress.start).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    assert named == list(START_OPTIONS)


def test_a_malformed_marker_of_a_module_names_every_test(run: RunPytest) -> None:
    result = run(
        "pytestmark = pytest.mark.egress(colour=1)\ndef test_a(): pass\ndef test_b(): pass\n"
    )
    lines_of(result, "test_x.py:4: test_a: *colour*", "test_x.py:5: test_b: *colour*")


def test_an_engine_comes_after_shared_fixtures_and_before_the_tests_own(run: RunPytest) -> None:
    result = run(
        """
        @pytest.fixture(scope="session")
        def client_of_all(): pass
        @pytest.fixture
        def shop(): pass
        @pytest.mark.egress_engine
        def test_a(shop, client_of_all): pass
        """,
        "--setup-plan",
    )
    text = result.stdout.str()
    order = [
        text.index(f"SETUP    {name}") for name in ("S client_of_all", "F egress_engine", "F shop")
    ]
    assert order == sorted(order)


def test_markers_and_fixtures_are_listed(run: RunPytest) -> None:
    listed = run("", "--markers")
    for name in MARKERS:
        lines_of(listed, f"@pytest.mark.{name}(*): ?*")
    fixtures = run("", "--fixtures", "-p", "no:cacheprovider")
    for name in (
        *EGRESS_FIXTURES,
        "egress_ca",
        "egress_docker_client",
        "egress_engine",
        "egress_redaction",
        "egress_stack",
    ):
        lines_of(fixtures, f"{name}*-- *fixtures.py:*", "    ?*")
    lines_of(fixtures, "    Routes, containers, ledger and assertions of this test.")


# What comes late, and what cannot be changed.


@pytest.mark.parametrize(
    ("marker", "error"),
    [
        ("unrouted='blok'", "unrouted='blok': it takes 'fail', 'block' or 'passthrough'"),
        ("'block'", "'block' needs a name; it takes the keywords *"),
        ("timout=3", "it does not take timout=; it takes the keywords *"),
    ],
)
def test_a_malformed_marker_that_a_plugin_adds_fails_its_test_alone(
    pytester: pytest.Pytester, run: RunPytest, marker: str, error: str
) -> None:
    pytester.makeconftest(f"""
        import pytest
        def pytest_collection_modifyitems(items):
            items[0].add_marker(pytest.mark.egress({marker}))
    """)
    result = run("""
def test_a(egress): pass
def test_b(egress): pass
""")
    result.assert_outcomes(errors=1, passed=1)
    lines_of(result, f"*@pytest.mark.egress: {error}")
