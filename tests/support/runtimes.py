"""`RUNTIMES`: the clients that trust the CA without a change to their program, as `docs/trust.md` has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

IMAGE_BUNDLE: Final = "the image's bundle"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A client that trusts the CA without any change to its program.

    Attributes:
        by: The variable that leads it to the CA, or `IMAGE_BUNDLE`.
        effect: What happens to its roots: our file "replaces" them, and contains them, or "adds" to them, or it reads
            the image's own bundle, which we "extend".
        tested: Whether a test sends a request with it, in a container.
    """

    name: str
    by: str
    effect: Literal["adds", "replaces", "extends"]
    tested: bool = True


RUNTIMES: Final = (
    Runtime(name="OpenSSL", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="curl", by="CURL_CA_BUNDLE", effect="replaces"),
    Runtime(name="libcurl with GnuTLS", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="wget", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="git", by="GIT_SSL_CAINFO", effect="replaces"),
    Runtime(name="apt", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="Python ssl", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="requests", by="REQUESTS_CA_BUNDLE", effect="replaces"),
    Runtime(name="httpx", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="aiohttp", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="urllib3", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="boto3", by="AWS_CA_BUNDLE", effect="replaces"),
    Runtime(name="AWS CLI", by="AWS_CA_BUNDLE", effect="replaces"),
    Runtime(name="pip", by="REQUESTS_CA_BUNDLE", effect="replaces"),
    Runtime(name="uv", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="Node.js", by="NODE_EXTRA_CA_CERTS", effect="adds"),
    Runtime(name="Node.js fetch", by="NODE_EXTRA_CA_CERTS", effect="adds"),
    Runtime(name="axios", by="NODE_EXTRA_CA_CERTS", effect="adds"),
    Runtime(name="npm", by="NODE_EXTRA_CA_CERTS", effect="adds"),
    Runtime(name="Deno", by="DENO_CERT", effect="adds"),
    Runtime(name="Java 21 HttpClient", by="JAVA_TOOL_OPTIONS", effect="replaces"),
    Runtime(name="Java 21 HttpsURLConnection", by="JAVA_TOOL_OPTIONS", effect="replaces"),
    Runtime(name="Java 25 HttpClient", by="JAVA_TOOL_OPTIONS", effect="replaces"),
    Runtime(name="Java 25 HttpsURLConnection", by="JAVA_TOOL_OPTIONS", effect="replaces"),
    Runtime(name="Go", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="Ruby", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="RubyGems", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="PHP", by="SSL_CERT_FILE", effect="replaces"),
    Runtime(name="PHP curl", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="Perl LWP", by="PERL_LWP_SSL_CA_FILE", effect="replaces"),
    Runtime(name="Erlang", by=IMAGE_BUNDLE, effect="extends"),
    Runtime(name="gRPC C-core", by="GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", effect="replaces"),
    Runtime(name="cargo", by="CARGO_HTTP_CAINFO", effect="replaces"),
    Runtime(name="Nix", by="NIX_SSL_CERT_FILE", effect="replaces"),
    Runtime(name=".NET", by="SSL_CERT_FILE", effect="replaces", tested=False),
    Runtime(
        name="Rust with rustls-native-certs", by="SSL_CERT_FILE", effect="replaces", tested=False
    ),
    Runtime(name="Bun", by="NODE_EXTRA_CA_CERTS", effect="adds", tested=False),
)
