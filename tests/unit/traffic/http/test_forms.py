"""Forms and cookies: what clients send is read, and any bytes are values or one error of ours."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_egress.errors import ContentError
from pytest_egress.traffic.http import forms
from pytest_egress.traffic.http.forms import (
    FormFile,
    MultiDict,
    decode_text,
    parse_cookies,
    parse_form,
    parse_query,
)

TYPE = "multipart/form-data; boundary=b"
NAMED = b'Content-Disposition: form-data; name="a"'


def part(*lines: bytes, content: bytes = b"") -> bytes:
    return b"--b\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + content + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


# MultiDict.


def test_of_a_repeated_name_the_last_value_counts_and_all_can_be_had() -> None:
    found = parse_query("a=1&b=x+y%20z&c&a=2")
    assert found == {"a": "2", "b": "x y z", "c": ""}
    assert found.get_all("a") == ["1", "2"]
    assert found.get_all("absent") == []
    assert found.raw == (("a", "1"), ("b", "x y z"), ("c", ""), ("a", "2"))


def test_values_can_be_copied() -> None:
    found = MultiDict([("a", "1"), ("a", "2")])
    for other in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert (type(other), other, other.get_all("a")) == (MultiDict, {"a": "2"}, ["1", "2"])


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        (b"\xc3\xbc\xff", "", "\u00fc\ufffd"),
        (b"\xfc", "text/plain; format=flowed; Charset='latin-1'", "\u00fc"),
        (b"\xc3\xbc", "text/plain; charset=", "\u00fc"),
        (b"\xc3\xbc\xff", "text/plain; charset=no-such", "\u00fc\ufffd"),
        (b"a\xff", 'text/plain; charset="ascii"', "a\ufffd"),
    ],
    ids=["none", "its own", "empty", "unknown", "quoted"],
)
def test_text_is_in_its_charset_and_never_an_error(
    content: bytes, content_type: str, text: str
) -> None:
    assert decode_text(content, content_type) == text


@pytest.mark.parametrize("charset", ["Punycode", "idna", "unicode_escape", "raw-unicode-escape"])
def test_codecs_that_are_no_charsets_of_a_body_are_not_used(charset: str) -> None:
    # Punycode would take minutes for these bytes.
    text = "\\d\\u00fc-" + "a" * 1_000_000
    assert decode_text(text.encode(), f"text/plain; charset={charset}") == text


# Multipart.


def test_a_form_has_fields_and_files() -> None:
    first = part(
        b'Content-Disposition: form-data; name="doc"; filename="one.txt"',
        b"Content-Type: text/plain",
        b"X-Own:  1",
        content=b"one\r\n--\r\n",
    )
    second = part(b'content-disposition: form-data; name=doc; filename=""', content=bytes(10))
    form = parse_form(
        body(part(NAMED, content=b"1"), first, part(NAMED, content=b"2"), second), TYPE
    )

    assert form.fields == {"a": "2"}
    assert form.fields.get_all("a") == ["1", "2"]
    one, two = form.files.get_all("doc")
    assert one == FormFile(
        name="doc",
        filename="one.txt",
        content_type="text/plain",
        content=b"one\r\n--\r\n",
        headers=(
            ("Content-Disposition", 'form-data; name="doc"; filename="one.txt"'),
            ("Content-Type", "text/plain"),
            ("X-Own", "1"),
        ),
    )
    assert (two.filename, two.content_type, two.content) == ("", "", bytes(10))
    assert form.files == {"doc": two}
    assert repr(one) == "<FormFile 'doc' 'one.txt' text/plain, 9 bytes>"
    assert repr(two) == "<FormFile 'doc' '', 10 bytes>"


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        (b'name="a b"; filename="c;d.txt"', "a b", "c;d.txt"),
        ('name="\u00fc"; filename="\u00e9.txt"'.encode(), "\u00fc", "\u00e9.txt"),
        (b'name="\xfc"; filename="\xe9.txt"', "\u00fc", "\u00e9.txt"),
        (b'name="a%22b"; filename="c%0D%0Ad%41.txt"', 'a"b', "c\r\nd%41.txt"),
        (b'name="a\\"b"; filename="c.txt"', 'a"b', "c.txt"),
        (b"name=a; filename*=UTF-8''%C3%BC.txt", "a", "\u00fc.txt"),
        (b"name=a; filename*=utf-8''%FC; filename=u.txt", "a", "u.txt"),
        (b"name=a; filename*=utf-8'en'%FC", "a", "\ufffd"),
        (b'name="a"; filename="C:\\dir\\c.txt"', "a", "c.txt"),
    ],
    ids=["spaces", "utf-8", "latin-1", "browsers", "backslash", "extended", "both", "bad", "IE"],
)
def test_names_are_as_clients_write_them(disposition: bytes, name: str, filename: str) -> None:
    header = b"Content-Disposition: form-data; " + disposition
    (file,) = parse_form(body(part(header)), TYPE).files.values()
    assert (file.name, file.filename) == (name, filename)


def test_a_name_that_reads_like_a_filename_is_a_name() -> None:
    form = parse_form(
        body(part(b"Content-Disposition: form-data; name=\"; filename*=utf-8''x\"", content=b"1")),
        TYPE,
    )
    assert (form.fields, form.files) == ({"; filename*=utf-8''x": "1"}, {})


def test_a_field_may_have_a_charset_of_its_own() -> None:
    field = part(NAMED, b"Content-Type: text/plain; charset=latin-1", content=b"\xfc")
    assert parse_form(body(field), TYPE).fields == {"a": "\u00fc"}


@pytest.mark.parametrize(
    "content_type",
    ['Multipart/Form-Data; Charset=x; Boundary="b"', "multipart/form-data;boundary=b;x=1"],
)
def test_the_boundary_is_found_in_any_spelling(content_type: str) -> None:
    assert parse_form(body(part(NAMED)), content_type).fields == {"a": ""}


def test_a_form_without_parts_is_empty() -> None:
    for content in (b"", body()):
        assert parse_form(content, TYPE) == parse_form(b"", "text/plain")


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded ; charset=utf-8", ""],
)
def test_a_urlencoded_form_is_read_and_so_is_a_body_without_a_type(content_type: str) -> None:
    form = parse_form(b"a=%C3%A9&b=&a=2", content_type)
    assert (form.fields, form.files) == ({"a": "2", "b": ""}, {})
    assert form.fields.get_all("a") == ["\u00e9", "2"]


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "multipart/mixed; boundary=b", "x"]
)
def test_a_body_of_another_type_is_no_form(content_type: str) -> None:
    for content in (b'{"a": "1=2&b=3"}', b"a=1", body(part(NAMED))):
        form = parse_form(content, content_type)
        assert (form.fields, form.files) == ({}, {})


@pytest.mark.parametrize(
    "preamble",
    [
        b"This is a message with multiple parts in MIME format.\r\n",
        b"\r\n",
        b"one\r\n\r\ntwo\r\n",
        b"not --b\r\nthe boundary\r\n",
        b"--bound is longer\r\n",
        b"--b is followed by text\r\n",
        b"-" * 100 + b"\r\n",
    ],
)
@pytest.mark.parametrize("epilogue", [b"", b"and the rest\r\n--b\r\n"])
def test_what_is_before_the_first_boundary_and_behind_the_last_is_ignored(
    preamble: bytes, epilogue: bytes
) -> None:
    form = parse_form(preamble + body(part(NAMED, content=b"value")) + epilogue, TYPE)
    assert form.fields.raw == (("a", "value"),)


def test_a_preamble_without_parts_is_an_empty_form() -> None:
    assert parse_form(b"preamble\r\n" + body(), TYPE) == parse_form(b"", TYPE)


NO_FORM = "the body is no multipart/form-data: "


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        (body(), "multipart/form-data", "its Content-Type has no boundary: 'multipart/form-data'"),
        (body(), "multipart/form-data; boundary=", "its Content-Type has no boundary"),
        (part(NAMED), TYPE, "it breaks off before its last boundary"),
        (part(NAMED, content=b"x")[:-3], TYPE, "it breaks off before its last boundary"),
        (b'{"a": 1}', TYPE, "Expected boundary character"),
        (
            body(part(b"Content-Type: text/plain")),
            TYPE,
            "a part has no name: its Content-Disposition is ''",
        ),
        (body(part(b"no header")), TYPE, "Found invalid character"),
        (body(part(NAMED, b"X: " + b"x" * 20_000)), TYPE, "Maximum header size exceeded"),
        (body(part(NAMED, *[b"X: y"] * 70)), TYPE, "Maximum header count exceeded"),
        (body(), f"{TYPE}{'b' * 300}", "Boundary length 301 exceeds"),
        (body(), "multipart/form-data; boundary=\u20ac", "'latin-1' codec can't encode"),
    ],
    ids=[
        *("no boundary", "empty boundary", "no end", "no end of a part", "JSON", "no name"),
        *("no field", "long field", "many fields", "long boundary", "a test's own"),
    ],
)
def test_what_is_no_form_is_an_error_that_says_why(
    content: bytes, content_type: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ContentError) as raised:
        parse_form(content, content_type)
    assert str(raised.value).startswith(NO_FORM + text)
    assert caplog.records == []  # the parser would log the same


def test_the_number_of_parts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MAX_PARTS", 3)
    assert len(parse_form(body(*[part(NAMED)] * 3), TYPE).fields.raw) == 3
    with pytest.raises(ContentError, match="it has more than 3 parts"):
        parse_form(body(*[part(NAMED)] * 4), TYPE)


PIECES = st.sampled_from(
    [
        *(
            b"--b",
            b"--b--",
            b"\r\n",
            b"\r",
            b"\n",
            b"-",
            NAMED,
            b": ",
            b"; filename=x",
            b'"',
            b"\\",
        ),
        *(
            b"Content-Disposition",
            b"Content-Type: text/plain; charset=utf-7",
            b"; filename*=utf-8''%",
        ),
    ]
)


@given(
    content=st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=30).map(b"".join),
    content_type=st.one_of(
        st.just(TYPE),
        st.text(max_size=30),
        st.text(max_size=20).map("multipart/form-data;".__add__),
    ),
)
@example(content=body(part(NAMED, b"Content-Type: text/plain; charset=rot13")), content_type=TYPE)
@example(content=b"", content_type="multipart/form-data; boundary=\x00")
def test_any_body_of_any_type_is_a_form_or_a_content_error(
    content: bytes, content_type: str
) -> None:
    assert_is_a_form_or_an_error(content, content_type)


@given(content=st.binary(max_size=500))
def test_any_bytes_are_a_form_or_a_content_error(content: bytes) -> None:
    assert_is_a_form_or_an_error(content, TYPE)


def assert_is_a_form_or_an_error(content: bytes, content_type: str) -> None:
    try:
        form, text = parse_form(content, content_type), ""
    except ContentError as error:
        form, text = parse_form(b"", ""), str(error)
    assert text[: len(NO_FORM)] in ("", NO_FORM)
    assert all(isinstance(value, str) for pair in form.fields.raw for value in pair)
    assert all(isinstance(file.content, bytes) for file in form.files.values())


@given(
    parts=st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters='\r\n"%\\', exclude_categories=["C"])),
            st.binary(max_size=200),
        ),
        max_size=5,
    )
)
def test_what_a_client_has_put_together_comes_apart_again(parts: list[tuple[str, bytes]]) -> None:
    boundary = "0123456789abcdef-never-in-a-body"
    written = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in parts
    )
    form = parse_form(
        written + f"--{boundary}--".encode(), f"multipart/form-data; boundary={boundary}"
    )
    assert [(name, file.content) for name, file in form.files.raw] == parts


# Cookies.


@pytest.mark.parametrize(
    ("fields", "cookies"),
    [
        ([], {}),
        (["a=1; b=2"], {"a": "1", "b": "2"}),
        (["a=1;b=2;;  c = x y "], {"a": "1", "b": "2", "c": "x y"}),
        (["a=1", "b=2"], {"a": "1", "b": "2"}),
        (["a=b=c=="], {"a": "b=c=="}),
        (["flag; a="], {"": "flag", "a": ""}),
        (['a="x, y"; b="\\"\\054\\\\"; c="'], {"a": "x, y", "b": '",\\', "c": '"'}),
        (["a[0]=1; b/c=2; {}=3; \u00e9=4"], {"a[0]": "1", "b/c": "2", "{}": "3", "\u00e9": "4"}),
        (['a={"x":1,"y":[2]}'], {"a": '{"x":1,"y":[2]}'}),
        (["a=\u00c3\u00bc; b=%C3%BC"], {"a": "\u00fc", "b": "%C3%BC"}),
        (['a="\\303\\274"'], {"a": "\u00fc"}),
        (["a=\u20ac"], {"a": "\u20ac"}),
        (["expires=Thu, 01 Jan 1970; path=/"], {"expires": "Thu, 01 Jan 1970", "path": "/"}),
    ],
    ids=[
        *("none", "two", "spaces", "two fields", "equals", "no equals", "quotes", "names", "JSON"),
        *("UTF-8", "octal", "a test's own", "reserved names"),
    ],
)
def test_cookies_are_read_as_servers_read_them(
    fields: list[str], cookies: Mapping[str, str]
) -> None:
    assert parse_cookies(fields) == cookies


def test_a_cookie_may_repeat() -> None:
    assert parse_cookies(["a=1; a=2"]).get_all("a") == ["1", "2"]


@given(fields=st.lists(st.text(), max_size=3))
@example(fields=['a="\\777"'])
def test_any_text_is_cookies(fields: list[str]) -> None:
    found = parse_cookies(fields)
    assert all(isinstance(value, str) for pair in found.raw for value in pair)
    assert ";" not in "".join(found)
