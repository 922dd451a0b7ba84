"""The arguments of `@pytest.mark.egress_sweep` are checked where they are declared."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_egress.sweep.faults import FAULTS, USUAL
from pytest_egress.sweep.settings import Settings, settings_of

CALL = "POST https://api.test/v1/charges"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"fault": ["503"]}, "it does not take fault=; it takes the keywords faults, only"),
        ({"faults": "503"}, "faults='503': it takes a list of '503', '429'"),
        ({"faults": []}, "faults=[]: it takes a list of"),
        ({"faults": [503]}, "faults=[503]: it takes a list of '503'"),
        ({"faults": ["refused"]}, "faults=['refused']: it takes a list of"),
        ({"only": ["a"]}, "only=['a']: it takes a glob"),
        ({"tolerates": "a.test*"}, "tolerates='a.test*': it takes a list of globs"),
        ({"retries": [""]}, "retries=['']: it takes a list of globs"),
        ({"patience": -1}, "patience=-1: it takes a number of seconds"),
        ({"patience": True}, "patience=True: it takes a number of seconds"),
        ({"limit": 0}, "limit=0: it takes a number of cells over 0"),
        ({"limit": 1.5}, "limit=1.5: it takes a number of cells over 0"),
    ],
)
def test_what_is_not_accepted_is_quoted(options: dict[str, Any], problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(problem)}"):
        settings_of((), options)


def test_an_argument_needs_a_name() -> None:
    with pytest.raises(TypeError, match=r"^\['503'\] needs a name; it takes the keywords faults"):
        settings_of((["503"],), {})


def test_faults_are_in_the_order_of_the_matrix_each_once() -> None:
    assert settings_of((), {"faults": ["silence", "503", "503"]}).faults == ("503", "silence")
    assert settings_of((), {}).faults == USUAL == tuple(f for f in FAULTS if f != "unanswered")


def test_a_glob_that_is_for_no_call_is_told() -> None:
    settings = Settings(tolerates=["api.test*", "ap.test*"], retries=["GET *"])
    assert [*settings.unmatched([CALL])] == [
        "tolerates=['api.test*', 'ap.test*']: 'ap.test*'",
        "retries=['GET *']: 'GET *'",
    ]


def test_a_call_that_is_tolerated_or_tried_again_has_to_pass() -> None:
    tolerant, retrying = Settings(tolerates=["api.test*"]), Settings(retries=["api.test*"])
    for once in (False, True):
        assert tolerant.has_to_pass(CALL, is_tried_once_more=once)
        assert retrying.has_to_pass(CALL, is_tried_once_more=once) is once
        assert not Settings().has_to_pass(CALL, is_tried_once_more=once)
