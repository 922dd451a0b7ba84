"""`Cassettes`: which file a cassette is, what it plays and records, and when it is written.

A file is written at the end of a scope whose tests have all passed, whole and with its secrets replaced. It is read
when a route is declared, so that an error is raised where the route is.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from pytest_egress.base.choices import RecordMode
from pytest_egress.errors import CassetteError
from pytest_egress.routes.cassette import Cassette
from pytest_egress.routes.recordings.deck import Deck
from pytest_egress.routes.recordings.reel import Reel, ToRecord
from pytest_egress.shelf import write_whole
from pytest_egress.traffic.cassettes.hiding import hidden
from pytest_egress.traffic.cassettes.notation import dump, library
from pytest_egress.traffic.cassettes.reading import is_read_only, tape_in
from pytest_egress.traffic.cassettes.tape import CONVERSATIONS, Recording, Tape, key_of, text_of
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.shown import counted

MAX_NAME_BYTES: Final = 120  # of a file's name; file systems take 255, and encrypted ones 143
ODD: Final = re.compile(r"[^\w.,=@+\[\]-]+")
MAX_FILE_BYTES: Final = 256 << 20

Done = Literal["nothing", "modules", "all"]
"""Which tests have all run, and passed: those of each module of the run, or those of the whole suite."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where the cassettes of a scope are.

    Attributes:
        folder: Of the test's file.
        names: The parts of its own path below `cassettes`, without the extension; empty where it has none.
        node: What to type after pytest to run it.
        is_test: Whether it is one test, so that what it has not played is left over.
    """

    folder: Path
    names: tuple[str, ...] = ()
    node: str = ""
    is_test: bool = False

    @property
    def own(self) -> Path | None:
        if not self.names:
            return None
        *folders, name = map(file_name, self.names)
        return self.folder.joinpath("cassettes", *folders, f"{name}.yaml")


def file_name(name: str) -> str:
    """A name that every file system takes; one that had to be changed ends in a digest, so that no two are one."""
    kept = ODD.sub("-", name).strip(".") or "-"
    while len(kept.encode()) > MAX_NAME_BYTES:
        kept = kept[:-1]
    if kept == name:
        return name
    return f"{kept}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


class Cassettes:
    """The cassettes of a run.

    Args:
        mode: When they are recorded.
        is_worker: Whether other processes run tests too, which may write the same file.
    """

    def __init__(self, mode: RecordMode = "none", *, is_worker: bool = False) -> None:
        self.mode: Final = mode
        self._is_worker = is_worker
        self._made: dict[Path, Tape] = {}  # those that this run has begun anew
        self._old: dict[Path, Tape] = {}  # what rewritten files had that several tests share
        self._of_scopes: set[Path] = set()  # those that belong to a module or a class

    def open(self, path: Path, place: Home, variables: Callable[[str], Mapping[str, str]]) -> Reel:
        """The reel of a file.

        Raises:
            CassetteError: There is none and nothing is recorded, it cannot be read, or not be recorded here.
        """
        name = os.path.relpath(path)
        if why := unusable(path):
            raise CassetteError(f"{name}: {why}")
        records = self._records(path)
        is_own = is_of_one_test(path, place)
        if records != "nothing" and self._is_worker and not is_own:
            raise CassetteError(
                f"{name}: several processes run tests (pytest -n), and each would write this file: record it with -n 0"
            )
        library(name)
        tape = Tape() if records == "all" else self._tape(path, name, place)
        if records == "all" and not is_own and path not in self._old:
            self._old[path] = self._replaced(path, name, place)
        if path == place.own:
            self._of_scopes.add(path)
        return Reel(
            tape,
            name=name,
            records=records,
            variables=variables,
            command=f"pytest --egress-record-mode=new_episodes {place.node}".rstrip(),
            lock=threading.Lock(),
        )

    def _replaced(self, path: Path, name: str, place: Home) -> Tape:
        """What a file has that is rewritten; of one that cannot be read there is nothing to keep."""
        try:
            return self._tape(path, name, place)
        except CassetteError:
            return Tape()

    def _records(self, path: Path) -> ToRecord:
        if self.mode == "none" or is_read_only(path.name):
            return "nothing"
        if self.mode == "rewrite":
            return "all"
        if self.mode == "new_episodes":
            return "unknown"
        return "nothing" if path.exists() and path not in self._made else "unknown"

    def _tape(self, path: Path, name: str, place: Home) -> Tape:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise CassetteError(f"{name}: it has more than {MAX_FILE_BYTES >> 20} MiB")
            text = path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            if self.mode in ("once", "new_episodes") and not is_read_only(path.name):
                return Tape()
            command = f"pytest --egress-record-mode=once {place.node}".rstrip()
            raise CassetteError(
                f"there is no {name}"
                + ("" if is_read_only(path.name) else f"; record it: {command}")
            ) from None
        except UnicodeDecodeError as error:
            raise CassetteError(f"{name}: this is no UTF-8: {error}") from None
        except OSError as error:
            raise CassetteError(f"{name} cannot be read: {error}") from None
        return tape_in(text, name, lambda beside: content_of(path.parent / beside))

    def write(self, path: Path, place: Home, reel: Reel, redactor: Redactor) -> None:
        """Write what a reel has taken. Raises CassetteError where the file cannot be written."""
        if reel.records == "nothing":
            return
        reel.settle()
        if reel.records == "all":
            self._rewrite(path, place, hidden(reel.taken, redactor), redactor)
            return
        if not reel.taken and path.exists():
            return
        tape = hidden((*reel.tape.recordings, *reel.taken), redactor)
        tape = replace(tape, secrets=tape.secrets | reel.tape.secrets)
        if path in self._made:  # another scope's, while this one was open
            tape = together(self._made[path], tape)
        self._made[path] = tape
        save(path, tape)

    def _rewrite(self, path: Path, place: Home, new: Tape, redactor: Redactor) -> None:
        """What no test has asked for yet stays in a shared file until `finish`: a later test may fail."""
        made = self._made[path] = together(self._made.get(path, Tape()), new)
        if is_of_one_test(path, place):
            save(path, made)
            return
        old = self._old[path]
        kept = hidden(old.recordings, redactor)
        self._old[path] = replace(kept, secrets=kept.secrets | old.secrets)
        save(path, with_others_of(self._old[path], made))

    def finish(self, done: Done) -> list[str]:
        """The run is over: take out of rewritten files what no test has asked for, where it would have.

        Returns:
            Lines about what stays.

        Raises:
            CassetteError: A file cannot be written.
        """
        notes = []
        for path in sorted(self._old.keys() & self._made.keys()):
            made = self._made[path]
            count = len(with_others_of(self._old[path], made).recordings) - len(made.recordings)
            if done == "all" or (done == "modules" and path in self._of_scopes):
                save(path, made)
            elif count:
                what = f"{counted(count, 'recording')} that this run has not asked for"
                notes.append(
                    f"{os.path.relpath(path)} keeps {what}: a green run of all tests takes them out"
                )
        return notes


def unusable(path: Path) -> str:
    """Why a path is not that of a file; "" where it is, or there is none yet."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if stat.S_ISREG(mode):
        return ""
    what = "a folder" if stat.S_ISDIR(mode) else "no regular file"  # a pipe waits for its writer
    return f"it is {what}, and a cassette is a file"


def is_of_one_test(path: Path, place: Home) -> bool:
    return place.is_test and path == place.own


def content_of(path: Path) -> bytes:
    """Of a file beside a cassette. OSError where it is none, or is too large."""
    if not path.is_file():
        raise OSError(f"{path.name} is no file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise OSError(f"{path.name} has more than {MAX_FILE_BYTES >> 20} MiB")
    return path.read_bytes()


def save(path: Path, tape: Tape) -> None:
    """Write a tape whose secrets have been replaced. Raises CassetteError where the file cannot be written."""
    try:
        write_whole(path, text_of(tape).encode())
    except OSError as error:
        raise CassetteError(f"{os.path.relpath(path)} cannot be written: {error}") from None


def together(old: Tape, new: Tape) -> Tape:
    """What several tests of a run have recorded into one file: of a request as many as one of them has asked for."""
    mine, theirs = by_request(old.recordings), by_request(new.recordings)
    chosen = {key: max(theirs.get(key, []), mine.get(key, []), key=len) for key in (*mine, *theirs)}
    recordings = tuple(each for several in chosen.values() for each in several)
    return Tape(recordings=recordings, secrets=old.secrets | new.secrets)


def with_others_of(old: Tape, new: Tape) -> Tape:
    """A new tape, with what an old one has of other requests."""
    known = by_request(new.recordings)
    others = tuple(each for each in old.recordings if asked_of(each) not in known)
    secrets = new.secrets | (old.secrets if others else frozenset())
    return Tape(recordings=(*new.recordings, *others), secrets=secrets)


def by_request(recordings: Sequence[Recording]) -> dict[object, list[Recording]]:
    found: dict[object, list[Recording]] = defaultdict(list)
    for each in recordings:
        found[asked_of(each)].append(each)
    return found


def asked_of(recording: Recording) -> object:
    """What a container has asked: of a conversation all that it has sent."""
    body = recording.response.body
    sent = [each for each in body.value if is_sent(each)] if body.key in CONVERSATIONS else ()
    return key_of(recording), recording.is_refused, dump([*sent])


def is_sent(message: Any) -> bool:
    """Whether a message of a conversation, or the end of those of one side, is the container's."""
    return not isinstance(message, dict) or "send" in message


class CassetteStack:
    """The cassettes of one scope: a reel for each file, which its routes share.

    Args:
        redactor: That of the run, at present.
    """

    def __init__(
        self,
        cassettes: Cassettes,
        place: Home,
        variables: Callable[[str], Mapping[str, str]],
        redactor: Callable[[], Redactor],
    ) -> None:
        self._cassettes, self._place = cassettes, place
        self._variables, self._redactor = variables, redactor
        self._reels: dict[Path, Reel] = {}

    def deck(self, declared: Cassette, *, optional: bool) -> Deck:
        path = self.path_of(declared)
        if path not in self._reels:
            self._reels[path] = self._cassettes.open(path, self._place, self._variables)
        reel = self._reels[path]
        is_own = path == self._place.own and self._place.is_test
        is_required = is_own and not optional and reel.records != "all"
        return Deck(reel, declared, is_required=is_required)

    def path_of(self, declared: Cassette) -> Path:
        if declared.path is not None:
            return Path(os.path.normpath(self._place.folder / declared.path))
        if (own := self._place.own) is None:
            raise CassetteError(
                "cassette() needs a path here, which belongs to no test: cassette('api.yaml')"
            )
        return own

    def write(self) -> None:
        """Raises CassetteError where a file cannot be written."""
        for path, reel in self._reels.items():
            self._cassettes.write(path, self._place, reel, self._redactor())
