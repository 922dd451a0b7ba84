"""What the tasks and callbacks of a loop raise that nobody awaits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pytest_egress.base.unawaited import Unawaited


class Lesser(Exception):
    pass


async def fail(error: BaseException) -> None:
    raise error


def watched(main: Any, **options: Any) -> Unawaited:
    """Run a coroutine function on a loop that is watched; what has been raised there is asked for by `check`."""
    loop = asyncio.new_event_loop()
    unawaited = Unawaited(loop, **options)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    return unawaited


def test_of_several_errors_the_first_one_is_raised_that_is_not_lesser() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        errors = (Lesser(), LookupError("first"), ValueError())
        tasks.extend(asyncio.create_task(fail(error)) for error in errors)
        await asyncio.wait(tasks)

    unawaited = watched(main)
    with pytest.raises(LookupError, match="first"):
        unawaited.check(Lesser)
    unawaited.check()  # they have been asked for


def test_a_lesser_error_is_raised_where_there_is_no_other() -> None:
    async def main() -> None:
        asyncio.create_task(fail(Lesser()))  # noqa: RUF006 - nobody awaits it
        await asyncio.sleep(0.01)

    with pytest.raises(Lesser):
        watched(main).check(Lesser)


def test_an_error_keeps_its_context_and_gets_no_other() -> None:
    async def main() -> None:
        async def fail_twice() -> None:
            try:
                raise KeyError("inner")
            except KeyError:
                raise ValueError("outer")  # noqa: B904 - that is what is tested

        asyncio.create_task(fail_twice())  # noqa: RUF006 - likewise
        await asyncio.sleep(0.01)

    unawaited = watched(main)

    def check_within_another() -> None:
        try:
            raise OSError("handled meanwhile")
        except OSError:
            unawaited.check()

    with pytest.raises(ValueError, match="outer") as caught:
        check_within_another()
    assert isinstance(caught.value.__context__, KeyError)


def test_what_a_transport_tells_of_is_logged_unless_it_is_wanted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        context = {"message": "fatal", "exception": LookupError("of a protocol"), "transport": None}
        asyncio.get_running_loop().call_exception_handler(context)

    watched(main).check()
    assert [record.getMessage().partition("\n")[0] for record in caplog.records] == ["fatal"]
    with pytest.raises(LookupError):
        watched(main, of_transports=True).check()
    assert len(caplog.records) == 1


def test_what_has_left_the_loop_already_is_not_told_of_again() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "lost", "exception": KeyboardInterrupt()}
        )

    watched(main).check()
