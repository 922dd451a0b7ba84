"""The matrix of runtimes: each a real client in a real container that verifies a certificate, and was told of no CA."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import sysconfig
import textwrap
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pytest_egress import Egress, Request, Response
from pytest_egress.targets.handle import Container
from pytest_egress.targets.results import CompletedContainer
from pytest_egress.targets.trust.certificates import from_pem, java_keystore
from pytest_egress.targets.trust.runtimes import DIRECTORY, VARIABLES
from pytest_egress.traffic.entries import TlsFailure
from tests.support.runtimes import IMAGE_BUNDLE, RUNTIMES

pytestmark = pytest.mark.runtimes

HOST: Final = "api.example.test"
URL: Final = f"https://{HOST}/greeting"
HELLO: Final = {"hello": "world"}
SCRIPTS: Final = Path(sysconfig.get_path("scripts"))
NOT_THERE: Final = "/not/there.pem"


@dataclass(frozen=True, kw_only=True)
class Client:
    """One row: a command, what answers it, and what it then says.

    Attributes:
        says: What its output holds where the answer arrived.
        image: Where it runs: by `exec`, but for "go", where nothing else could run.
    """

    name: str
    command: list[str]
    host: str = HOST
    answer: Any = field(default_factory=lambda: HELLO)
    says: str = '"hello"'
    env: Mapping[str, str] = field(default_factory=dict)
    image: Literal["runtimes", "java", "go"] = "runtimes"


def python(code: str) -> list[str]:
    return ["python3", "-c", textwrap.dedent(code)]


def shell(script: str) -> list[str]:
    return ["sh", "-c", textwrap.dedent(script)]


# What package managers and SDKs are answered.


def git_references(request: Request) -> Response:
    head = f"{'0123456789' * 4} HEAD\0agent=git\n"
    text = f"001e# service=git-upload-pack\n0000{len(head) + 4:04x}{head}0000"
    kind = "application/x-git-upload-pack-advertisement"
    return Response(content=text.encode(), headers={"Content-Type": kind})


def wheel() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        info = "thing-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return content.getvalue()


def python_index(request: Request) -> Response:
    if request.path == "/simple/thing/":
        link = '<a href="/files/thing-1.0-py3-none-any.whl">thing-1.0-py3-none-any.whl</a>'
        return Response(text=link, headers={"Content-Type": "text/html"})
    return Response(content=wheel(), headers={"Content-Type": "application/zip"})


def npm_registry(request: Request) -> Response:
    version = {"name": "thing", "version": "1.0.0", "dist": {"tarball": f"{request.url}/-/x.tgz"}}
    return Response(
        json={
            "name": "thing",
            "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": version},
            "description": "from the test",
        }
    )


def crates(request: Request) -> Response:
    if request.path == "/index/config.json":
        return Response(json={"dl": f"https://{HOST}/dl", "api": f"https://{HOST}"})
    crate = {"name": "thing", "max_version": "1.0.0", "description": "from the test"}
    return Response(json={"crates": [crate], "meta": {"total": 1}})


def gems(request: Request) -> Response:
    """A list of one gem, as Ruby's Marshal writes it."""
    version = b'U:\x11Gem::Version[\x06I"\x081.0\x06;\x00F'
    names = b'\x04\x08[\x06[\x08I"\nthing\x06:\x06EF' + version + b'I"\truby\x06;\x00F'
    return Response(content=gzip.compress(names))


def bucket(request: Request) -> Response:
    return Response(
        text="<ListBucketResult><Name>things</Name><KeyCount>1</KeyCount>"
        "<Contents><Key>from-the-test</Key><Size>1</Size></Contents></ListBucketResult>",
        headers={"Content-Type": "application/xml"},
    )


def debian_repository(request: Request) -> Response:
    packages = b"Package: thing\nVersion: 1.0\nArchitecture: all\nFilename: thing.deb\nSize: 1\n"
    name = request.path.rpartition("/")[2]
    if name == "Packages":
        return Response(content=packages)
    if name == "Release":
        checksum = hashlib.sha256(packages).hexdigest()
        return Response(text=f"Suite: test\nSHA256:\n {checksum} {len(packages)} Packages\n")
    return Response(404)


# The clients.

S_CLIENT: Final = (
    f"printf 'GET /greeting HTTP/1.1\\r\\nHost: {HOST}\\r\\nConnection: close\\r\\n\\r\\n'"
    " | {env} openssl s_client -quiet -verify_return_error -verify_hostname "
    f"{HOST} -servername {HOST} -connect {HOST}:443" + " {options}"
)
URLLIB: Final = f"import urllib.request as u; print(u.urlopen({URL!r}).read().decode())"
RUBY: Final = f"require 'net/http'; puts Net::HTTP.get(URI('{URL}'))"
PHP: Final = f"echo file_get_contents('{URL}');"
PHP_CURL: Final = f"$c = curl_init('{URL}'); curl_exec($c) or die(curl_error($c));"
PERL: Final = f"use LWP::UserAgent; print LWP::UserAgent->new->get('{URL}')->decoded_content"
ERLANG: Final = (
    (
        "{ok, _} = application:ensure_all_started(ssl),"
        "{ok, S} = ssl:connect(%r, 443, [{verify, verify_peer}, {cacerts, public_key:cacerts_get()},"
        " {customize_hostname_check, [{match_fun, public_key:pkix_verify_hostname_match_fun(https)}]},"
        ' {active, false}]), ok = ssl:send(S, "GET /greeting HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n"),'
        "R = fun R() -> case ssl:recv(S, 0) of {ok, D} -> io:put_chars(D), R(); _ -> ok end end, R(), halt()."
    )
    .replace("%r", f'"{HOST}"')
    .replace("%s", HOST)
)
AIOHTTP: Final = f"""
    import aiohttp, asyncio
    async def main():
        async with aiohttp.ClientSession() as session, session.get({URL!r}) as answer:
            print(await answer.text())
    asyncio.run(main())
"""
PYCURL: Final = f"""
    import pycurl
    curl = pycurl.Curl()
    curl.setopt(curl.URL, {URL!r})
    curl.perform()
"""
BOTO3: Final = """
    import boto3
    print(boto3.client("s3").list_objects_v2(Bucket="things")["Contents"][0]["Key"])
"""
NODE_HTTPS: Final = f"require('https').get({URL!r}, r => r.pipe(process.stdout))"
NODE_FETCH: Final = f"fetch({URL!r}).then(r => r.text()).then(console.log)"
AXIOS: Final = (
    f"require('axios').default.get({URL!r}).then(r => console.log(JSON.stringify(r.data)))"
)
APT: Final = """
    mkdir -p /tmp/lists/partial
    echo 'deb [trusted=yes] https://deb.example.test/ ./' > /tmp/test.list
    cat > /tmp/apt.conf <<'END'
        Acquire::Retries "0";
        Dir::Etc::SourceList "/tmp/test.list";
        Dir::Etc::SourceParts "/none";
        Dir::State::Lists "/tmp/lists";
    END
    export APT_CONFIG=/tmp/apt.conf
    apt-get update --error-on=any && apt-cache policy thing
"""
GRPC: Final = f"""
    import grpc
    channel = grpc.secure_channel("{HOST}:443", grpc.ssl_channel_credentials())
    try:
        channel.unary_unary("/Greeter/Greet")(b"", timeout=5)
    except grpc.RpcError as error:
        print(error.details())
"""
# As its vendor builds it: Debian's reads the image's bundle too.
NODE: Final = {"NODE_OPTIONS": "--use-bundled-ca", "NODE_PATH": "/usr/share/nodejs"}
AWS: Final = {
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
CLIENTS: Final = [
    Client(name="OpenSSL", command=shell(S_CLIENT.format(env="", options=""))),
    Client(name="curl", command=["curl", "-fsS", URL]),
    Client(name="libcurl with GnuTLS", command=python(PYCURL)),
    Client(name="wget", command=["wget", "-qO-", URL]),
    Client(
        name="git",
        command=["git", "ls-remote", f"https://{HOST}/repo.git"],
        answer=git_references,
        says="0123456789\tHEAD",
    ),
    Client(
        name="apt",
        command=shell(APT),
        host="deb.example.test",
        answer=debian_repository,
        says="Candidate: 1.0",
    ),
    Client(name="Python ssl", command=python(URLLIB)),
    Client(name="requests", command=python(f"import requests; print(requests.get({URL!r}).text)")),
    Client(name="httpx", command=python(f"import httpx; print(httpx.get({URL!r}).text)")),
    Client(name="aiohttp", command=python(AIOHTTP)),
    Client(
        name="urllib3",
        command=python(f"import urllib3; print(urllib3.request('GET', {URL!r}).data.decode())"),
    ),
    Client(
        name="boto3",
        command=python(BOTO3),
        host="things.s3.amazonaws.com",
        answer=bucket,
        says="from-the-test",
        env=AWS,
    ),
    Client(
        name="AWS CLI",
        command=["aws", "s3api", "list-objects-v2", "--bucket", "things"],
        host="things.s3.us-east-1.amazonaws.com",
        answer=bucket,
        says="from-the-test",
        env=AWS,
    ),
    Client(
        name="pip",
        command=shell("pip download --no-cache-dir --no-deps -d $(mktemp -d) thing"),
        host="pypi.org",
        answer=python_index,
        says="Successfully downloaded thing",
    ),
    Client(
        name="uv",
        command=shell(
            "/opt/uv pip install --no-cache --dry-run --system --break-system-packages thing 2>&1"
        ),
        host="pypi.org",
        answer=python_index,
        says="thing==1.0",
    ),
    Client(name="Node.js", command=["node", "-e", NODE_HTTPS], env=NODE),
    Client(name="Node.js fetch", command=["node", "-e", NODE_FETCH], env=NODE),
    Client(name="axios", command=["node", "-e", AXIOS], env=NODE),
    Client(
        name="npm",
        command=shell("npm view --cache=$(mktemp -d) --fetch-retries=0 thing description"),
        host="registry.npmjs.org",
        answer=npm_registry,
        says="from the test",
        env=NODE,
    ),
    Client(name="Deno", command=["/opt/deno", "eval", NODE_FETCH]),
    Client(name="Ruby", command=["ruby", "-e", RUBY]),
    Client(
        name="RubyGems",
        command=shell(
            f"HOME=$(mktemp -d) gem list --remote --clear-sources --source https://{HOST}/"
        ),
        answer=gems,
        says="thing (1.0)",
    ),
    Client(name="PHP", command=["php", "-r", PHP]),
    Client(name="PHP curl", command=["php", "-r", PHP_CURL]),
    Client(name="Perl LWP", command=["perl", "-e", PERL]),
    Client(name="Erlang", command=["erl", "-noshell", "-eval", ERLANG]),
    Client(
        name="cargo",
        command=["cargo", "search", "--index", f"sparse+https://{HOST}/index/", "thing"],
        answer=crates,
        says="from the test",
    ),
    Client(
        name="Nix",
        command=shell(f"cat $(nix-prefetch-url --print-path {URL} | tail -n1)"),
    ),
    *(
        Client(
            name=f"Java {version} {kind}",
            command=[f"/usr/lib/jvm/{version}/bin/java", "Client", kind, HOST],
            image="java",
        )
        for version in (21, 25)
        for kind in ("HttpClient", "HttpsURLConnection")
    ),
    Client(name="Go", command=[HOST], image="go"),
]
# Apart from the others, since it trusts by a file of its own where its variable leads nowhere.
GRPC_CLIENT: Final = Client(
    name="gRPC C-core",
    command=python(GRPC),
    answer=Response(
        headers={"content-type": "application/grpc", "grpc-status": "5", "grpc-message": "hello"}
    ),
    says="hello",
)


# Where they run.


@pytest.fixture(scope="module")
def machine(module_egress: Egress, runtimes_image: str) -> Container:
    """A container with all runtimes but Java and Go that waits for commands."""
    binaries = {f"/opt/{name}": SCRIPTS / name for name in ("uv", "deno")}
    return module_egress.start(runtimes_image, ["sleep", "infinity"], files=binaries)


@pytest.fixture(scope="module")
def java_machine(module_egress: Egress, java_image: str) -> Container:
    """A container with two JDKs that waits for commands."""
    return module_egress.start(java_image, ["sleep", "infinity"], files={NOBODY: java_keystore([])})


Ask = Callable[..., CompletedContainer]


@pytest.fixture
def ask(request: pytest.FixtureRequest, egress: Egress) -> Ask:
    """Runs a client, with these variables besides its own, where it belongs."""

    def run(client: Client, **env: str) -> CompletedContainer:
        env = {**client.env, **env}
        if client.image == "go":
            image = request.getfixturevalue("go_image")
            return egress.run(image, client.command, env=env, check=False)
        name = "java_machine" if client.image == "java" else "machine"
        machine: Container = request.getfixturevalue(name)
        return machine.exec(client.command, env=env, check=False)

    return run


def shown(result: CompletedContainer) -> str:
    """What it wrote, where it succeeded."""
    assert result.exit_code == 0, result.stdout + result.stderr
    return result.stdout


def ids(client: Client) -> str:
    return client.name


BY: Final = {runtime.name: runtime.by for runtime in RUNTIMES}
NAMES: Final = [variable.name for variable in VARIABLES]


NOBODY: Final = "/srv/nobody.jks"  # a JVM passes over a truststore that is not there


def nowhere(names: Iterable[str]) -> dict[str, str]:
    """Values of these variables that lead to nothing; OpenSSL's second one goes with its first."""
    flags = {variable.name: variable.flag for variable in VARIABLES}
    env = {name: f"{flags[name]}{NOBODY if flags[name] else NOT_THERE}" for name in names}
    return {**env, "SSL_CERT_DIR": NOT_THERE} if "SSL_CERT_FILE" in env else env


# The matrix.


def test_every_runtime_of_the_table_is_in_the_matrix() -> None:
    assert sorted(client.name for client in [*CLIENTS, GRPC_CLIENT]) == sorted(
        runtime.name for runtime in RUNTIMES if runtime.tested
    )


def test_what_the_table_names_is_a_variable_that_targets_get_or_the_bundle() -> None:
    assert {*BY.values()} <= {*NAMES, IMAGE_BUNDLE}


@pytest.mark.parametrize("client", CLIENTS, ids=ids)
def test_a_runtime_trusts_the_answer_untold(egress: Egress, ask: Ask, client: Client) -> None:
    route = egress.intercept_https(client.host, client.answer)
    assert client.says in shown(ask(client))
    assert {call.request.sni for call in route.calls} == {client.host}
    assert not [entry for entry in egress.ledger if isinstance(entry, TlsFailure)]


@pytest.mark.parametrize("client", CLIENTS, ids=ids)
def test_a_runtime_needs_nothing_but_what_the_table_names(
    egress: Egress, ask: Ask, client: Client
) -> None:
    egress.intercept_https(client.host, client.answer)
    others = nowhere(name for name in NAMES if name != BY[client.name])
    assert client.says in shown(ask(client, **others))


@pytest.mark.egress(unrouted="block")
@pytest.mark.parametrize(
    "client", [client for client in CLIENTS if BY[client.name] != IMAGE_BUNDLE], ids=ids
)
def test_a_runtime_trusts_nobody_where_its_variable_leads_nowhere(
    egress: Egress, ask: Ask, client: Client
) -> None:
    egress.block(client.host)  # it expects the distrust, and answers a request with 502
    assert client.says not in ask(client, **nowhere([BY[client.name]])).stdout
    assert not egress.exchanges


# Those whose vendors build them with roots of their own.
NEED_A_VARIABLE: Final = {"uv", "Deno", "Node.js", "Node.js fetch", "axios", "npm"}


@pytest.mark.parametrize(
    "client",
    [c for c in CLIENTS if c.image != "go" and c.name not in NEED_A_VARIABLE],
    ids=ids,
)
def test_a_process_whose_environment_was_cleared_trusts_it_too(
    egress: Egress, request: pytest.FixtureRequest, client: Client
) -> None:
    name = "java_machine" if client.image == "java" else "machine"
    machine: Container = request.getfixturevalue(name)
    egress.intercept_https(client.host, client.answer)
    own = {**client.env, "HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    variables = [f"{name}={value}" for name, value in own.items()]
    assert client.says in shown(machine.exec(["env", "-i", *variables, *client.command]))


def test_grpc_trusts_the_answer_untold(egress: Egress, ask: Ask) -> None:
    route = egress.intercept_https(HOST, GRPC_CLIENT.answer)
    assert GRPC_CLIENT.says in shown(ask(GRPC_CLIENT))
    assert {call.request.sni for call in route.calls} == {HOST}
    assert not [entry for entry in egress.ledger if isinstance(entry, TlsFailure)]


def test_grpc_trusts_by_its_own_file_where_its_variable_leads_nowhere(
    egress: Egress, ask: Ask
) -> None:
    route = egress.intercept_https(HOST, GRPC_CLIENT.answer)
    assert GRPC_CLIENT.says in shown(ask(GRPC_CLIENT, **nowhere([BY[GRPC_CLIENT.name]])))
    assert {call.request.sni for call in route.calls} == {HOST}


# Go, where there is nothing but the program.


@pytest.mark.parametrize("arguments", [[HOST], ["-clear", HOST]], ids=["told", "cleared"])
def test_a_program_in_an_empty_image_trusts_the_answer(
    egress: Egress, go_image: str, arguments: list[str]
) -> None:
    egress.intercept_https(HOST, HELLO)
    assert '"hello"' in shown(egress.run(go_image, arguments))


# Java, which others tell things too.

OURS: Final = f"-Djavax.net.ssl.trustStore={DIRECTORY}/truststore.jks"
JAVA_CLIENT: Final = ["/usr/lib/jvm/21/bin/java", "Client", "HttpClient", HOST]


def test_ours_is_added_to_the_java_options_of_the_test(egress: Egress, java_image: str) -> None:
    egress.intercept_https(HOST, HELLO)
    env = {"JAVA_TOOL_OPTIONS": "-Xmx64m"}
    result = egress.run(java_image, JAVA_CLIENT, env=env)
    assert '"hello"' in shown(result)
    assert f"Picked up JAVA_TOOL_OPTIONS: -Xmx64m {OURS}\n" in result.stderr


@pytest.mark.parametrize("kind", ["HttpClient", "HttpsURLConnection"])
def test_a_jdk_below_java_home_trusts_it_and_ours_is_added_to_the_options_of_the_image(
    egress: Egress, java_home_image: str, kind: str
) -> None:
    egress.intercept_https(HOST, HELLO)
    result = egress.run(java_home_image, ["java", "Client", kind, HOST])
    assert '"hello"' in shown(result)
    assert f"Picked up JAVA_TOOL_OPTIONS: -Duser.language=en {OURS}\n" in result.stderr


def test_the_roots_of_the_jdk_below_java_home_are_kept(
    egress: Egress, java_home_image: str, egress_ca: trustme.CA
) -> None:
    keytool = "/usr/lib/jvm/21/bin/keytool -list -storepass changeit -keystore"
    script = f"{keytool} /opt/jdk/lib/security/cacerts; {keytool} {DIRECTORY}/truststore.jks"
    listed = shown(egress.run(java_home_image, ["sh", "-c", script]))
    prints = re.findall(r"fingerprint \(SHA-256\): (\S+)", listed)
    certificate = x509.load_pem_x509_certificate(egress_ca.cert_pem.bytes())
    ours = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    assert {*prints[:2]} == {*prints[2:]} > {ours}  # a keystore has no order
    assert len(prints) == 4


def test_a_truststore_that_the_test_names_is_kept(
    egress: Egress, java_image: str, egress_ca: trustme.CA
) -> None:
    egress.intercept_https(HOST, HELLO)
    theirs = "-Djavax.net.ssl.trustStore=/srv/theirs.jks"
    result = egress.run(
        java_image,
        JAVA_CLIENT,
        env={"JAVA_TOOL_OPTIONS": theirs},
        files={"/srv/theirs.jks": java_keystore(from_pem(egress_ca.cert_pem.bytes()))},
    )
    assert '"hello"' in shown(result)
    assert f"Picked up JAVA_TOOL_OPTIONS: {theirs}\n" in result.stderr


@pytest.mark.parametrize(
    "option",
    ["-Djavax.net.ssl.trustStorePassword=changeit", "-Djavax.net.ssl.trustStoreType=JKS"],
)
def test_options_that_go_with_a_truststore_of_the_jdks_own_hold_for_ours(
    egress: Egress, java_machine: Container, option: str
) -> None:
    egress.intercept_https(HOST, HELLO)
    java, *arguments = JAVA_CLIENT
    assert '"hello"' in shown(java_machine.exec([java, option, *arguments]))


# Strict verifiers, and certificates for names of any kind.


@pytest.mark.parametrize(
    "options",
    ["-cipher DEFAULT@SECLEVEL=2", "-cipher DEFAULT@SECLEVEL=3", "-x509_strict", "-tls1_2"],
)
def test_openssl_is_content_however_strict(
    egress: Egress, machine: Container, options: str
) -> None:
    egress.intercept_https(HOST, HELLO)
    assert '"hello"' in shown(machine.exec(shell(S_CLIENT.format(env="", options=options))))


def test_python_verifies_strictly_as_rfc_5280_has_it(egress: Egress, machine: Container) -> None:
    egress.intercept_https(HOST, HELLO)
    code = f"""
        import ssl, urllib.request
        context = ssl.create_default_context()
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        print(urllib.request.urlopen({URL!r}, context=context).read().decode())
    """
    assert '"hello"' in shown(machine.exec(python(code)))


UTF_8: Final = {"LC_ALL": "C.UTF-8"}  # so that they take ü for what it is


def asks(client: str, host: str) -> Client:
    """A client of this kind for another host."""
    url = f"https://{host}/greeting"
    if client == "curl":
        return Client(name=client, command=["curl", "-gfsS", url], env=UTF_8)
    if client == "Python":
        code = f"import requests; print(requests.get({url!r}).text)"
        return Client(name=client, command=python(code))
    if client == "Go":
        return Client(name=client, command=[host], image="go")
    command = [*JAVA_CLIENT[:-1], host]
    return Client(name=client, command=command, image="java", env=UTF_8)


@pytest.mark.parametrize("client", ["curl", "Python", "Go", "Java"])
@pytest.mark.parametrize(
    ("host", "found", "sni"),
    [
        ("192.0.2.7", "192.0.2.7", None),
        ("[2001:db8::7]", "2001:db8::7", None),
        ("bücher.test", "xn--bcher-kva.test", "xn--bcher-kva.test"),
        (f"{'a' * 63}.example.test", f"{'a' * 63}.example.test", f"{'a' * 63}.example.test"),
    ],
    ids=["IPv4 address", "IPv6 address", "internationalized name", "name of 76 characters"],
)
def test_a_certificate_for_a_host_of_any_kind_is_accepted(
    egress: Egress, ask: Ask, client: str, host: str, found: str, sni: str | None
) -> None:
    route = egress.intercept_https(host.strip("[]"), HELLO)
    assert '"hello"' in shown(ask(asks(client, host)))
    request = route.assert_called_once().request
    assert (request.host, request.sni) == (found, sni)
