"""Verdicts on what real containers did: the whole text that a failing test shows, and when it does not fail."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent

import pytest

from tests.support.inner_runs import Inside, report_text

# Unrouted.


def test_requests_are_listed_with_their_near_misses_field_by_field(inside: Inside) -> None:
    run = inside('''
        def test_a(egress, sh):
            egress.intercept_https(
                "api.shop.test", path="/charges", method="POST", json={"sum": 5, "rows": [1, 2]},
                headers={"x-shop": "k"}, query={"v": "2"}, optional=True,
            )
            sh("""
            curl -sS https://api.shop.test/refunds
            curl -sS https://api.shop.tets/charges
            curl -sS -H 'X-Shop: x' -d '{"sum": 4, "rows": [1, 3]}' https://api.shop.test/charges?v=1
            curl -sS https://api.shop.test:8443/charges
            curl -sS http://api.shop.test/charges
            curl -sS -H 'Host: other.test' https://api.shop.test/charges
            curl -sS https://unlike.example/
            """)
        ''')
    route = (
        "nearest route: intercept_https(\"api.shop.test\", method='POST', path='/charges', "
        "query={'v': '2'}, headers={'x-shop': 'k'}, json={'sum': 5, 'rows': [1, 2]})\n"
        "          declared at test_shop.py:3"
    )
    assert run.verdict() == report_text(f"""
7 unrouted attempts of clients:latest; nothing got out:

  GET https://api.shop.test/refunds
      {route}
          method: GET is not POST
          path: '/refunds' is not '/charges'
          query['v']: absent, expected '2'
          headers['x-shop']: absent, expected 'k'
          json: the request has no body. json= is a condition; the answer is the second argument
      to answer it: egress.intercept_https("api.shop.test", method="GET", path="/refunds")

  GET https://api.shop.tets/charges
      {route}
          host: 'api.shop.tets' is not 'api.shop.test'
      to answer it: egress.intercept_https("api.shop.tets", method="GET", path="/charges")

  POST https://api.shop.test/charges?v=1
      {route}
          query['v']: '1' is not '2'
          headers['x-shop']: 'x' is not 'k'
          json.sum: 4 is not 5
          json.rows[1]: 3 is not 2
      to answer it: egress.intercept_https("api.shop.test", method="POST", path="/charges")

  GET https://api.shop.test:8443/charges
      {route}
          port: 8443 is not 443
      to answer it: egress.intercept_https("api.shop.test:8443", method="GET", path="/charges")

  GET http://api.shop.test/charges
      {route}
          scheme: http is not https
          port: 80 is not 443
      to answer it: egress.intercept_http("api.shop.test", method="GET", path="/charges")

  GET https://api.shop.test/charges
      its :authority is 'other.test', which is not 'api.shop.test'

  GET https://unlike.example/
      to answer it: egress.intercept_https("unlike.example", method="GET", path="/")
    """)
    assert "test_shop.py:2: UnroutedError" in run.output
    run.result.assert_outcomes(failed=1)


@pytest.mark.docker  # Podman gives no right to ping
def test_what_is_no_http_is_listed_and_what_repeats_is_folded(inside: Inside) -> None:
    run = inside('''
        def test_a(egress, sh, python):
            python("""
                import socket
                def attempt(action):
                    try: action()
                    except OSError as error: print(error)
                def send(host, port):
                    socket.socket(type=socket.SOCK_DGRAM).sendto(b"hello", (host, port))
                def talk(host, port, data):
                    sock = socket.create_connection((host, port))
                    if data: sock.sendall(data)
                    sock.recv(9)
                attempt(lambda: send("203.0.113.9", 443))
                attempt(lambda: send("statsd.test", 8125))
                attempt(lambda: talk("db.test", 5432, bytes([0, 0, 0, 8, 4, 210, 22, 47])))
                attempt(lambda: talk("smtp.test", 25, b""))
                socket.create_connection(("probe.test", 99)).close()
            """)
            sh("ping -c1 -W2 -4 192.0.2.1")
            sh("for i in 1 2 3; do curl -sS http://metrics.test/push; done")
            sh("curl -sS --http2-prior-knowledge http://192.0.2.9/")
        ''')
    assert run.verdict() == report_text(r"""
10 unrouted attempts of clients:latest; nothing got out:

  UDP 203.0.113.9:443, 5 bytes, first b'hello'
      to answer it: egress.intercept_udp("203.0.113.9:443")

  UDP statsd.test:8125 (ADDRESS), 5 bytes, first b'hello'
      to answer it: egress.intercept_udp("statsd.test:8125")

  TCP db.test:5432 (ADDRESS), first bytes b'\x00\x00\x00\x08\x04\xd2\x16/'
      to answer it: egress.intercept_tcp("db.test:5432")

  TCP smtp.test:25 (ADDRESS)
      connected and sent nothing within 1 s
      to answer it: egress.intercept_tcp("smtp.test:25", smtp())

  TCP probe.test:99 (ADDRESS)
      connected and closed without sending a byte
      to answer it: egress.intercept_tcp("probe.test:99")

  ICMP 192.0.2.1, 64 bytes
      to expect it: egress.block("192.0.2.1")

  GET http://metrics.test/push  (3 times)
      to answer it: egress.intercept_http("metrics.test", method="GET", path="/push")

  GET http://192.0.2.9/
      to answer it: egress.intercept_http("192.0.2.9", method="GET", path="/")
    """)


def test_the_line_that_is_shown_routes_the_attempt(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, sh, python):
            egress.intercept_https("api.shop.test:8443", method="GET", path="/charges")
            egress.block("statsd.test:8125")
            sh("curl -sS https://api.shop.test:8443/charges")
            python('''
                import socket
                try: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("statsd.test", 8125))
                except OSError: pass
            ''')
            outcomes = [entry.outcome for entry in egress.ledger if entry.outcome != "recorded"]
            assert outcomes == ["routed", "blocked"]
        """)
    run.result.assert_outcomes(passed=1)


def test_the_nearest_raw_route_is_named(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, python):
            egress.intercept_tcp("db.shop.test:5432", optional=True)
            python('''
                import socket
                for address in (("db.shop.test", 5433), ("db.shops.test", 5432)):
                    sock = socket.create_connection(address)
                    sock.sendall(b"hello ;")
                    try: sock.recv(1)
                    except OSError: pass
            ''')
        """)
    assert run.verdict() == report_text(r"""
2 unrouted attempts of clients:latest; nothing got out:

  TCP db.shop.test:5433 (ADDRESS), first bytes b'hello ;'
      nearest route: intercept_tcp("db.shop.test:5432")
          declared at test_shop.py:3
          port: 5433 is not 5432
      to answer it: egress.intercept_tcp("db.shop.test:5433")

  TCP db.shops.test:5432 (ADDRESS), first bytes b'hello ;'
      nearest route: intercept_tcp("db.shop.test:5432")
          declared at test_shop.py:3
          host: 'db.shops.test' is not 'db.shop.test'
      to answer it: egress.intercept_tcp("db.shops.test:5432")
    """)


def test_a_raw_handler_that_raises_fails_the_test_with_its_own_traceback(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, python):
            @egress.intercept_tcp("db.shop.test:5432")
            def database(sock):
                assert sock.recv(100) == b"hello"
            python('''
                import socket
                sock = socket.create_connection(("db.shop.test", 5432))
                sock.sendall(b"goodbye")
                try: sock.recv(1)
                except OSError: pass
            ''')
        """)
    verdict = run.verdict()
    assert re.search(r"^>  +assert sock.recv\(100\) == b\"hello\"$", verdict, re.MULTILINE)
    assert re.search(r"^E  +AssertionError: assert b'goodbye' == b'hello'$", verdict, re.MULTILINE)
    assert verdict.endswith(
        'the handler of intercept_tcp("db.shop.test:5432")  declared at test_shop.py:3 raised '
        "AssertionError\n"
        "  for TCP db.shop.test:5432 (ADDRESS) of clients:latest"
    )


def test_a_raw_handler_sees_the_end_of_its_test_and_one_that_does_not_is_reported(
    inside: Inside,
) -> None:
    run = inside("""
        import threading, pytest
        begun, never = threading.Event(), threading.Event()
        CONNECT = "import socket; s = socket.create_connection(('db.shop.test', 5432)); s.recv(1); s.recv(1)"
        @pytest.mark.egress(timeout=0.2)
        @pytest.mark.parametrize("ends", [True, False])
        def test_a(egress, image, ends):
            begun.clear()
            @egress.intercept_tcp("db.shop.test:5432")
            def database(sock):
                sock.sendall(b"x")
                begun.set()
                sock.recv(1) if ends else never.wait()
            egress.start(image, ["python3", "-c", CONNECT])
            assert begun.wait(30)
        """)
    assert run.report("test_a[True]").passed, run.output
    verdict = re.sub(r"at \S+/test_shop", "at /.../test_shop", run.verdict("test_a[False]"))
    assert verdict == report_text("""
the handler of intercept_tcp("db.shop.test:5432")  declared at test_shop.py:9 still ran 0.2 s after the test
  for TCP db.shop.test:5432 (ADDRESS)
  at /.../test_shop.py:13 in database: sock.recv(1) if ends else never.wait()
    """)


def test_calls_in_another_order_than_expected_are_shown_in_both(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, sh):
            token = egress.intercept_https("auth.shop.test", {"token": 1})
            charge = egress.intercept_https("api.shop.test", {"id": 1})
            sh("curl -sS https://auth.shop.test/ https://api.shop.test/1 https://api.shop.test/2")
            egress.assert_order(token, charge, charge)
            egress.assert_order(charge, token)
        """)
    told = [
        line.removeprefix("E").strip() for line in run.verdict().splitlines() if line[0:1] == "E"
    ]
    assert told == [
        "pytest_egress.errors.CallError: expected these calls in order:",
        '> intercept_https("api.shop.test")',
        'intercept_https("auth.shop.test")',
        "there were:",
        "> GET https://auth.shop.test/",
        "GET https://api.shop.test/1",
        "GET https://api.shop.test/2",
    ]


def test_attempts_of_several_containers_say_whose_they_are(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, sh, image):
            sh("curl -sS https://api.shop.test/v1")
            egress.run(image, "curl -sS https://api.shop.test/v1")
        """)
    assert run.verdict() == report_text("""
2 unrouted attempts of clients:latest and clients:latest#2; nothing got out:

  GET https://api.shop.test/v1  of clients:latest
      to answer it: egress.intercept_https("api.shop.test", method="GET", path="/v1")

  GET https://api.shop.test/v1  of clients:latest#2
      to answer it: egress.intercept_https("api.shop.test", method="GET", path="/v1")
    """)


# A client that does not trust us.

ADVICE = (
    "The CA is in the image's bundle, in the roots of known SDKs, and where SSL_CERT_FILE and its like lead;\n"
    'a client with other roots ignores it: name their file, trust=["/path/of/cacert.pem"], '
    "or give it /etc/pytest-egress/bundle.pem\n"
)
DISTRUST = (
    "the target (OpenSSL, by its ClientHello) does not trust the CA of this run for 'api.shop.test' "
    f"(alert: unknown CA).\n{ADVICE}"
)
OWN_ROOTS = (
    "import ssl, urllib.request as u; u.urlopen('https://api.shop.test/', "
    "context=ssl.create_default_context(cafile='/etc/ssl/certs/ISRG_Root_X1.pem'))"
)


def test_a_client_with_its_own_roots_is_named_with_its_alert(inside: Inside) -> None:
    run = inside(f"""
        ROOTS = {OWN_ROOTS!r}
        def test_a(egress, python):
            egress.intercept_https("api.shop.test")
            python(ROOTS)
        def test_b(egress, python):
            python(ROOTS)
        """)
    assert run.verdict("test_a") == (
        "a route was never called:\n\n"
        '  intercept_https("api.shop.test")  declared at test_shop.py:4\n'
        f"      TLS api.shop.test:443 (ADDRESS)\n{indent(DISTRUST, ' ' * 10)}\n"
        "Mend what is said there, or declare it with optional=True: without a route that is unrouted."
    )
    run.result.stdout.fnmatch_lines(
        [
            "FAILED *test_a - api.shop.test: its client does not trust the CA*",
            "FAILED *test_b - TLS api.shop.test:443*",
        ]
    )
    assert run.verdict("test_b").partition("\n\nclients:latest is shared")[0] == (
        "1 unrouted attempt of clients:latest; nothing got out:\n\n"
        f"  TLS api.shop.test:443 (ADDRESS)\n{indent(DISTRUST, ' ' * 6)}"
        '      to answer it: egress.intercept_https("api.shop.test")'
    )
    timeline = run.sections("test_b")["egress"].splitlines()
    assert timeline[-1] == (
        "T s  TLS api.shop.test:443 (ADDRESS)  UNROUTED  [see above]  (looked up T ms before)"
    )


def test_a_client_that_sends_no_alert_is_called_likely(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, shop):
            egress.intercept_https("api.shop.test")
            code = 'require("https").get("https://api.shop.test/", {ca: []}).on("error", () => 0)'
            shop.exec(["node", "-e", code], env={"NODE_EXTRA_CA_CERTS": ""}, check=False)
        """)
    broke_off = (
        "the target (OpenSSL, by its ClientHello) broke off within the handshake, with no alert: "
        f"likely it does not trust the CA of this run for 'api.shop.test'.\n{ADVICE}"
    )
    assert run.verdict() == (
        "a route was never called:\n\n"
        '  intercept_https("api.shop.test")  declared at test_shop.py:3\n'
        f"      TLS api.shop.test:443 (ADDRESS)\n{indent(broke_off, ' ' * 10)}\n"
        "Mend what is said there, or declare it with optional=True: without a route that is unrouted."
    )


# Never called.


def test_routes_that_are_never_called_fail_with_what_to_do(inside: Inside) -> None:
    run = inside("""
        def test_none_ran(egress):
            egress.intercept_https("api.shop.test")
            egress.intercept_http("x.shop.test", name="x")
        def test_silent(egress, shop):
            egress.intercept_https("api.shop.test")
        def test_too_seldom(egress, sh):
            egress.intercept_https("api.shop.test", times=2)
            egress.intercept_https("x.shop.test")
            sh("curl -sS https://api.shop.test")
        def test_not_required(egress, shop):
            egress.intercept_https("api.shop.test", optional=True)
            egress.intercept_https("b.shop.test").assert_not_called()
            egress.intercept_https("c.shop.test").remove()
            egress.block("d.shop.test")
        """)
    assert run.verdict("test_none_ran") == report_text("""
2 routes were never called:

  intercept_https("api.shop.test")  declared at test_shop.py:3

  intercept_http("x.shop.test", name='x')  declared at test_shop.py:4

No container ran in this test. egress answers what containers send: start one with
egress.run(image, command) or egress.start(image).
What the test process itself sends is not intercepted.
    """)
    assert run.verdict("test_silent") == report_text("""
a route was never called:

  intercept_https("api.shop.test")  declared at test_shop.py:6

No container sent anything in this test.
clients:latest still runs, and may call later: wait_for_call() waits for that.
Remove it, or declare it with optional=True.
    """)
    assert run.verdict("test_too_seldom") == report_text("""
2 routes were called less often than declared:

  intercept_https("api.shop.test", times=2)  declared at test_shop.py:8
      called 1 of 2 times

  intercept_https("x.shop.test")  declared at test_shop.py:9
      called 0 of 1 time

clients:latest still runs, and may call later: wait_for_call(times) waits for that.
Remove them, or declare them with optional=True.
    """)
    run.result.assert_outcomes(failed=3, passed=1)


def test_a_request_beyond_times_is_unrouted_and_says_why(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, sh):
            egress.intercept_https("api.shop.test", times=1)
            sh("curl -sS https://api.shop.test https://api.shop.test")
        """)
    assert run.verdict() == report_text("""
1 unrouted attempt of clients:latest; nothing got out:

  GET https://api.shop.test/
      nearest route: intercept_https("api.shop.test", times=1)
          declared at test_shop.py:3
          times: it has answered 1 of 1
      to answer it: egress.intercept_https("api.shop.test", method="GET", path="/")
    """)


# Handlers.


def test_a_handlers_failure_is_shown_with_its_own_traceback(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, sh):
            @egress.intercept_https("api.shop.test")
            def charges(request):
                amount = request.form["amount"]
                assert amount == "2", "expected two"
            answer = sh("curl -sS -d amount=1 https://api.shop.test/v1")
            assert answer == (
                'pytest-egress: the handler of intercept_https("api.shop.test")  declared at '
                "test_shop.py:3 raised AssertionError: expected two\\n"
                "  for POST https://api.shop.test/v1 of clients:latest\\n"
                "The test fails with its traceback.\\n"
            )
        """)
    assert run.verdict() == report_text("""
request = <Request POST https://api.shop.test/v1>

    @egress.intercept_https("api.shop.test")
    def charges(request):
        amount = request.form["amount"]
>       assert amount == "2", "expected two"
E       AssertionError: expected two
E       assert '1' == '2'
E
E         - 2
E         + 1

test_shop.py:6: AssertionError

It failed the test:
the handler of intercept_https("api.shop.test")  declared at test_shop.py:3 raised AssertionError
  for POST https://api.shop.test/v1 of clients:latest
    """)


def test_the_tests_own_failure_stays_with_the_handlers_as_its_cause(inside: Inside) -> None:
    run = inside("""
        def test_a(egress, sh):
            @egress.intercept_https("api.shop.test")
            def charges(request):
                raise ValueError("out of charges")
            sh("curl -sS https://api.shop.test/ https://unrouted.test/")
            assert 1 == 2
        """)
    shown = run.verdict()
    assert re.sub(r"(?m)^(egress|sh) = .*\n", "", shown) == report_text("""
request = <Request GET https://api.shop.test/>

    @egress.intercept_https("api.shop.test")
    def charges(request):
>       raise ValueError("out of charges")
E       ValueError: out of charges

test_shop.py:5: ValueError

The above exception was the direct cause of the following exception:


    def test_a(egress, sh):
        @egress.intercept_https("api.shop.test")
        def charges(request):
            raise ValueError("out of charges")
        sh("curl -sS https://api.shop.test/ https://unrouted.test/")
>       assert 1 == 2
E       assert 1 == 2
    """)


def test_a_handler_that_runs_on_fails_the_test_with_the_line_where_it_stands(
    inside: Inside,
) -> None:
    run = inside("""
        import threading, pytest
        gate, entered = threading.Event(), threading.Event()

        @pytest.mark.egress(timeout=0.2)
        def test_a(egress, sh):
            @egress.intercept_https("api.shop.test")
            def slow(request):
                entered.set()
                gate.wait(30)
            sh("curl -sS https://api.shop.test/v1 >/dev/null 2>&1 & echo $! >/tmp/curl")
            assert entered.wait(30)
            sh("kill -9 $(cat /tmp/curl)")

        def test_b():
            gate.set()
        """)
    assert re.sub(r"at /\S+/test_shop", "at /.../test_shop", run.verdict()) == report_text("""
the handler of intercept_https("api.shop.test")  declared at test_shop.py:7 still ran 0.2 s after the test
  for GET https://api.shop.test/v1
  at /.../test_shop.py:10 in slow: gate.wait(30)
    """)
    run.result.assert_outcomes(failed=1, passed=1)


def test_what_a_container_breaks_off_and_no_route_would_have_answered_fails_the_test(
    inside: Inside,
) -> None:
    run = inside("""
        import pytest, threading
        BREAK_OFF = '''
        import socket
        sock = socket.create_connection(("api.shop.test", 80))
        head = "POST {} HTTP/1.1", "Host: api.shop.test", "Content-Length: 9", "", "half"
        sock.sendall((chr(13) + chr(10)).join(head).encode())
        '''
        @pytest.mark.parametrize("path", ["/declared", "/undeclared"])
        def test_a(egress, python, path):
            egress.intercept_http("api.shop.test", path="/declared", optional=True)
            python(BREAK_OFF.format(path))
        @pytest.mark.egress(timeout=0.2)
        def test_b(egress, image):
            asked = threading.Event()
            def hangs(request): asked.set(); threading.Event().wait()
            egress.intercept_http("api.shop.test", match=hangs, optional=True)
            egress.start(image, ["curl", "http://api.shop.test/"])
            assert asked.wait(30)
        """)
    assert run.report("test_a[/declared]").passed, run.output
    verdict = run.verdict("test_a[/undeclared]")
    assert "POST http://api.shop.test/undeclared" in verdict
    assert "path: '/undeclared' is not '/declared'" in verdict
    assert "the match= predicate of " in (verdict := run.verdict("test_b"))
    assert "still ran 0.2 s after the test\n  for GET http://api.shop.test/" in verdict


# What a container writes and sends.


def test_nothing_that_a_container_says_reaches_the_terminal_as_it_came(inside: Inside) -> None:
    run = inside(
        r'''
        import pytest

        SAYS = r"printf '\033[2J\033[H== 1 passed ==\033]0;title\a\233\rover'"

        @pytest.mark.parametrize("ends", ["exits", "fails", "is late", "is not ready"])
        def test_a(egress, image, ends):
            if ends == "exits":
                result = egress.run(image, ["sh", "-c", SAYS])
                assert not result.stdout, result.stdout
            elif ends == "fails":
                egress.run(image, ["sh", "-c", f"{SAYS}; exit 3"])
            elif ends == "is late":
                egress.run(image, ["sh", "-c", f"{SAYS}; sleep 60"], timeout=1)
            else:
                egress.start(image, ["sh", "-c", f"{SAYS}; exit 3"], wait=lambda container: False)

        def test_b(egress, image):
            script = r"""
            import socket
            names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            query = bytes.fromhex("000101000001000000000000") + b"\x05\x1b[2Jx\x04test\0\0\1\0\1"
            names.sendto(query, ("127.0.0.11" if False else open("/etc/resolv.conf").read().split()[1], 53))
            for data in (b"\x1b[2J\r\n", b"GET /\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n",
                         b"GET / HTTP/1.1\r\nHost: x\x9b2J\r\n\r\n", b"\x1b]0;t\x07 / HTTP/1.1\r\n\r\n"):
                sock = socket.create_connection(("203.0.113.9", 80), 5)
                sock.sendall(data)
                sock.settimeout(2)
                try:
                    while sock.recv(1000):
                        pass
                except OSError:
                    pass
            """
            import textwrap
            egress.run(image, ["python3", "-c", textwrap.dedent(script)])
        ''',
        "--color=no",
        "-rA",
        "--junitxml=j.xml",
    )
    run.result.assert_outcomes(failed=5)
    shown = run.output + Path("j.xml").read_text()
    assert {c for c in shown if not c.isprintable()} - {"\n", "\t"} == set()
    assert shown.count(r"\x1b[2J\x1b[H== 1 passed ==") >= 4
