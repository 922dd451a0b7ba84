"""DTLS and QUIC are told from what is in the clear, with the version that is offered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.tls.dtls import NAMES, version_of
from tests.support.traffic import dtls_hello, quic_initial

ENCRYPTED_13 = b"\x2f\x12\x34" + bytes(20)
APPLICATION_DATA = b"\x17\xfe\xfd" + bytes(8) + b"\0\4data"


@pytest.mark.parametrize(
    ("contents", "version"),
    [
        ([dtls_hello(0xFEFF)], "TLSv1.1"),
        ([dtls_hello(), dtls_hello(), APPLICATION_DATA], "TLSv1.2"),
        ([dtls_hello(0xFEFD, 0xFEFC, 0xFEFD), ENCRYPTED_13], "TLSv1.3"),
        ([quic_initial(), b"\x40short"], "TLSv1.3"),
        ([quic_initial(), b"clear"[:0]], ""),
        ([dtls_hello(), b"shop.orders:1|c"], ""),
        ([APPLICATION_DATA], ""),
        ([b"\x16\xfe\xff" + bytes(60)], ""),
        ([b"\x20metrics"], ""),
        ([], ""),
    ],
)
def test_a_flow_has_the_version_that_its_client_offers(contents: list[bytes], version: str) -> None:
    assert version_of(contents) == version


@given(st.lists(st.binary(max_size=80)), st.integers(0, 90), st.binary(max_size=30))
def test_any_bytes_have_a_version_or_none(rest: list[bytes], cut: int, end: bytes) -> None:
    assert version_of([dtls_hello(0xFEFD, 0xFEFC)[:cut] + end, *rest]) in ("", *NAMES.values())
