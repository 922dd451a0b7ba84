"""Known values, in whatever form they stand in a text."""

from __future__ import annotations

import base64
import json
import os
import quopri
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.redaction.values import KnownValues, ways_of

KEY = "wh+sec/T9&q=é<2>"
PLAIN = "whsec_4f9aB7c2D8e1"


def hidden(text: str, *values: str, is_cut: bool = False, is_host: bool = False) -> str:
    secrets = [(f"K{number}", value) for number, value in enumerate(values or (KEY, PLAIN))]
    return KnownValues(secrets).replaced(
        text, lambda name: f"<{name}>", is_cut=is_cut, is_host=is_host
    )


FORMS = {
    "plain": KEY,
    "percent-encoded": quote(KEY, safe=""),
    "percent-encoded, in lower case": quote(KEY, safe="")
    .replace("%2B", "%2b")
    .replace("%2F", "%2f"),
    "percent-encoded, but for slashes": quote(KEY),
    "as a form": quote_plus(KEY),
    "percent-encoded, every byte": "".join(f"%{byte:02X}" for byte in KEY.encode()),
    "percent-encoded twice": quote(quote(KEY, safe=""), safe=""),
    "percent-encoded, every byte, twice": "".join(f"%25{byte:02X}" for byte in KEY.encode()),
    "in JSON": json.dumps(KEY)[1:-1],
    "in JSON, as UTF-8": json.dumps(KEY, ensure_ascii=False)[1:-1],
    "in JSON of PHP": json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "in JSON of Go": json.dumps(KEY, ensure_ascii=False)[1:-1]
    .replace("&", "\\u0026")
    .replace("<", "\\u003c")
    .replace(">", "\\u003e"),
    "in JSON, every character of ASCII by its code": "".join(
        f"\\u{ord(each):04X}" if each.isascii() else each for each in KEY
    ),
    "in hex": KEY.encode().hex(),
    "in HEX": KEY.encode().hex().upper(),
    "in XML": KEY.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
    "as bytes taken for characters": KEY.encode().decode("latin-1"),
    "as Python writes bytes": repr(KEY.encode())[2:-1],
    "in UTF-16": KEY.encode("utf-16-le").decode("latin-1").removesuffix("\0"),
    "in UTF-16, the other order": KEY.encode("utf-16-be").decode("latin-1").removeprefix("\0"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_value_is_hidden_in_every_form(form: str) -> None:
    assert hidden(f"before {form} after") == "before <K0> after"


@given(st.binary(max_size=9), st.binary(max_size=9), st.booleans())
def test_a_value_is_hidden_within_base64_at_any_offset(
    before: bytes, after: bytes, is_for_urls: bool
) -> None:
    encode = base64.urlsafe_b64encode if is_for_urls else base64.b64encode
    whole = encode(before + KEY.encode() + after).decode()
    shown = hidden(f"x: {whole}!")
    assert "<K0>" in shown
    around = shown.removeprefix("x: ").removesuffix("!").split("<K0>")
    assert sum(map(len, around)) <= 4 * (len(before) + len(after)) / 3 + 8


@given(st.binary(max_size=9), st.binary(max_size=9), st.sampled_from(["b64", "b32", "le", "be"]))
def test_a_value_is_hidden_within_encodings_of_encodings(
    before: bytes, after: bytes, inner: str
) -> None:
    data = KEY.encode("utf-16-" + inner) if inner in ("le", "be") else KEY.encode()
    data = before + data + after
    text = base64.b64encode(data).decode()
    if inner == "b32":
        text = base64.b32encode(data).decode()
    elif inner == "b64":
        text = base64.urlsafe_b64encode(b"." * len(after) + text.encode() + before).decode()
    assert "<K0>" in hidden(f"x: {text}!")
    assert "<K0>" in hidden(f"x: {text.lower()}!") or inner != "b32"


def test_a_value_is_hidden_in_the_credentials_of_basic() -> None:
    credentials = base64.b64encode(f"joe:{PLAIN}".encode()).decode()
    assert hidden(f"Authorization: Basic {credentials}", PLAIN).startswith(
        "Authorization: Basic am9lO"
    )
    assert "<K0>" in hidden(credentials, PLAIN)


def test_a_value_is_searched_for_as_it_is_and_is_no_expression() -> None:
    assert hidden("a.c+(d)*[e]$^|?", "a.c+(d)*[e]$^|?") == "<K0>"
    assert hidden("abc+(d)*[e]$^|?", "a.c+(d)*[e]$^|?") == "abc+(d)*[e]$^|?"
    assert hidden("back\\slash\\9", "back\\slash\\9") == "<K0>"


def test_of_values_within_each_other_the_longest_is_shown() -> None:
    inner, outer = "abcd1234", "xx-abcd1234-yy"
    assert hidden(f"{inner} {outer} xx-{inner}-zz", inner, outer) == "<K0> <K1> xx-<K0>-zz"
    assert hidden(f"{inner} {outer} xx-{inner}-zz", outer, inner) == "<K1> <K0> xx-<K1>-zz"


def test_values_that_overlap_are_hidden_together() -> None:
    assert hidden("secretpass1secret22", "secretpass1", "pass1secret22") == "<K0>"


@pytest.mark.parametrize("size", range(1, 40))
def test_a_value_is_hidden_wherever_it_stands(size: int) -> None:
    assert hidden(f"{'x' * size}{PLAIN}{'y' * size}") == f"{'x' * size}<K1>{'y' * size}"
    assert hidden(PLAIN * 2) == "<K1><K1>"
    assert hidden(f"{PLAIN[:-1]}{'x' * size}") == f"{PLAIN[:-1]}{'x' * size}"


def test_the_beginning_of_a_value_is_hidden_at_the_end_of_a_text_that_was_cut() -> None:
    for size in range(6, len(PLAIN)):
        assert hidden(f"sent {PLAIN[:size]}", is_cut=True) == "sent <K1>"
    assert hidden(f"sent {PLAIN[:5]}", is_cut=True) == f"sent {PLAIN[:5]}"
    assert hidden(f"sent {PLAIN[:10]}") == f"sent {PLAIN[:10]}"


def test_a_name_of_a_host_has_no_case() -> None:
    secret = "Ab3dEf9hIj"
    assert hidden(f"{secret.upper()}.evil.test", secret, is_host=True) == "<K0>.evil.test"
    assert hidden(f"{secret.lower()}.evil.test", secret) == "<K0>.evil.test"  # as a lookup is told
    assert hidden("İstanbul.test", secret, is_host=True) == "İstanbul.test"


def test_a_text_without_a_value_is_the_same_text() -> None:
    text = "100%25 of \\u0041 and %7Bid%7D"
    assert hidden(text) is text or hidden(text) == text


def test_what_is_found_has_its_form() -> None:
    known = KnownValues([("KEY", KEY), ("PLAIN", PLAIN)])
    for name, text in FORMS.items():
        found = known.found(f"k={text}.")
        assert {each for each, _ in found} == {"KEY"}, name
    assert known.found(f"x{PLAIN}y") == {("PLAIN", "")}
    assert known.found(PLAIN.encode().hex()) == {("PLAIN", "in hex")}
    assert known.found(base64.b64encode(f"ab{PLAIN}".encode()).decode()) == {("PLAIN", "in base64")}
    assert known.found(f"{PLAIN[:-1]} {PLAIN[1:]}") == set()


def test_a_value_within_a_longer_one_is_found_too() -> None:
    known = KnownValues([("LONG", f"{PLAIN}-9"), ("SHORT", PLAIN)])
    assert {name for name, _ in known.found(f"{PLAIN}-9")} == {"LONG", "SHORT"}


def test_a_value_is_found_in_the_labels_of_a_name() -> None:
    known = KnownValues([("KEY", PLAIN)])
    name = PLAIN.encode().hex().upper()
    assert known.found(f"{name[:20]}.{name[20:]}.evil.test", is_host=True) == {("KEY", "in hex")}
    assert known.found(f"{PLAIN.lower()}.test", is_host=True) == {("KEY", "")}
    assert known.found("api.test", is_host=True) == set()


@given(st.text("whsec_4f9aB7c2D8e1%\\u0026 ", max_size=80))
def test_nothing_of_a_value_is_left_in_any_text(text: str) -> None:
    assert PLAIN not in hidden(f"{text}{PLAIN}{text}")


def test_thousands_of_values_are_found_in_a_long_text() -> None:
    values = [os.urandom(16).hex() + "-X" for _ in range(3000)]
    text = base64.b64encode(os.urandom(1 << 18)).decode()
    shown = hidden(f"{text}{values[0]}{text}{values[-1]}{text}", *values)
    assert shown == f"{text}<K0>{text}<K2999>{text}"


@pytest.mark.parametrize("before", range(0, 76, 5))
def test_a_value_is_hidden_where_an_encoding_of_mails_breaks_its_line(before: int) -> None:
    inner = f"{'x' * before}{KEY}{'y' * 90}".encode()
    for wrapped in (base64.encodebytes(inner), quopri.encodestring(inner, quotetabs=True)):
        text = f"To: a@shop.test\r\n\r\n{wrapped.decode()}\r\n--end"
        shown = hidden(text)
        assert "<K0>" in shown
        assert shown.startswith("To: a@shop.test\r\n\r\n")


# Which values.


@pytest.mark.parametrize(
    "before",
    ["", "  ", "> ", "shop | 2026-12-01 INFO payload: "],
    ids=["bare", "indented", "quoted", "log"],
)
def test_a_value_is_hidden_where_base64_has_broken_lines_that_begin_with_something_else(
    before: str,
) -> None:
    data = base64.b64encode(b"x" * 50 + PLAIN.encode() + b"y" * 50).decode()
    lines = [data[at : at + 76] for at in range(0, len(data), 76)]
    text = "\n".join(f"{before}{line}" for line in lines)
    assert base64.b64encode(PLAIN.encode()).decode()[4:14] not in data[:76]
    shown = hidden(f"Authorization: Basic\n{text}\nafter")
    assert "<K1>" in shown
    assert shown.endswith("\nafter")
    assert data[70:76] not in shown


def test_a_break_without_a_secret_stays() -> None:
    text = "first\nsecond\n  third=\nfourth\n"
    assert hidden(text) == text


def test_what_is_left_of_a_value_that_was_cut_is_hidden() -> None:
    # As pytest shows a long value in an assertion, and in --showlocals.
    assert hidden(f"'Bearer {PLAIN[:5]}...{PLAIN[-5:]}' == ''") == "'Bearer <K1>...<K1>' == ''"
    assert hidden(f"a{PLAIN[:12]}\u2026 b") == "a<K1>\u2026 b"
    encoded = base64.b64encode(PLAIN.encode()).decode()
    assert hidden(f"Basic {encoded[:9]}...") == "Basic <K1>..."
    assert hidden(f"{PLAIN[:4]}... (18 characters)") == f"{PLAIN[:4]}... (18 characters)"
    assert hidden("...".join(["when", "nothing", "was", "known"])) == "when...nothing...was...known"


def test_what_is_escaped_beside_a_secret_stays_escaped() -> None:
    escaped = "".join(f"%{ord(each):02x}" if each.isalpha() else each for each in PLAIN)
    assert hidden(f"/a%2Fb/{escaped}/c%20d") == "/a%2Fb/<K1>/c%20d"
    assert hidden(f"/a%252Fb/{quote(escaped)}/c") == "/a%252Fb/<K1>/c"


def test_of_a_thousand_containers_with_a_password_each_few_are_indexed_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    indexed: list[int] = []
    known: KnownValues | None = None
    secrets = [(f"K{number}", f"Password-{number:08}") for number in range(200)]

    def counted(few: tuple[tuple[str, str], ...]) -> dict[str, dict[str, str]]:
        indexed.append(len(few))
        return ways_of(few)

    monkeypatch.setattr("pytest_egress.traffic.redaction.values.ways_of", counted)
    for count in range(1, 201):
        known = KnownValues(secrets[:count], known)
        name, value = secrets[count - 1]
        assert known.replaced(f"{value} {secrets[0][1]}", str.lower) == f"{name.lower()} k0"
    assert sum(indexed) < 200 * 32 < sum(range(200))
    assert known is not None
    assert known.longest == KnownValues(secrets).longest


def test_a_secret_with_another_name_is_shown_by_that() -> None:
    before = KnownValues([("SECRET", PLAIN)])
    assert before.replaced(PLAIN, str) == "SECRET"
    assert KnownValues([("TOKEN", PLAIN), ("K", KEY)], before).replaced(PLAIN, str) == "TOKEN"


def test_a_value_whose_other_form_is_longer_is_hidden_where_every_character_is_escaped() -> None:
    value = "Kx7/hQ2v+R9xLm4Zp8Wd3&Ns6"
    form = "".join(f"%{ord(each):02x}" for each in value)
    assert hidden(f"all of it: {form}", value) == "all of it: <K0>"


@pytest.mark.parametrize("size", [5, 20, 63])
def test_a_value_over_several_labels_of_a_name_is_hidden(size: int) -> None:
    for form in (
        PLAIN.encode().hex(),
        base64.b32encode(PLAIN.encode()).decode().rstrip("="),
        PLAIN,
    ):
        labels = ".".join(form[at : at + size] for at in range(0, len(form), size))
        shown = hidden(f"a.{labels}.evil.test", PLAIN, is_host=True)
        assert shown.startswith("a.<K0>")
        assert shown.endswith("evil.test")
        assert len(shown) < len("a.<K0>.xx.evil.test") + 1
    assert hidden("a.evil.test", PLAIN, is_host=True) == "a.evil.test"


@pytest.mark.parametrize("size", [20, 63])
def test_a_name_with_a_value_over_its_labels_is_hidden_in_a_log_too(size: int) -> None:
    form = (PLAIN * 3).encode().hex().upper()
    labels = ".".join(form[at : at + size] for at in range(0, len(form), size))
    shown = hidden(f"E lookup a.{labels}.evil.test: no such host", PLAIN * 3)
    assert shown == "E lookup a.<K0>.evil.test: no such host"


def test_a_value_is_found_as_a_list_of_its_bytes_and_in_hex_with_separators() -> None:
    data = PLAIN.encode()
    known = KnownValues([("KEY", PLAIN)])
    buffer = json.dumps({"type": "Buffer", "data": [*data]})
    for text in (buffer, buffer.replace(" ", "")):
        assert known.found(text) == {("KEY", "as a list of bytes")}
    for text in (data.hex(":"), data.hex(" ").upper()):
        assert known.found(text) == {("KEY", "in hex")}
