"""`TlsSocket`: the standard library's TLS socket, which can look at the next byte and leave it to be read."""

from __future__ import annotations

import ssl
from typing import Any


class TlsSocket(ssl.SSLSocket):
    """A TLS socket whose handshake has been made: `ssl.SSLSocket`, and one byte of looking ahead."""

    _ahead = b""

    def look_ahead(self) -> bytes:
        """Wait for the next byte, and leave it to be read; b"" at the end.

        Raises:
            OSError: The client sent an alert, or broke off; or the socket's timeout is over.
        """
        self._ahead = self._ahead or super().read(1)
        return self._ahead

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """Read up to so many bytes, or into a buffer: all that the other methods read by."""
        if not self._ahead or not len:
            return super().read(len, buffer)
        ahead, self._ahead = self._ahead, b""
        if buffer is None:
            return ahead
        memoryview(buffer).cast("B")[:1] = ahead
        return 1

    def pending(self) -> int:
        """How many bytes can be read without waiting for the network."""
        return len(self._ahead) + super().pending()

    def has_said_goodbye(self) -> bool:
        """Whether the client has ended TLS (close_notify, RFC 8446 section 6.1). Asked once a read has found an end.

        Until then an end of the TCP connection alone is the same to who reads.
        """
        self.suppress_ragged_eofs = False
        try:
            return not super().read(1)
        except OSError:
            return False
