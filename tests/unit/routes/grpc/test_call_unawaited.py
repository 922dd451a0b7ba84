"""A task that an async servicer starts and nobody awaits fails its call; one that outlives the call, its server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pytest_egress.routes.grpc.server import GrpcServer, grpc_server
from tests.support.greeter import pb, pb_grpc
from tests.support.grpc_calls import Call, served_call
from tests.support.stage import eventually

UNARY, DOWN = "/greet.v1.Greeter/Unary", "/greet.v1.Greeter/Down"
ERROR = LookupError("in a task")
KEPT: list[asyncio.Task[None]] = []


async def fail() -> None:
    raise ERROR


def kept_task() -> None:
    KEPT.append(asyncio.create_task(fail()))


STARTS: dict[str, Callable[[], object]] = {
    "dropped": lambda: asyncio.create_task(fail()),
    "kept": kept_task,
}


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Any:
    """What the test is told of is not logged as lost."""
    yield
    KEPT.clear()
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


def greeter(**methods: Any) -> GrpcServer:
    cls = type("Greeter", (pb_grpc.GreeterServicer,), methods)
    return grpc_server((pb_grpc.add_GreeterServicer_to_server, cls()))


@pytest.mark.parametrize("seconds", [None, 0.01], ids=["at once", "later"])
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
def test_a_call_fails_whose_servicer_has_started_it(
    start: Callable[[], object], seconds: float | None
) -> None:
    async def answer(self: object, request: Any, context: Any) -> Any:
        start()
        if seconds is not None:
            await asyncio.sleep(seconds)
        return pb.Reply()

    call = served_call(greeter(Unary=answer), UNARY, pb.Hello())
    assert call.error is ERROR
    assert call.conversation.exchange.error is ERROR
    assert call.status == (
        "UNKNOWN",
        "pytest-egress: the servicer raised LookupError: in a task",
    )


def test_a_stream_of_messages_fails_likewise() -> None:
    async def answer(self: object, request: Any, context: Any) -> AsyncIterator[Any]:
        kept_task()
        yield pb.Reply(text="one")

    call = served_call(greeter(Down=answer), DOWN, pb.Hello())
    assert call.error is ERROR
    assert call.status[0] == "UNKNOWN"


def test_a_servicer_that_waits_for_a_task_in_vain_fails_by_that_when_its_client_leaves() -> None:
    async def answer(self: object, request: Any, context: Any) -> Any:
        kept_task()
        await asyncio.Event().wait()

    call = Call(greeter(Unary=answer), UNARY, {}).start(pb.Hello())
    assert eventually(lambda: KEPT and KEPT[0].done())
    call.duplex.leave()
    assert call.join().error is ERROR


def test_the_servicers_own_error_counts_more() -> None:
    async def answer(self: object, request: Any, context: Any) -> Any:
        kept_task()
        await asyncio.sleep(0.01)
        raise ValueError("of the servicer")

    assert isinstance(served_call(greeter(Unary=answer), UNARY, pb.Hello()).error, ValueError)


def test_what_is_awaited_or_still_runs_is_no_error() -> None:
    async def answer(self: object, request: Any, context: Any) -> Any:
        await asyncio.gather(fail(), return_exceptions=True)
        with pytest.raises(LookupError):
            await asyncio.create_task(fail())
        KEPT.append(asyncio.create_task(asyncio.sleep(60)))
        return pb.Reply()

    call = served_call(greeter(Unary=answer), UNARY, pb.Hello())
    assert (call.error, call.status[0]) == (None, "OK")


def test_one_call_is_not_to_blame_for_the_task_of_another() -> None:
    go_on = asyncio.Event()

    async def wait_and_fail() -> None:
        await go_on.wait()
        raise ERROR

    async def answer(self: object, request: Any, context: Any) -> Any:
        if request.name == "first":
            KEPT.append(asyncio.create_task(wait_and_fail()))
        else:
            go_on.set()
            await asyncio.wait(KEPT)
        return pb.Reply()

    server = greeter(Unary=answer)
    server.acquire()
    calls = [served_call(server, UNARY, pb.Hello(name=name)) for name in ("first", "second")]
    assert [call.error for call in calls] == [None, None]
    with pytest.raises(LookupError) as caught:  # by then nobody has asked
        server.release()
    assert caught.value is ERROR


def test_a_task_that_writes_to_a_call_that_is_over_is_no_error() -> None:
    async def answer(self: object, request: Any, context: Any) -> AsyncIterator[Any]:
        async def write() -> None:
            while True:
                await context.write(pb.Reply())

        KEPT.append(asyncio.create_task(write()))
        await asyncio.wait(KEPT)
        yield pb.Reply()

    call = Call(greeter(Down=answer), DOWN, {}).start(pb.Hello())
    assert call.duplex.sending.wait(10)
    call.duplex.leave()
    assert not isinstance(call.join().error, LookupError)
    assert call.conversation.exchange.error is None
