"""Capabilities that are given up, by scripted calls of the C library."""

from __future__ import annotations

import struct

import pytest

from pytest_egress.agent import capabilities


class Library:
    """Notes the calls, and returns a result for each."""

    def __init__(self, result: int = 0) -> None:
        self.result = result
        self.calls: list[tuple[object, ...]] = []

    def prctl(self, *arguments: object) -> int:
        self.calls.append(arguments)
        return self.result

    def capset(self, *arguments: object) -> int:
        self.calls.append(arguments)
        return self.result


def library(monkeypatch: pytest.MonkeyPatch, result: int = 0) -> Library:
    made = Library(result)
    monkeypatch.setattr(capabilities, "c_library", lambda: made)
    return made


def test_all_but_those_that_are_kept_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made = library(monkeypatch)
    capabilities.give_up_raw()
    ((_, data),) = made.calls
    assert struct.unpack("=6I", data) == (1 << 12, 1 << 12, 0, 0, 0, 0)  # type: ignore[arg-type]


def test_what_is_forbidden_stays_so_for_programs_that_are_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = library(monkeypatch)
    capabilities.forbid(capabilities.SETPCAP)
    assert made.calls == [
        (24, 8, 0, 0, 0),
        (38, 1, 0, 0, 0),
    ]  # PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS


def test_a_kernel_that_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    library(monkeypatch, -1)
    with pytest.raises(OSError):
        capabilities.give_up_raw()


def test_a_python_without_ctypes_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named '_ctypes'")

    monkeypatch.setattr(capabilities, "c_library", missing)
    capabilities.give_up_raw()
