"""The fields of a message."""

from __future__ import annotations

import pytest

from pytest_egress.traffic.http.headers import Headers


def test_headers_compare_without_case_and_keep_order_and_spelling() -> None:
    headers = Headers([("X-One", "1"), ("Set-Cookie", "a"), ("set-cookie", "b")])
    assert headers["SET-COOKIE"] == "a, b"
    assert headers.get_all("Set-Cookie") == ["a", "b"]
    assert headers.get_all("absent") == []
    assert headers.get("absent") is None
    assert list(headers) == ["x-one", "set-cookie"]
    assert len(headers) == 2
    assert "x-ONE" in headers
    assert repr(headers) == "Headers([('X-One', '1'), ('Set-Cookie', 'a'), ('set-cookie', 'b')])"
    with pytest.raises(KeyError, match="absent"):
        headers["absent"]
