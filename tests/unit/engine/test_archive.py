"""The standard library's `tarfile` reads what we write, and writes what we read."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.engine.archive import (
    CutArchiveError,
    File,
    Member,
    build_tar,
    read_file,
    read_folder,
)


def members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        return {member.name: member for member in reader}


def test_a_file_keeps_its_content_and_attributes() -> None:
    file = File(content=b"#!/bin/sh\n", mode=0o4755, uid=1000, gid=2000, mtime=1_700_000_000)
    archive = build_tar({"/usr/local/bin/run": file})
    member = members(archive)["usr/local/bin/run"]
    assert (member.type, member.mode, member.uid, member.gid, member.mtime) == (
        tarfile.REGTYPE,
        0o4755,
        1000,
        2000,
        1_700_000_000,
    )
    assert read_file([archive], 100) == file


def test_bytes_alone_are_a_file_that_root_owns_and_all_may_read() -> None:
    member = members(build_tar({"/ca.pem": b"pem"}))["ca.pem"]
    assert (member.mode, member.uid, member.gid, member.mtime, member.size) == (0o644, 0, 0, 0, 3)


def test_directories_are_only_those_asked_for_and_come_before_their_files() -> None:
    archive = build_tar(
        {"/opt/egress/ca/ca.pem": b""}, directories=["/opt/egress/ca", "/opt/egress"]
    )
    found = members(archive)
    assert list(found) == ["opt/egress", "opt/egress/ca", "opt/egress/ca/ca.pem"]
    assert [member.isdir() for member in found.values()] == [True, True, False]
    assert {found[name].mode for name in ("opt/egress", "opt/egress/ca")} == {0o755}


def test_parents_of_a_file_get_no_entry() -> None:
    assert list(members(build_tar({"/etc/ssl/certs/ca.pem": b""}))) == ["etc/ssl/certs/ca.pem"]


def test_entries_are_sorted_and_equal_archives_are_equal_bytes() -> None:
    files = {"/b": b"1", "/a/c": b"2", "/a.txt": b"3"}
    archive = build_tar(files)
    assert list(members(archive)) == ["a.txt", "a/c", "b"]
    assert archive == build_tar(dict(reversed(files.items())))


def test_nothing_is_an_archive_too() -> None:
    assert members(build_tar({})) == {}


@pytest.mark.parametrize("path", ["/etc//ssl/./ca.pem", "//etc/ssl/ca.pem", "/etc/ssl/ca.pem/"])
def test_a_path_has_one_spelling_in_the_archive(path: str) -> None:
    assert list(members(build_tar({path: b""}))) == ["etc/ssl/ca.pem"]


@pytest.mark.parametrize(
    "path", ["/" + "d/" * 300 + "f", f"/{'x' * 255}", "/bücher/ca.pem", "/\udcff"]
)
def test_long_and_unusual_names_survive(path: str) -> None:
    assert list(members(build_tar({path: b""}))) == [path[1:]]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "cannot put '' into a container: its path is not absolute"),
        ("ca.pem", "cannot put 'ca.pem' into a container: its path is not absolute"),
        ("/", "cannot put '/' into a container: it is the root itself"),
        ("//.//", "cannot put '//.//' into a container: it is the root itself"),
        ("/a/../b", "cannot put '/a/../b' into a container: '..' may lead anywhere"),
        ("/a\0b", r"cannot put '/a\x00b' into a container: no path has a null character"),
    ],
)
def test_a_path_that_names_no_file_is_refused(path: str, message: str) -> None:
    for files, directories in (({path: b""}, []), ({}, [path])):
        with pytest.raises(ValueError) as error:
            build_tar(files, directories)
        assert str(error.value) == message


@pytest.mark.parametrize(
    ("files", "directories"),
    [({"/a/b": b"", "/a//b": b""}, []), ({"/a": b""}, ["/a"]), ({}, ["/a", "/a"])],
)
def test_a_path_that_occurs_twice_is_refused(
    files: dict[str, bytes], directories: list[str]
) -> None:
    with pytest.raises(ValueError, match="into an archive twice"):
        build_tar(files, directories)


def test_only_a_regular_file_is_read() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as writer:
        for name, kind in (("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE), ("p", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "f"
            writer.addfile(member)
        writer.addfile(tarfile.TarInfo("f"))
    assert read_file([buffer.getvalue()], 100) == File(content=b"")


def test_what_is_no_archive_is_an_error_of_tarfile() -> None:
    with pytest.raises(tarfile.TarError):
        read_file([b"not found" * 100], 1000)


PATHS = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
        lambda part: part not in (".", "..")
    ),
    min_size=1,
    max_size=4,
).map("/".join)
FILES = st.builds(
    File,
    content=st.binary(),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=st.integers(0, 2**33),
)


@given(st.dictionaries(PATHS, FILES), st.integers(1, 5000))
def test_what_was_built_is_read_back_from_any_chunks(files: dict[str, File], size: int) -> None:
    archive = build_tar({f"/d/{path}": file for path, file in files.items()}, ["/d"])
    chunks = (archive[at : at + size] for at in range(0, len(archive), size))
    found = read_folder(chunks, len(archive))
    assert found is not None
    assert {path: member.file for path, member in found.items() if path} == files


# A folder that is read whole.


def folder(*infos: tuple[str, bytes, str], content: bytes = b"") -> bytes:
    """An archive of members: name, type, and where a link leads; files have this content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as writer:
        for name, kind, target in infos:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            writer.addfile(info, io.BytesIO(content))
        end = writer.offset
    return buffer.getvalue()[:end] + bytes(2 * tarfile.BLOCKSIZE)  # as the engine ends it


FOLDER = ("ssl", tarfile.DIRTYPE, "")
LIMIT = 1 << 20


def test_a_folder_has_files_links_hard_links_and_whatever_else_is_in_it() -> None:
    archive = folder(
        FOLDER,
        ("ssl/certs", tarfile.DIRTYPE, ""),
        ("ssl/certs/roots.pem", tarfile.REGTYPE, ""),
        (f"ssl/certs/{'ü' * 200}", tarfile.SYMTYPE, "../" * 60 + "roots.pem"),
        ("ssl/again.pem", tarfile.LNKTYPE, "ssl/certs/roots.pem"),
        ("ssl/pipe", tarfile.FIFOTYPE, ""),
        ("ssl/device", tarfile.CHRTYPE, ""),
        content=b"roots",
    )
    roots = Member(file=File(content=b"roots"))
    assert read_folder([archive], LIMIT) == {
        "": Member(directory=True),
        "certs": Member(directory=True),
        "certs/roots.pem": roots,
        f"certs/{'ü' * 200}": Member(target="../" * 60 + "roots.pem"),
        "again.pem": roots,
        "pipe": Member(),
        "device": Member(),
    }


@pytest.mark.parametrize("content", [b"", b"roots", bytes(1500)])
def test_a_folder_that_is_cut_off_is_told_from_a_whole_one(content: bytes) -> None:
    archive = folder(FOLDER, ("ssl/a", tarfile.REGTYPE, ""), content=content)
    whole = read_folder([archive], LIMIT)
    assert whole is not None
    assert whole.keys() == {"", "a"}
    failed = b'{"message": "the engine failed"}\n'
    for chunks in (*([archive[:size]] for size in range(len(archive))), [archive[:-1024], failed]):
        with pytest.raises(CutArchiveError, match=r"ends after \d+ bytes, without its end mark"):
            read_folder(chunks, LIMIT)


@pytest.mark.parametrize(
    "archive",
    [
        folder(("ssl", tarfile.SYMTYPE, "/opt/ssl")),
        folder(("ssl", tarfile.REGTYPE, "")),
        folder(FOLDER, ("ssl/again", tarfile.LNKTYPE, "ssl/missing")),
        build_tar({}),
    ],
    ids=["a-link", "a-file", "a-hard-link-to-nothing", "empty"],
)
def test_what_is_not_a_folder_that_can_be_told_whole_is_none(archive: bytes) -> None:
    assert read_folder([archive], LIMIT) is None


def test_a_folder_is_read_up_to_a_limit_and_no_further() -> None:
    archive = folder(FOLDER, ("ssl/a", tarfile.REGTYPE, ""), content=bytes(100_000))
    chunks = iter([archive[at : at + 1000] for at in range(0, len(archive), 1000)])
    assert read_folder(chunks, 5000) is None
    assert len(list(chunks)) == len(range(0, len(archive), 1000)) - 6
    assert read_folder([archive], len(archive)) is not None


@given(st.binary(), st.data())
def test_any_bytes_are_a_folder_or_none(junk: bytes, data: st.DataObject) -> None:
    archive = bytearray(folder(FOLDER, ("ssl/a", tarfile.REGTYPE, ""), content=b"roots"))
    at = data.draw(st.integers(0, len(archive)))
    for changed in (junk, bytes(archive[:at] + junk + archive[at + len(junk) :])):
        with suppress(CutArchiveError):
            found = read_folder([changed], LIMIT)
            assert found is None or found[""].directory


# A file that is read.


@pytest.mark.parametrize("content", [b"", b"roots", bytes(1500)])
def test_a_file_that_is_cut_off_is_told_from_one_that_is_not_there(content: bytes) -> None:
    archive = folder(("roots.pem", tarfile.REGTYPE, ""), content=content)
    assert read_file([archive], LIMIT).content == content
    for size in range(512 + len(content)):
        with pytest.raises(CutArchiveError):
            read_file([archive[:size]], LIMIT)
    with pytest.raises(tarfile.ReadError, match="no regular file") as caught:
        read_file([folder(FOLDER)], LIMIT)
    assert not isinstance(caught.value, CutArchiveError)
