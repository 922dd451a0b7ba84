"""Prompts of debuggers in handlers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.support.stand_in import HEAD

# Debugger prompts.

Spawn = Callable[..., Any]


@pytest.fixture
def spawn(pytester: pytest.Pytester) -> Spawn:
    """Start pytest on the source of a module at a terminal."""

    def spawn(source: str, *args: str) -> Any:
        pytester.makepyfile(test_x=HEAD + source)
        return pytester.spawn_pytest(f"-q --color=no {' '.join(args)} test_x.py", expect_timeout=60)

    return spawn


PROMPT: Final = r"\(\s*P\s*d\s*b\s*(>+ PDB set_trace [^>]*>+\s*(\x1b\[K)?)?\) "
"""readline wraps it where it begins behind other output; pytest's line of another thread may come within it."""


@pytest.mark.slow
def test_breakpoint_in_a_handler_outlasts_the_deadline_of_the_drain(spawn: Spawn) -> None:
    child = spawn("""
@pytest.mark.egress(timeout=0.1)
def test_a(egress):
    started = threading.Event()
    def handler(request): started.set(); x = 42; breakpoint(); return {"x": x}
    egress.intercept_https("a.test", handler)
    behind(egress, "https://a.test/")
    started.wait(10)
""")
    child.expect(PROMPT)
    time.sleep(1)
    child.sendline("p x + 1")
    child.expect("43")
    child.sendline("c")
    child.expect("1 passed")
    child.wait()


@pytest.mark.slow
@pytest.mark.parametrize("own", ["pass", "assert False"])
def test_quitting_at_that_breakpoint_ends_the_session(spawn: Spawn, own: str) -> None:
    child = spawn(f"""
def test_a(egress):
    egress.intercept_https("a.test", lambda request: breakpoint())
    traffic(egress, "https://a.test/")
    {own}
def test_b(): print("never")
""")
    child.expect(PROMPT)
    child.sendline("q")
    child.expect("Exit: Quitting debugger")
    child.wait()


@pytest.mark.slow
def test_two_handlers_prompt_one_after_the_other(spawn: Spawn) -> None:
    child = spawn("""
def test_a(egress):
    barrier = threading.Barrier(2)
    def handler(request):
        barrier.wait()
        host = request.host
        breakpoint()
        return {}
    egress.intercept_https("*.test", handler)
    threads = [threading.Thread(target=attempt, args=[egress, f"https://{name}.test/"]) for name in "ab"]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(egress.exchanges) == 2
""")
    seen = []
    for _ in range(2):
        child.expect(PROMPT)
        child.sendline("p 'host ' + host")
        child.expect("'host ([ab]).test'")
        seen.append(child.match[1])
        child.expect(PROMPT)
        child.sendline("c")
    child.expect("1 passed")
    child.wait()
    assert sorted(seen) == [b"a", b"b"]


@pytest.mark.slow
def test_stepping_over_a_call_that_stops_in_a_handler_lets_that_handler_prompt(
    spawn: Spawn,
) -> None:
    child = spawn("""
def test_a(egress):
    def handler(request):
        inner = 41
        breakpoint()
        return {}
    egress.intercept_https("a.test", handler)
    breakpoint()
    traffic(egress, "https://a.test/")
    outer = 7
    assert egress.exchanges
""")
    child.expect(PROMPT)
    in_handler = False
    while not in_handler:
        child.sendline("n")
        in_handler = not child.expect([r"\)handler\(\)", r"\)test_a\(\)"])
        child.expect(PROMPT)
    child.sendline("p inner + 1")
    child.expect("42")
    child.sendline("c")
    child.expect(r"\)test_a\(\)")
    child.expect("-> outer = 7")
    child.expect(PROMPT)
    child.sendline("c")
    child.expect("1 passed")
    child.wait()
