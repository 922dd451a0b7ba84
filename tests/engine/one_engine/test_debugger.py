"""Where pdb stands at an error of a real container."""

from __future__ import annotations

import pytest

from tests.support.debugger import Debug, Debugger
from tests.support.stand_in import keep_quiet


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    keep_quiet(monkeypatch, pytester)


@pytest.fixture
def debug(pytester: pytest.Pytester) -> Debug:
    """Start it on the source of a module."""
    return lambda source, *args: Debugger(pytester, source, *args)


BREAKS = """
import grpc
from pytest_egress import grpc_server
CALL = '''
import grpc
channel = grpc.insecure_channel("api.test:50051")
print(channel.unary_unary("/shop.Orders/Get")(b"ping", wait_for_ready=True))
'''
def test_a(egress):
    def get(request, context):
        local = 41
        breakpoint()
        return request
    class Orders(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(get)
    server = grpc_server()
    server.add_generic_rpc_handlers((Orders(),))
    egress.intercept_http("api.test:50051", server)
    egress.run("{image}", ["python", "-c", CALL], timeout=120)
"""


def test_a_breakpoint_in_a_servicer_stops_there(debug: Debug, grpc_image: str) -> None:
    debugger = debug(BREAKS.replace("{image}", grpc_image))
    assert debugger.stands_at == "return request"
    assert debugger.tell("p local + 1") == "42"
    debugger.child.sendline("c")
    debugger.child.expect("1 passed")


def test_a_container_that_fails_leaves_pdb_at_the_line_that_ran_it(
    debug: Debug, bare_image: str
) -> None:
    line = f'egress.run("{bare_image}", ["sh", "-c", "exit 3"])'
    debugger = debug(f"def test_a(egress):\n    local = 41\n    {line}\n")
    assert debugger.stands_at == line
    assert debugger.tell("p local + 1") == "42"
