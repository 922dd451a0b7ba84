"""`Body`: the body of one request. It is read once, and either kept whole or streamed.

The rule: it knows no version of HTTP. The pieces come from the request's `Duplex`. A request may be kept for longer
than its connection, in the ledger or by a test. So a body refers to the duplex weakly: the server keeps it for as long
as it serves the request.

Threads: one thread at a time reads. Any thread may ask whether the client has left, and send an interim response. Where
a secret is declared, a lock has each piece searched in its turn: whoever goes on where another thread has read waits
until that has searched its last piece.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Final

from pytest_egress.base.account import Account, OverLimitError
from pytest_egress.base.clock import monotonic
from pytest_egress.routes.duplex import ClientLeftError, Duplex
from pytest_egress.traffic.http.head import MAX_BODY_BYTES, RequestTooLargeError
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers, size_of

if TYPE_CHECKING:
    from pytest_egress.traffic.search.passing import Passing

BODIES: Final = "requests' bodies"
REST_SECONDS: Final = 2.0  # for a body that is read for nobody but a search: the response waits
STREAMED_TWICE: Final = "the body of this request has been streamed: it is read once, and not kept"
NOT_KEPT: Final = (
    "the body of this request was streamed ({} bytes), so that its content is not kept"
)
BROKEN: Final = "the body of this request has not come whole"
NOTHING: Final = threading.Lock()
"""Of the bodies that are not searched, which never acquire it: each lock takes memory."""

NEVER_READ: Final = "the body of this request was never read: its response has been sent, and the rest was discarded"


class Body:
    """The body of one request, as `Request` asks for it.

    Args:
        expected: How many bytes are announced; None where that is not known.

    Attributes:
        trailers: The fields after the body, once it has been read to its end.
        streamed: How many bytes `stream` has given; None where nobody has called it.
        is_cut: Whether `keep_soon` has not waited for its end, or `relay_to_end` was closed before it, so that the
            content may be a part of it.
        is_broken: Whether it cannot be read any more, until `give_up`, since it has not come whole.
        passing: Searches what `stream` gives, and what it has not, for secrets; None where none is declared.
    """

    __slots__ = (  # the ledger keeps one for each request
        *("_account", "_content", "_duplex", "_expected", "_is_relayed", "_kept"),
        *("_relayed", "_searching", "is_broken", "is_cut", "passing", "streamed", "trailers"),
    )

    def __init__(
        self, duplex: Duplex, account: Account, expected: int | None, passing: Passing | None = None
    ) -> None:
        self.passing = passing
        self._searching = NOTHING if passing is None else threading.Lock()
        self._duplex = weakref.ref(duplex)
        self._account, self._expected = account, expected
        self._kept: BytesIO | None = None
        self._content: bytes | None = None
        self._is_relayed = self.is_broken = self.is_cut = False
        self._relayed: threading.Event | None = None  # whether `relay_to_end` is over
        self.trailers: Headers = NO_FIELDS
        self.streamed: int | None = None

    @property
    def content(self) -> bytes:
        """The whole body, which is read and kept where it has not been. While it is relayed, as much as has come.

        Raises:
            RuntimeError: It was streamed, or nobody has read it and its connection has gone on.
            OverLimitError: It is over `MAX_BODY_BYTES`, or the window would keep more than it may.
            ClientLeftError: The client has left before its end.
        """
        if self._content is not None:
            return self._content
        if self.streamed is not None:
            raise RuntimeError(NOT_KEPT.format(self.streamed))
        if not self._is_relayed or self.is_broken:
            self._keep()
        return self.so_far

    def take_content(self, content: bytes) -> None:
        """Take a body that has come with its head and has no trailers. Raises OverLimitError as `content` does."""
        if content:
            check_size(len(content))
            self._account.keep(len(content), BODIES)
        self._content = content

    @property
    def is_whole(self) -> bool:
        """Whether the content has been read to its end, and kept."""
        return self._content is not None

    @property
    def so_far(self) -> bytes:
        if self._content is not None:
            return self._content
        return b"" if self._kept is None else self._kept.getvalue()

    @property
    def size(self) -> int:
        """How many bytes have been read so far."""
        return len(self.so_far) if self.streamed is None else self.streamed

    def _keep(self) -> None:
        for _ in self.relay():
            pass

    def relay(self) -> Iterator[bytes]:
        """The pieces as they come, each kept; a body that was kept already is one piece. Raises as `content` does."""
        if self._content is not None or self.streamed is not None:
            yield from self.stream()
            return
        yield from self._relay(None)

    def _relay(self, seconds: float | None) -> Iterator[bytes]:
        self._is_relayed = True
        check_size(self._expected or 0)
        while piece := self._receive(seconds):
            yield self._keep_piece(piece)
        self.give_up()

    def relay_to_end(self) -> Generator[tuple[bytes, bool], None, None]:
        """As `relay`, with whether each is the last; an end that comes alone is b"". Raises as `content` does.

        Whoever closes it leaves the rest to `search_rest`.
        """
        if self._content is not None or self.streamed is not None:
            yield b"".join(self.stream()), True
            return
        self._is_relayed, self._kept, self._relayed = True, BytesIO(), threading.Event()
        try:
            yield from self._relay_pieces()
        finally:
            self._relayed.set()

    def _relay_pieces(self) -> Generator[tuple[bytes, bool], None, None]:
        piece: bytes | None = None
        while True:
            piece = self._keep_piece(self._receive()) if piece is None else piece
            following = self._at_hand() if piece else b""
            if following == b"":
                self.give_up()
                yield piece, True
                return
            # It is kept before the piece goes on: whoever gets that may ask for no more.
            following = following and self._keep_piece(following)
            try:
                yield piece, False
            except GeneratorExit:
                self.is_cut = True
                raise
            piece = following

    def _keep_piece(self, piece: bytes) -> bytes:
        self._account.keep(len(piece), BODIES)
        self._kept = self._kept or BytesIO()
        self._kept.write(piece)
        check_size(self._kept.tell())
        return piece

    def _at_hand(self) -> bytes | None:
        """The next piece, or b"" at the end, where it has come already; an error is the next call's."""
        with contextlib.suppress(ClientLeftError, OverLimitError, TimeoutError):
            return self._receive(0.0)
        return None

    def keep_soon(self, seconds: float) -> None:
        """Read and keep what comes, until nothing comes for so many seconds, or the client leaves. Then `give_up`.

        Raises:
            OverLimitError: As of `content`.
        """
        if self._content is None and self.streamed is None:
            try:
                with contextlib.suppress(ClientLeftError):
                    for _ in self._relay(seconds):
                        pass
            except TimeoutError:
                self.is_cut = True
            self.give_up()

    def give_up(self) -> None:
        """Take what has been read so far for the content: the rest has not come, or is refused."""
        if self.streamed is None and self._content is None:
            # `getvalue` shares the buffer, so that a large body is not in memory twice.
            self._content, self._kept = self.so_far, None
        self.is_broken = False

    def stream(self) -> Iterator[bytes]:
        """The pieces as they come; none is kept. A body that has been kept already is one piece.

        Raises:
            RuntimeError: It has been streamed already.
            ClientLeftError: The client has left before its end.
        """
        if self._content is not None:
            yield from filter(None, [self._content])
            return
        if self.streamed is not None:
            raise RuntimeError(STREAMED_TWICE)
        self.streamed = 0
        while piece := self.searched(self._receive):
            self.streamed += len(piece)
            yield piece

    def searched(self, receive: Callable[[], bytes]) -> bytes:
        """Receive a piece, and search it for secrets before anybody receives the next one."""
        if self.passing is None:
            return receive()
        with self._searching:
            piece = receive()
            self.passing.feed(piece)
        return piece

    @contextlib.contextmanager
    def searching(self) -> Iterator[bool]:
        """Have nobody else receive and search in the `with` block; False where another thread still does."""
        is_alone = self._searching.acquire(timeout=REST_SECONDS)
        try:
            yield is_alone
        finally:
            if is_alone:
                self._searching.release()

    def search_rest(self) -> None:
        """Search for secrets, where one is declared, what a client sends of a body that nobody has read to its end.

        What has come is searched, and what comes within `REST_SECONDS`, pauses or not. Nobody reads after it: another
        thread that relays the body is waited for.
        """
        if self.passing is None or self._content is not None:
            return
        deadline = monotonic() + REST_SECONDS
        if self._relayed is not None:
            self._relayed.wait(REST_SECONDS)
        if self._is_relayed and not self.is_cut:  # it is read elsewhere, or cannot be read on
            return
        with self.searching() as is_alone:
            if is_alone:
                self._search_rest(self.passing, deadline)

    def _search_rest(self, passing: Passing, deadline: float) -> None:
        if self._is_relayed:  # what was kept may end within a secret, or within a message
            passing.feed(self.so_far)
        with contextlib.suppress(ClientLeftError, OverLimitError, RuntimeError, TimeoutError):
            while (left := deadline - monotonic()) > 0 and (piece := self._receive(left)):
                passing.feed(piece)
            if self.streamed is None:
                for name, value in self.trailers.raw:
                    passing.feed(f"\r\n{name}: {value}".encode("latin-1", "replace"))

    def _receive(self, seconds: float | None = None) -> bytes:
        if self.is_broken:
            raise ClientLeftError(BROKEN)
        if (duplex := self._duplex()) is None:
            raise RuntimeError(NEVER_READ)
        piece = duplex.receive() if seconds is None else duplex.receive(seconds)
        if not piece:
            if duplex.trailers.raw:
                self._account.keep(size_of(duplex.trailers), "trailers")
            self.trailers = duplex.trailers
        return piece

    @property
    def disconnected(self) -> bool:
        """Whether the client has left, or the response has been sent."""
        duplex = self._duplex()
        return duplex is None or duplex.disconnected

    def send_interim(self, status_code: int, headers: Headers) -> None:
        """Raise RuntimeError where the response has begun, and ClientLeftError where the client has left."""
        if (duplex := self._duplex()) is None:
            raise RuntimeError(
                "an interim response cannot follow the response, which has been sent"
            )
        duplex.send_interim(status_code, headers)


def searched(account: Account, headers: Headers) -> Passing | None:
    """What searches a body that is streamed for secrets; None where none is declared."""
    if account.secrets is None:
        return None
    from pytest_egress.traffic.search.passing import Passing

    if headers.get("content-type", "").lower().startswith("application/grpc"):
        return Passing.of_grpc(account.secrets, headers.get("grpc-encoding", ""))
    return Passing.encoded(account.secrets, headers.get("content-encoding", ""))


def check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise RequestTooLargeError(f"the body is over MAX_BODY_BYTES, {MAX_BODY_BYTES} bytes")
