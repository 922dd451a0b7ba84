"""`Authority`: the CA that targets trust, and the TLS context with a leaf certificate for each name they ask for.

This module never touches a socket. The latest contexts are cached: making one takes about half a millisecond.

Threads: each connection's own asks for a context. The lock guards which there are; no other is taken while it is held.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import ssl
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_egress.base.choices import alternatives
from pytest_egress.gateway.tls.leaves import Leaves
from pytest_egress.gateway.tls.sockets import TlsSocket
from pytest_egress.routes.certificates import USUAL, Presented
from pytest_egress.traffic.tls.hello import X25519, parse_client_hello

if TYPE_CHECKING:
    import trustme

MAX_CONTEXTS: Final = 4096  # 26 KB each
HTTP1_ALONE: Final = ("http/1.1",)
"""What ALPN offers where no requests are read: a raw handler would otherwise get HTTP/2."""

ALPN: Final = ("h2", *HTTP1_ALONE)
"""What ALPN offers where requests are read."""

VERSIONS: Final = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
"""The values of `tls_version=` as the standard library has them."""

ANYTHING_GOES: Final = "DEFAULT:@SECLEVEL=0"
"""OpenSSL's ciphers for weak keys and TLS before 1.2, which its other security levels refuse (ciphers(1))."""


def load_cryptography_unfrozen() -> None:
    """Load cryptography while `datetime.datetime` is the real class.

    It keeps the class that it sees first; with freezegun's, no certificate can be made afterwards. Raises RuntimeError
    where it has seen that one.
    """
    import trustme

    seen = datetime.datetime
    datetime.datetime = next(each for each in seen.__mro__ if type(each) is type)  # type: ignore[assignment,misc]
    try:
        trustme.CA()
    except TypeError as error:
        raise RuntimeError(
            f"no certificate can be made: {error}\n"
            "cryptography was first used while freezegun had replaced the class of dates, and takes no other since. "
            "Let it see a real one before: put `import trustme; trustme.CA()` into conftest.py."
        ) from None
    finally:
        datetime.datetime = seen  # type: ignore[misc]


def check_tls_version(word: str) -> None:
    """Raise ValueError for a version of TLS that this Python's OpenSSL is built without."""
    has = {each: getattr(ssl, f"HAS_{version.name}", True) for each, version in VERSIONS.items()}
    if not has[word]:
        known = alternatives([repr(each) for each in has if has[each]])
        raise ValueError(
            f"tls_version={word!r}: {ssl.OPENSSL_VERSION}, which this Python uses, is built without it; it has {known}"
        )


class Identity(NamedTuple):
    """What a server shows in its handshake: objects of `cryptography`.

    Attributes:
        chain: The certificates that lead from its own to the root.
    """

    certificate: Any
    chain: tuple[Any, ...]
    key: Any


class Authority:
    """Issues a leaf certificate for whatever host a target asks for."""

    def __init__(self, ca: trustme.CA) -> None:
        self.ca: Final = ca
        self._leaves: Final = Leaves(ca)
        self._contexts: dict[
            tuple[str, str | None, tuple[str, ...], Presented, bool], ssl.SSLContext
        ] = {}
        self._identities: dict[tuple[str, Presented], Identity] = {}
        self._lock = threading.Lock()  # guards `_contexts`; no other lock is acquired under it

    @property
    def ca_pem(self) -> bytes:
        return self.ca.cert_pem.bytes()

    @functools.cached_property
    def ca_subject(self) -> bytes:
        """The CA's subject in DER (RFC 5280 section 4.1.2.6)."""
        from cryptography import x509

        return x509.load_pem_x509_certificate(self.ca_pem).subject.public_bytes()

    def context(
        self,
        host: str,
        client_certificate: str | None = None,
        alpn: tuple[str, ...] = ALPN,
        presented: Presented = USUAL,
        *,
        x25519: bool = False,
    ) -> ssl.SSLContext:
        """The TLS context of a server whose leaf certificate is for this name or IP address.

        Args:
            client_certificate: "request" or "require" a client certificate that this CA has issued; None for neither.
            alpn: The protocols that are offered, the preferred one first; none for a server without ALPN.
            x25519: Whether the client has sent a key share of X25519. Where that is cheaper, no other group is used.
        """
        x25519 = x25519 and presented == USUAL and x25519_is_cheaper()
        key = host, client_certificate, alpn, presented, x25519
        context = self._contexts.get(key)
        if context is None:
            with self._lock:
                context = self._contexts.get(key) or self._new_context(*key)
                self._contexts[key] = context
                if len(self._contexts) > MAX_CONTEXTS:
                    del self._contexts[next(iter(self._contexts))]
        return context

    def identity(self, host: str, presented: Presented = USUAL) -> Identity:
        """The same certificate, for a server that makes no use of OpenSSL."""
        key = host, presented
        identity = self._identities.get(key)
        if identity is None:
            with self._lock:
                identity = self._identities[key] = self._new_identity(host, presented)
                if len(self._identities) > MAX_CONTEXTS:
                    del self._identities[next(iter(self._identities))]
        return identity

    def _new_identity(self, host: str, presented: Presented) -> Identity:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        leaf = self._leaf(host, presented)
        certificate, *chain = (
            x509.load_pem_x509_certificate(pem.bytes()) for pem in leaf.cert_chain_pems
        )
        key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
        return Identity(certificate, tuple(chain), key)

    def _leaf(self, host: str, presented: Presented) -> trustme.LeafCert:
        if presented.certificate is None:
            return self._leaves.good(host)
        return self._leaves.bad(host, presented.certificate)

    def _new_context(
        self,
        host: str,
        client_certificate: str | None,
        alpn: tuple[str, ...],
        presented: Presented,
        x25519: bool,
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if x25519:
            context.set_ecdh_curve("X25519")
        context.sslsocket_class = TlsSocket
        if presented.is_bad:  # before the certificate is loaded: a weak key would be refused
            context.set_ciphers(ANYTHING_GOES)
        self._leaf(host, presented).configure_cert(context)
        if presented.tls_version is not None:
            limit_version(context, VERSIONS[presented.tls_version])
        # No session tickets: they cost time, and without them a client that distrusts the CA says so within the
        # handshake.
        context.num_tickets = 0
        if alpn:
            context.set_alpn_protocols([*alpn])
        if client_certificate is not None:
            required = client_certificate == "require"
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
            self.ca.configure_trust(context)
        return context


@functools.lru_cache(maxsize=1)
def x25519_is_cheaper() -> bool:
    """Whether this process's OpenSSL knows X25519 and prefers another group: its own ClientHello tells.

    From 3.5 on that is X25519MLKEM768, which takes a third of the server's time for a handshake.
    """
    hello, nothing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(nothing, hello, server_hostname="a")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    own = parse_client_hello(hello.read())
    return own is not None and X25519 in own.key_shares[1:]


def limit_version(context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    """Make a context speak one version of TLS alone, without Python's warning about old ones.

    The filter stays. To restore the others, as `warnings.catch_warnings` does, could undo what another thread does to
    them meanwhile.
    """
    text = r"ssl\.TLSVersion\.TLSv1(_1)? is deprecated"
    warnings.filterwarnings("ignore", message=text, category=DeprecationWarning)
    context.minimum_version = version
    context.maximum_version = version
