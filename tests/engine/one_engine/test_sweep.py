"""Fault sweeps of real containers: what each does under each fault, as the matrix has it."""

from __future__ import annotations

import json

from tests.support.inner_runs import InnerRun, Inside


def letters(run: InnerRun, test: str) -> dict[str, str]:
    """The letters of a test's cells, each by its call's path, its number and its fault."""
    found: dict[str, str] = {}
    for report in run.reports:
        for name, text in report.user_properties:
            data = json.loads(str(text))
            if name == "egress_sweep" and data["test"].endswith(f"::{test}"):
                path = data["call"].partition(".test")[2].removeprefix(":5432")
                number = f" #{data['number']}" if data["number"] > 1 else ""
                once = " once" if data["once"] else ""
                found[f"{path}{number}: {data['fault']}{once}"] = data["letters"]
    return found


def test_an_image_is_told_by_what_it_survives_hides_and_says(inside: Inside) -> None:
    run = inside("""
        import pytest

        NAIVE = (
            "import urllib.request as u\\n"
            "post = lambda: u.urlopen('http://pay.test/charges', b'', timeout=20).read()\\n"
            "try: post()\\n"
            "except OSError: post()\\n"
            "print('charged')\\n"
        )

        @pytest.mark.egress_sweep(faults=["503", "reset", "html", "lost"], patience=40)
        def test_naive(egress, image):
            charges = egress.intercept_http("pay.test", {"id": 1})
            result = egress.run(image, ["python3", "-c", NAIVE])
            assert result.stdout == "charged\\n"
            charges.assert_called_once()

        def runs(egress, image, script):
            egress.intercept_https("pay.test", {"id": 1})
            result = egress.run(image, ["sh", "-c", script])
            assert result.stdout

        @pytest.mark.egress_sweep(faults=["503", "empty"], patience=40)
        def test_mute(egress, image):
            runs(egress, image, "curl -sf https://pay.test/a")

        @pytest.mark.egress_sweep(faults=["503"], patience=40)
        def test_crash(egress, image):
            runs(egress, image, "curl -sf https://pay.test/a || exit 139")

        @pytest.mark.egress_sweep(faults=["cut"], patience=40)
        def test_cut(egress, image):
            runs(egress, image, "curl -sS https://pay.test/a")

        @pytest.mark.egress_sweep(faults=["503"], patience=40)
        def test_stray(egress, image):
            runs(egress, image, "curl -sf https://pay.test/a || curl -sS https://backup.test/")
        """)
    assert letters(run, "test_naive") == {
        "/charges: 503": "err",
        "/charges: 503 once": "ok",
        "/charges: reset": "err",
        "/charges: reset once": "ok",
        "/charges: html": "ok",
        "/charges: lost": "err",
        "/charges: lost once": "LIES",
    }, run.output
    assert letters(run, "test_mute") == {"/a: 503": "MUTE", "/a: empty": "LIES"}
    assert letters(run, "test_crash") == {"/a: 503": "CRASH"}
    assert letters(run, "test_cut") == {"/a: cut": "err"}
    assert letters(run, "test_stray") == {"/a: 503": "STRAY"}
    assert 'to answer it: egress.intercept_https("backup.test"' in run.output


def test_a_client_without_a_time_out_hangs_and_one_with_it_gives_up(inside: Inside) -> None:
    run = inside("""
        import pytest

        def runs(egress, image, script):
            egress.intercept_https("pay.test", {"id": 1})
            assert egress.run(image, ["sh", "-c", script]).stdout

        @pytest.mark.egress_sweep(faults=["silence"], patience=1)
        def test_hangs(egress, image):
            runs(egress, image, "curl -sS https://pay.test/a && curl -sS https://pay.test/b")

        @pytest.mark.egress_sweep(faults=["silence"], patience=40)
        def test_gives_up(egress, image):
            runs(egress, image, "curl -sS --max-time 1 https://pay.test/a")
        """)
    assert letters(run, "test_hangs") == {"/a: silence": "HUNG"}, run.output
    assert letters(run, "test_gives_up") == {"/a: silence": "err"}
    assert "GET https://pay.test/a: silence: given up after " in run.output
    assert "clients:latest had not ended when the time was over" in run.output


def test_a_shared_service_is_swept_and_one_that_a_fixture_starts(inside: Inside) -> None:
    run = inside("""
        import pytest

        @pytest.mark.egress_sweep(faults=["503", "silence"], patience=20)
        def test_shared(egress, sh):
            egress.intercept_https("pay.test", b"ok")
            assert sh("curl -sf --max-time 8 https://pay.test/a") == "ok"

        @pytest.fixture
        def job(egress, image):
            egress.intercept_https("pay.test", b"ok")
            egress.intercept_https("log.test", b"ok")
            return egress.start(
                image, ["sh", "-c", "curl -sSf https://pay.test/a && curl -sSf https://log.test/b"]
            )

        @pytest.mark.egress_sweep(faults=["503"], tolerates=["log.test*"], patience=40)
        def test_job(job):
            assert job.wait().exit_code == 0
        """)
    assert letters(run, "test_shared") == {"/a: 503": "err?", "/a: silence": "err?"}, run.output
    assert letters(run, "test_job") == {"/a: 503": "err", "/b: 503": "FAILS"}


def test_what_a_shared_container_tries_later_meets_the_fault_of_no_other_cell(
    inside: Inside,
) -> None:
    run = inside("""
        import pytest

        LATER = "(sleep 0.4; curl -s https://pay.test/a) >/dev/null 2>&1 &"

        @pytest.mark.egress_sweep(faults=["503"], patience=20)
        def test_later(egress, sh):
            egress.intercept_https("pay.test", b"ok")
            assert sh(f"sleep 1; curl -sf https://pay.test/a || {{ {LATER} }}") == "ok"

        ON_AND_ON = "(while sleep 1; do curl -s https://log.test/; done) >/dev/null 2>&1 &"

        @pytest.mark.egress_sweep(faults=["503"], patience=1)
        def test_on_and_on(egress, module_egress, sh):
            module_egress.intercept_https("log.test", b"ok")
            assert sh(f"curl -sf --retry 1 https://log.test/ && {ON_AND_ON}") == "ok"
        """)
    assert letters(run, "test_later") == {"/a: 503": "err?", "/a: 503 once": "err?"}, run.output
    assert letters(run, "test_on_and_on") == {"/: 503": "err?", "/: 503 once": "ok?"}
    (skipped,) = (each for each in run.reports if each.skipped)
    assert "a shared container goes on making this call" in skipped.longreprtext


def test_dials_are_refused_names_are_unknown_and_both_work_again_afterwards(inside: Inside) -> None:
    run = inside("""
        import pytest

        @pytest.mark.egress_sweep(faults=["refuse", "nxdomain"], patience=40)
        def test_run(egress, image):
            egress.intercept_https("pay.test", b"ok")
            egress.intercept_http("pay.test", b"ok")
            script = "curl -sS https://pay.test/; curl -sS http://pay.test/"
            assert egress.run(image, ["sh", "-c", script]).stdout == "okok"

        @pytest.mark.egress_sweep(faults=["refuse", "nxdomain"], tolerates=["pay*"], patience=40)
        def test_shared(egress, sh):
            egress.intercept_https("pay.test", b"ok")
            assert sh("curl -sf https://pay.test/a || echo later") in ("ok", "later\\n")

        def test_afterwards(egress, sh):
            egress.intercept_https("pay.test", b"ok")
            assert sh("curl -sS https://pay.test/a") == "ok"
        """)
    found = {":443: refuse": "LIES", ":80: refuse": "err", ": nxdomain": "err"}
    assert letters(run, "test_run") == found, run.output
    assert letters(run, "test_shared") == {":443: refuse": "ok", ": nxdomain": "ok"}
    assert run.report("test_afterwards").passed


def test_raw_connections_are_reset_or_silent_and_are_then_no_calls(inside: Inside) -> None:
    run = inside("""
        import pytest

        ASKS = (
            "import socket\\n"
            "def ask():\\n"
            "    with socket.create_connection(('db.test', 5432), timeout=1) as sock:\\n"
            "        sock.sendall(b'hello')\\n"
            "        return sock.recv(9)\\n"
        )
        TWICE = "try: said = ask()\\nexcept OSError: said = ask()\\nprint(said)"

        def answers(sock):
            sock.sendall(sock.recv(9))

        def asks(egress, image, script):
            db = egress.intercept_tcp("db.test:5432", answers, times=1)
            result = egress.run(image, ["python3", "-c", ASKS + script], check=False)
            assert result.stdout
            db.assert_called_once()

        @pytest.mark.egress_sweep(patience=40)
        def test_says(egress, image):
            asks(egress, image, "print(ask())")

        @pytest.mark.egress_sweep(faults=["reset", "silence"], patience=40)
        def test_hides(egress, image):
            asks(egress, image, "try: print(ask())\\nexcept OSError: pass")

        @pytest.mark.egress_sweep(faults=["reset"], patience=40, retries=["db.test:5432"])
        def test_retries(egress, image):
            asks(egress, image, TWICE)

        @pytest.mark.egress_sweep(faults=["silence"], patience=1)
        def test_hangs(egress, image):
            asks(egress, image, "socket.socket.settimeout = lambda *a: 0\\nprint(ask())")
        """)
    assert letters(run, "test_says") == {
        f": {fault}": "err" for fault in ("reset", "silence", "refuse", "nxdomain", "servfail")
    }, run.output
    assert letters(run, "test_hides") == {": reset": "LIES", ": silence": "LIES"}
    assert letters(run, "test_retries") == {": reset": "err", ": reset once": "ok"}
    assert letters(run, "test_hangs") == {": silence": "HUNG"}
    assert "tcp://db.test:5432: silence: given up after " in run.output


def test_calls_of_grpc_and_websockets_fail_in_their_own_words(
    inside: Inside, grpc_image: str, websocket_image: str
) -> None:
    run = inside(f"""
        import pytest
        from pytest_egress import grpc_server, websocket
        from tests.support.greeter import pb, pb_grpc

        CODES = {{"unavailable": "UNAVAILABLE", "reset": "UNAVAILABLE", "silence": "DEADLINE_EXCEEDED"}}
        GREETS = (
            "import sys, grpc, greeter_pb2 as pb, greeter_pb2_grpc as pb_grpc\\n"
            "stub = pb_grpc.GreeterStub(grpc.insecure_channel('greeter.test:50051'))\\n"
            "try: print(stub.Unary(pb.Hello(name='you'), timeout=4).text)\\n"
            "except grpc.RpcError as error: sys.exit(error.code().name)\\n"
        )

        class Greeter(pb_grpc.GreeterServicer):
            def Unary(self, request, context):
                return pb.Reply(text=request.name)

        @pytest.mark.egress_sweep(only="POST *", patience=40)
        def test_grpc(egress):
            server = grpc_server((pb_grpc.add_GreeterServicer_to_server, Greeter()))
            egress.intercept_http("greeter.test:50051", server)
            result = egress.run({grpc_image!r}, ["python", "-c", GREETS], check=False)
            if egress.fault and result.exit_code:
                assert result.stderr.strip() == CODES[egress.fault.fault]
                return
            assert result.stdout == "you\\n"

        LISTENS = (
            "from websockets.sync.client import connect\\n"
            "with connect('wss://prices.test/') as ws: print([*ws], ws.close_code)"
        )

        @pytest.mark.egress_sweep(faults=["503", "1011"], patience=40)
        def test_websocket(egress):
            egress.intercept_https("prices.test", websocket(lambda ws: ws.send("7")), times=1)
            said = egress.run({websocket_image!r}, ["python3", "-c", LISTENS], check=False)
            if egress.fault:
                assert {{"503": "HTTP 503", "1011": " 1011 "}}[egress.fault.fault] in said.stderr
                return
            assert said.stdout == "['7'] 1000\\n", said.stderr
        """)
    assert letters(run, "test_grpc") == {
        ":50051/greet.v1.Greeter/Unary: unavailable": "ok",
        ":50051/greet.v1.Greeter/Unary: reset": "ok",
        ":50051/greet.v1.Greeter/Unary: silence": "ok",
    }, run.output
    assert letters(run, "test_websocket") == {"/: 503": "ok", "/: 1011": "ok"}
