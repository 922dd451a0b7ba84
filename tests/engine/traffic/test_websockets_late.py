"""WebSockets that stay open: what becomes of them at the end of a test, and of what their handlers raise."""

from __future__ import annotations

import textwrap

import pytest

HEAD = """
import time
import pytest
from pytest_egress import log_line, websocket

CLIENT = '''
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
import time
print("up", flush=True)
while True:
    try:
        with connect("wss://feed.test/", open_timeout=30) as ws:
            print("opened", flush=True)
            try:
                while True:
                    print("got", ws.recv(), flush=True)
                    ws.send("ok")
            except ConnectionClosed:
                print("closed with", ws.close_code, ws.close_reason, flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
    time.sleep(0.1)
'''

@pytest.fixture(scope="module")
def client(module_egress):
    module_egress.intercept_https("feed.test", 503)  # between the tests
    return module_egress.start(IMAGE, ["python3", "-c", CLIENT], wait=log_line("up"))
"""


def run(pytester: pytest.Pytester, image: str, code: str) -> pytest.RunResult:
    pytester.makepyfile(test_x=f"IMAGE = {image!r}\n{HEAD}{textwrap.dedent(code)}")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:randomly")


def test_the_end_of_a_test_closes_its_own_and_the_next_test_has_others(
    pytester: pytest.Pytester, websocket_image: str
) -> None:
    code = """
    def test_first(client, egress):
        route = egress.intercept_https("feed.test", websocket())
        route.wait_for_call(timeout=60).send("one")

    def test_second(client, egress):
        def handler(ws):
            for message in ws:
                pass
            ended.append(ws.close_code)

        ended = []
        route = egress.intercept_https("feed.test", websocket(handler))
        call = route.wait_for_call(timeout=60)
        assert "got one" in client.logs()
        assert "closed with 1001 the test is over" in client.logs()
        call.send("two")
        while len(call.messages) < 2:
            time.sleep(0.01)
        assert ended == []
        route.remove()
        for _ in range(600):
            if ended:
                break
            time.sleep(0.1)
        assert ended == [1001]
        assert [message.content for message in call.messages] == ["two", "ok"]
    """
    result = run(pytester, websocket_image, code)
    result.assert_outcomes(passed=2)


def test_one_of_a_wider_scope_stays_open_across_tests(
    pytester: pytest.Pytester, websocket_image: str
) -> None:
    code = """
    @pytest.fixture(scope="module")
    def feed(module_egress, client):
        return module_egress.intercept_https("feed.test", websocket())

    def test_first(feed):
        call = feed.wait_for_call(timeout=60)
        call.send("one")
        assert call.websocket.recv(timeout=60) == "ok"
        pytest.kept = call

    def test_second(client):
        call = pytest.kept
        call.send("two")
        assert call.websocket.recv(timeout=60) == "ok"
        assert call.websocket.close_code is None
        assert "closed" not in client.logs()
    """
    result = run(pytester, websocket_image, code)
    result.assert_outcomes(passed=2)


def test_what_a_handler_raises_fails_its_test_with_the_traceback(
    pytester: pytest.Pytester, websocket_image: str
) -> None:
    code = """
    def test_it(client, egress):
        def prices(ws):
            ws.send("hello")
            assert ws.recv() == "nothing"

        route = egress.intercept_https("feed.test", websocket(prices), times=1)
        route.wait_for_call(timeout=60)
        while "closed with 1011" not in client.logs():
            time.sleep(0.01)
    """
    result = run(pytester, websocket_image, code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            '*assert ws.recv() == "nothing"*',
            "*GET https://feed.test/ -> 101 Switching Protocols in * ms, 2 messages, "
            "closed with 1011, handler raised AssertionError*",
            "*<- 'hello'",
            "*-> 'ok'",
        ]
    )
