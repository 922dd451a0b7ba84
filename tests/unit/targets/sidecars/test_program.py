"""The agent's program, as sidecars get it."""

from __future__ import annotations

import io
import sys
import tarfile

import pytest

from pytest_egress.base.choices import LinkKind
from pytest_egress.targets.sidecars.program import agent_archive


@pytest.mark.parametrize(
    ("link", "more"),
    [
        ("descriptor", set()),
        (
            "stream",
            {
                "direct",
                "flows",
                "mux",
                "mux_frames",
                "original_destination",
                "pump",
                "relay",
                "stream",
            },
        ),
    ],
)
def test_the_agents_archive_holds_source_and_bytecode_and_nothing_else(
    link: LinkKind, more: set[str]
) -> None:
    with tarfile.open(fileobj=io.BytesIO(agent_archive(link))) as archive:
        names = set(archive.getnames())
    stems = {
        "__init__",
        "addresses",
        "capabilities",
        "capture",
        "dials",
        "keeper",
        "main",
        "netlink",
        "nftables",
    }
    stems |= {"ports", "shared_files", *more}
    tag = sys.implementation.cache_tag
    assert names == {
        "egress",
        "egress/agent",
        "egress/agent/__pycache__",
        *(f"egress/agent/{stem}.py" for stem in stems),
        *(f"egress/agent/__pycache__/{stem}.{tag}.pyc" for stem in stems),
    }
