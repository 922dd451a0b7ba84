"""The recordings of a file, whichever tool has written it: ours, VCR.py's, a HAR, or the mappings of WireMock."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.har import tape_of_har
from pytest_egress.traffic.cassettes.notation import load
from pytest_egress.traffic.cassettes.tape import Tape, tape_from
from pytest_egress.traffic.cassettes.vcrpy import is_vcrpy, tape_of_vcrpy
from pytest_egress.traffic.cassettes.wiremock import is_wiremock, tape_of_wiremock
from pytest_egress.traffic.shown import shown

OURS: Final = (".yaml", ".yml")
OTHERS: Final = (".har", ".json")

Beside = Callable[[str], bytes]
"""Reads a file that lies beside the one that is read, by its name. Raises OSError."""


def is_read_only(name: str) -> bool:
    """Whether a file of this name is never written: it is another tool's."""
    return name.lower().endswith(OTHERS)


def tape_in(text: str, name: str, beside: Beside) -> Tape:
    """The recordings of a file's text.

    Args:
        name: Of the file, whose end says what it is.

    Raises:
        CassetteError: It is none of these, or has what cannot be replayed; the text has the line, or the number.
    """
    tape = tape_of_any(text, name, beside)
    for number, each in enumerate(tape.recordings, 1):
        if why := wrong_url(each.request.url):
            place = f"line {each.line}" if each.line else f"recording {number}"
            raise CassetteError(f"{name}: {place}: the URL {shown(each.request.url)}: {why}")
    return tape


def wrong_url(url: str) -> str:
    """Why a URL cannot be compared; "" where it can."""
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        return str(error)
    return ""


def tape_of_any(text: str, name: str, beside: Beside) -> Tape:
    if is_read_only(name):
        return tape_of_json(text, name, beside)
    if not name.lower().endswith(OURS):
        listed = ", ".join((*OURS, *OTHERS))
        raise CassetteError(f"{name}: a cassette's name ends in one of {listed}")
    if not text.strip():
        raise CassetteError(f"{name}: the file is empty")
    if "egress_cassette" in text[:4096]:
        return tape_from(load(text, name), name)
    value = load(text, name, of_others=True)
    if is_vcrpy(value):
        return tape_of_vcrpy(value, name)
    return tape_from(value, name)  # which says what is missing


def tape_of_json(text: str, name: str, beside: Beside) -> Tape:
    try:
        value: Any = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise CassetteError(f"{name}: this is no JSON: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("log"), dict):
        return tape_of_har(value, name, beside)
    if is_wiremock(value):
        return tape_of_wiremock(value, name, beside)
    raise CassetteError(f"{name}: this is neither a HAR nor mappings of WireMock")
