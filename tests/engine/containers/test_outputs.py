"""What a container or a command in it writes: how much of it is kept, and how long a command is waited for."""

from __future__ import annotations

import pytest

import pytest_egress.link.attach as attach
from pytest_egress import CommandError, Container, ContainerTimeoutError, Egress, EngineError
from pytest_egress.targets.results import LINE_CHARACTERS, LOGS_CHARACTERS, MAY_FAIL

MANY_LINES = ["python3", "-c", "for _ in range(200_000): print('customer')"]
ONE_LINE = ["python3", "-c", "print('begun' + 3_000_000 * 'x' + 'ended'); raise SystemExit(3)"]


@pytest.fixture
def shop(egress: Egress, clients_image: str) -> Container:
    return egress.start(clients_image, ["sleep", "600"])


def test_a_command_that_never_ends_is_an_error_with_what_it_wrote(shop: Container) -> None:
    with pytest.raises(ContainerTimeoutError) as timed_out:
        shop.exec(["sh", "-c", "echo begun; exec sleep 600"], timeout=2)
    assert str(timed_out.value) == (
        "['sh', '-c', 'echo begun; exec sleep 600'] in clients:latest still ran after 2 s, and runs on\n"
        "The end of its log:\n  | begun"
    )
    assert (timed_out.value.logs, timed_out.value.container) == ("begun\n", "clients:latest")
    assert shop.exec("echo again").stdout == "again\n"
    for seconds in (-1, None, float("nan")):
        with pytest.raises((TypeError, ValueError)):
            shop.exec("true", timeout=seconds)  # type: ignore[arg-type]


def test_more_output_than_is_kept_is_an_error(
    egress: Egress, clients_image: str, shop: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shop.exec(MANY_LINES).stdout
    assert whole == "customer\n" * 200_000
    assert egress.run(clients_image, MANY_LINES).stdout == whole
    monkeypatch.setattr(attach, "MAX_OUTPUT_BYTES", 1 << 20)
    with pytest.raises(EngineError) as refused:
        shop.exec(MANY_LINES)
    assert str(refused.value).endswith(
        "in clients:latest: it wrote more than 1 MiB. That is not kept: have it write less, or into a file."
    )
    with pytest.raises(EngineError, match=r"^clients:latest#3 wrote more than 1 MiB\. That is"):
        egress.run(clients_image, MANY_LINES)
    with egress.start(clients_image, MANY_LINES) as talker:
        with pytest.raises(EngineError, match=r"^clients:latest#4 wrote more than 1 MiB"):
            talker.wait()
        with pytest.raises(EngineError, match=r"^clients:latest#4 wrote more than 1 MiB"):
            talker.logs()
        assert talker.log.tail() == "\n".join(["customer"] * 50)  # type: ignore[attr-defined]
    assert shop.exec("echo again").stdout == "again\n"


def test_a_line_without_end_is_shown_cut(egress: Egress, clients_image: str) -> None:
    with pytest.raises(CommandError) as failed:
        egress.run(clients_image, ONE_LINE)
    text = str(failed.value)
    assert text.startswith("clients:latest exited with code 3\nThe end of its log:\n  | ")
    assert text.endswith(f"xxxended\n{MAY_FAIL}")
    assert len(text) < LINE_CHARACTERS + 200
    assert len(failed.value.logs) == LOGS_CHARACTERS
