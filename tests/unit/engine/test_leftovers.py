"""Which containers and images are ours."""

from __future__ import annotations

import contextlib

import docker
import pytest

from pytest_egress.engine.leftovers import (
    NAME_LABEL,
    SESSION_LABEL,
    is_ours,
    is_removed,
    own_tags,
    remove_containers,
)
from tests.support.leftovers import NOBODYS


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["/pytest-egress-target-1"], {NAME_LABEL: "pytest-egress-target-1"}, True),
        (["/pytest-egress-kept-1"], {NAME_LABEL: "pytest-egress-target-1"}, True),
        (["/a/linked", "/pytest-egress-target-1"], {NAME_LABEL: "pytest-egress-target-1"}, True),
        (["/pytest-egress-target-1-clone"], {NAME_LABEL: "pytest-egress-target-1"}, False),
        (["/pytest-egress-target-1"], {SESSION_LABEL: "1"}, False),
        (["/"], {NAME_LABEL: ""}, False),
        ([], {NAME_LABEL: "pytest-egress-target-1"}, False),
        (None, None, False),
    ],
)
def test_a_container_is_ours_where_its_label_tells_its_own_name(
    names: list[str] | None, labels: dict[str, str] | None, expected: bool
) -> None:
    assert is_ours({"Names": names, "Labels": labels}) is expected


def test_an_image_of_ours_is_told_by_a_name_of_ours_alone() -> None:
    tags = [
        "pytest-egress/filled:1",
        "docker.io/pytest-egress/filled:2",
        "localhost/pytest-egress/filled:3",
        "not-pytest-egress/filled:4",
        "pytest-egress/filled-by-me:5",
        "users:latest",
    ]
    assert own_tags({"RepoTags": tags}) == tags[:3]
    assert own_tags({"RepoTags": None}) == []


def test_of_an_engine_that_does_not_answer_nothing_is_gone() -> None:
    address = "tcp://127.0.0.1:1"  # docker-py leaves a UNIX socket open
    with contextlib.closing(docker.APIClient(base_url=address, version="1.41")) as api:
        assert not is_removed(api, NOBODYS)
        assert remove_containers(api, [NOBODYS]) == []
