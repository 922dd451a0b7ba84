"""What an operation says of media types, and how a place is told."""

from __future__ import annotations

import pytest

from pytest_egress.routes.openapi.checking import keyed, media_key, step


@pytest.mark.parametrize(
    ("keys", "kind", "key"),
    [
        (["application/json"], "application/json; charset=utf-8", "application/json"),
        (["application/json; v=1", "application/json; v=2"], "application/json;v=2", "application/json; v=2"),
        (["*/*", "text/*"], "text/plain", "text/*"),
        (["*/*"], "", "*/*"),
        (["application/json"], "application/xml", None),
        ([], "application/json", None),
    ],
)  # fmt: skip
def test_the_narrowest_media_type_describes_a_body(
    keys: list[str], kind: str, key: str | None
) -> None:
    assert media_key(keys, kind) == key


def test_a_key_is_a_part_of_a_pointer_in_a_uri() -> None:
    assert keyed("application/json; v=1") == "application~1json%3B%20v%3D1"


def test_a_step_is_told_as_it_is_typed() -> None:
    keys: list[str | int] = ["a", 0, "b c"]
    assert "".join(map(step, keys)) == ".a[0]['b c']"
