"""Which requests of the engine's API are known, and how each is written anew."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.endpoint.calls import ROWS, Act, Row, Whose, call_of
from pytest_egress.endpoint.refusal import RefusedCall


def example(row: Row) -> str:
    return row.path.replace("**", "registry.test/shop:1").replace("*", "shop")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_a_row_is_found_and_written_anew(row: Row) -> None:
    query = "&".join(f"{name}=1" for name in row.query)
    target = f"/v1.45{example(row)}{'?' if query else ''}{query}"
    call = call_of(row.method, target)
    assert (call.row, call.version) == (row, "/v1.45")
    assert call.target() == target
    assert call_of(row.method, example(row)).target() == example(row)


def test_what_changes_a_container_has_one_that_was_made_here() -> None:
    passed = [row for row in ROWS if row.act not in (Act.NETWORK, Act.VOLUME)]
    changing = [row for row in passed if row.method not in ("GET", "HEAD") and "*" in row.path]
    assert {row.whose for row in changing} == {Whose.CAPTURED, Whose.EXEC}


@pytest.mark.parametrize(
    "target",
    [
        "/v1.45//containers/create",
        "/v1.45/containers/create/",
        "/v1.45/containers/../containers/create",
        "http://docker/v1.45/containers/create",
        "/v1.45/v1.45/containers/create",
        "/v1.45/Containers/create",
        "/v1.45/containers/create%00",
        "/v1.45/containers%2",
        "/v1.45/containers/cr\u00e9ate",
        "/v1.45/containers/shop/update",
        "/v1.45/containers/shop/rename",
        "/v1.45/commit",
        "",
        "/",
        "*",
    ],
)
def test_any_other_path_is_refused(target: str) -> None:
    with pytest.raises(RefusedCall) as refused:
        call_of("POST", target)
    assert refused.value.status == HTTPStatus.NOT_IMPLEMENTED


def test_a_refusal_says_what_is_not_there_yet() -> None:
    with pytest.raises(RefusedCall, match=r"'POST' '/v1.45/commit' is not .*not made here"):
        call_of("POST", "/v1.45/commit")
    with pytest.raises(RefusedCall, match="builds are not captured here"):
        call_of("POST", "/build")


def test_a_method_is_exact() -> None:
    with pytest.raises(RefusedCall):
        call_of("Post", "/containers/create")


@given(st.data())
def test_percent_encoding_does_not_change_the_row(data: st.DataObject) -> None:
    path = "/v1.45/containers/create"
    encoded = "".join(
        f"%{ord(each):02{'xX'[data.draw(st.booleans())]}}" if data.draw(st.booleans()) else each
        for each in path[1:]
    )
    call = call_of("POST", f"/{encoded}?name=a")
    assert (call.row.act, call.target()) == (Act.CREATE, f"{path}?name=a")


@given(st.sampled_from(["POST", "GET", "DELETE", "PUT"]), st.text(max_size=40))
def test_any_target_is_a_row_or_refused(method: str, text: str) -> None:
    for target in (text, f"/containers/{text}", f"/containers/{quote(text)}/start?{text}"):
        try:
            call = call_of(method, target)
        except RefusedCall:
            continue
        assert call_of(method, call.target()) == call


def test_a_parameter_that_is_unknown_or_there_twice_is_refused() -> None:
    with pytest.raises(RefusedCall, match="has the parameter 'fromSrc'; known are fromImage, tag"):
        call_of("POST", "/images/create?fromSrc=-")
    with pytest.raises(RefusedCall, match="the parameter 'name' is there twice"):
        call_of("POST", "/containers/create?name=a&n%61me=b")
    assert call_of("POST", "/containers/a/start?checkpoint=").query == {}


def test_a_long_target_is_refused() -> None:
    with pytest.raises(RefusedCall) as refused:
        call_of("GET", f"/info?{'a' * (1 << 20)}")
    assert refused.value.status == HTTPStatus.REQUEST_URI_TOO_LONG
    with pytest.raises(RefusedCall, match="the query"):
        call_of("GET", f"/info?{'&'.join(['a='] * 101)}")
