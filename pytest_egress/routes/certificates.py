"""The words of `certificate=` and `tls_version=`, and what a route with them presents in its handshakes.

This module makes no certificate, and imports nothing of TLS: the plugin checks markers with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, get_args

from pytest_egress.base.choices import alternatives

BadCertificate = Literal[
    "expired",
    "not-yet-valid",
    "wrong-host",
    "self-signed",
    "untrusted-root",
    "incomplete-chain",
    "wrong-purpose",
    "weak-key",
]
"""The type of the values of `certificate=`."""

BAD_CERTIFICATES: Final[tuple[BadCertificate, ...]] = get_args(BadCertificate)
"""The values of `certificate=`, each a certificate with one fault that a client has to reject."""

TlsVersion = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
"""The type of the values of `tls_version=`."""

TLS_VERSIONS: Final[tuple[TlsVersion, ...]] = get_args(TlsVersion)
"""The values of `tls_version=`, the oldest first: the words of `request.tls.version`."""

OLD_TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1")
"""The versions that a client has to reject (RFC 8996)."""

WRONG_HOST: Final = "wrong-host.invalid"
"""The name in the certificate of `certificate="wrong-host"`."""

ISSUED_ELSEWHERE: Final = ("self-signed", "untrusted-root", "incomplete-chain")
"""The certificates whose issuer the target does not know. The CA of the run has issued the others."""

IN_WORDS: Final[dict[str, str]] = {
    "expired": "an expired certificate of {host}",
    "not-yet-valid": "a certificate of {host} that is not valid yet",
    "wrong-host": f"a certificate for {WRONG_HOST} as that of {{host}}",
    "self-signed": "a self-signed certificate of {host}",
    "untrusted-root": "a certificate of {host} whose root it does not know",
    "incomplete-chain": "a certificate of {host} that came without the intermediate which issued it",
    "wrong-purpose": "a certificate of {host} that is for clients and not for servers",
    "weak-key": "a certificate of {host} with a weak key, RSA of 1024 bits",
}


@dataclass(frozen=True)
class Presented:
    """The certificate and version of TLS that a route presents in its handshakes.

    Attributes:
        certificate: None for a good one.
        tls_version: The only version of TLS that it speaks; None for any from TLS 1.2 on.
    """

    certificate: BadCertificate | None = None
    tls_version: TlsVersion | None = None

    @property
    def is_usual(self) -> bool:
        return self == USUAL

    @property
    def has_old_version(self) -> bool:
        """A client has to reject such a version."""
        return self.tls_version in OLD_TLS_VERSIONS

    @cached_property
    def is_bad(self) -> bool:
        """Whether a client has to reject it."""
        return self.certificate is not None or self.has_old_version

    @property
    def given(self) -> str:
        """The arguments of a route: `certificate='expired'`; "" where they are the usual."""
        parts = [f"certificate={self.certificate!r}"] if self.certificate is not None else []
        parts += [f"tls_version={self.tls_version!r}"] if self.tls_version is not None else []
        return ", ".join(parts)

    def to(self, host: str) -> str:
        """Words for the thing that a client of `host` rejects or accepts."""
        if self.certificate is not None:
            return IN_WORDS[self.certificate].format(host=host)
        return f"{self.tls_version} with {host}"


USUAL: Final = Presented()


def check_presented(
    certificate: object, tls_version: object, client_certificate: object
) -> Presented:
    """An unknown word, or options that cannot be told apart by what a client does, raise ValueError."""
    presented = Presented(
        check_word("certificate", certificate, BAD_CERTIFICATES),
        check_word("tls_version", tls_version, TLS_VERSIONS),
    )
    if presented.certificate is not None and presented.has_old_version:
        raise ValueError(
            f"certificate={certificate!r} with tls_version={tls_version!r}: a client that breaks off would not say "
            "which of the two it rejects; declare them in two tests"
        )
    if presented.is_bad and client_certificate is not None:
        raise ValueError(
            f"{presented.given} with client_certificate={client_certificate!r}: a client that rejects the server "
            "sends no certificate of its own; leave client_certificate= out"
        )
    return presented


def check_word(option: str, word: Any, words: tuple[str, ...]) -> Any:
    """A word that is none of `words` raises ValueError; the text lists them, and names the closest."""
    if word is None or word in words:
        return word
    raise ValueError(
        f"{option}={word!r}: it takes {alternatives([repr(each) for each in words])}{closest(word, words)}"
    )


def closest(word: object, words: tuple[str, ...]) -> str:
    """The end of an error about a wrong word: which of the right ones may be meant; "" where none is similar."""
    from difflib import get_close_matches

    spelled = {each.lower(): each for each in words}
    found = get_close_matches(str(word).lower(), spelled, n=1)
    return f"; did you mean {spelled[found[0]]!r}?" if found else ""
