"""Clients in containers reject bad certificates and old versions of TLS, and those that verify nothing are caught."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from pytest_egress import BAD_CERTIFICATES, Egress, Route
from pytest_egress.routes.certificates import TlsVersion
from pytest_egress.targets.handle import Container

HOSTS: Final = {kind: f"{kind}.test" for kind in BAD_CERTIFICATES}
OLD_HOSTS: Final[dict[TlsVersion, str]] = {"TLSv1": "tls-1-0.test", "TLSv1.1": "tls-1-1.test"}
GOOD: Final = "good.test"


@dataclass(frozen=True, kw_only=True)
class TlsClient:
    """A program that asks each host of its arguments for one page, and goes on where that fails.

    Attributes:
        verifying: The command that verifies certificates.
        careless: The command that does not.
        accepts: What it accepts though it verifies.
    """

    name: str
    verifying: Sequence[str]
    careless: Sequence[str]
    accepts: Sequence[str] = ()


def each_host(command: str) -> list[str]:
    script = f'for host; do echo "# $host"; {command} 2>&1; done; true'
    return ["sh", "-c", script, "sh"]


def python(imports: str, get: str) -> list[str]:
    program = f"""
        import sys
        {imports}
        for host in sys.argv[1:]:
            print("#", host)
            try:
                {get}
            except Exception as error:
                print(error)
    """
    return ["python3", "-W", "ignore", "-c", textwrap.dedent(program)]


def node(get: str) -> list[str]:
    program = f"""
        const get = {get};
        (async () => {{
            for (const host of process.argv.slice(1)) {{
                console.log("#", host);
                await get(`https://${{host}}/`).catch(error => console.log(error.cause || error.message));
            }}
        }})();
    """
    return ["node", "-e", textwrap.dedent(program), "--"]


NODE_HTTPS: Final = """url => new Promise((done, failed) =>
    require("https").get(url, { OPTIONS }, r => r.resume().on("end", done)).on("error", failed))"""
NODE_FETCH: Final = "url => fetch(url).then(r => r.text())"
NODE_CARELESS: Final = ["env", "NODE_TLS_REJECT_UNAUTHORIZED=0", "NODE_NO_WARNINGS=1"]
RUBY: Final = """
    require "net/http"
    ARGV.each do |host|
        puts "# #{host}"
        http = Net::HTTP.new(host, 443)
        http.use_ssl = true
        http.verify_mode = OpenSSL::SSL::VERIFY_%s
        http.max_retries = 0
        begin http.get("/") rescue puts $! end
    end
"""
CLIENTS: Final = [
    TlsClient(
        name="curl",
        verifying=each_host("curl -sS https://$host/"),
        careless=each_host("curl -ksS https://$host/"),
    ),
    TlsClient(
        name="wget",
        verifying=each_host("wget -t1 -nv -O- https://$host/"),
        careless=each_host("wget -t1 -nv -O- --no-check-certificate https://$host/"),
        accepts=["wrong-purpose", "weak-key", "TLSv1", "TLSv1.1"],  # as GnuTLS does
    ),
    TlsClient(
        name="requests",
        verifying=python("import requests", 'requests.get(f"https://{host}/")'),
        careless=python("import requests", 'requests.get(f"https://{host}/", verify=False)'),
    ),
    TlsClient(
        name="httpx",
        verifying=python("import httpx; get = httpx.Client().get", 'get(f"https://{host}/")'),
        careless=python(
            "import httpx; get = httpx.Client(verify=False).get", 'get(f"https://{host}/")'
        ),
    ),
    TlsClient(
        name="Node.js https",
        verifying=node(NODE_HTTPS.replace("OPTIONS", "")),
        careless=node(NODE_HTTPS.replace("OPTIONS", "rejectUnauthorized: false")),
    ),
    TlsClient(
        name="Node.js fetch",
        verifying=node(NODE_FETCH),
        careless=[*NODE_CARELESS, *node(NODE_FETCH)],
    ),
    TlsClient(
        name="Ruby", verifying=["ruby", "-e", RUBY % "PEER"], careless=["ruby", "-e", RUBY % "NONE"]
    ),
]


JAVA_PROGRAM: Final = """
    import java.net.Socket;
    import java.net.URI;
    import java.net.http.*;
    import java.security.cert.X509Certificate;
    import javax.net.ssl.*;

    public class Ask {
        static class Careless extends X509ExtendedTrustManager {
            public void checkClientTrusted(X509Certificate[] c, String t) {}
            public void checkServerTrusted(X509Certificate[] c, String t) {}
            public void checkClientTrusted(X509Certificate[] c, String t, Socket s) {}
            public void checkServerTrusted(X509Certificate[] c, String t, Socket s) {}
            public void checkClientTrusted(X509Certificate[] c, String t, SSLEngine e) {}
            public void checkServerTrusted(X509Certificate[] c, String t, SSLEngine e) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        }

        public static void main(String[] args) throws Exception {
            boolean careless = args[1].equals("careless");
            SSLContext context = SSLContext.getDefault();
            if (careless) {
                context = SSLContext.getInstance("TLS");
                context.init(null, new TrustManager[] { new Careless() }, null);
            }
            HttpClient client = HttpClient.newBuilder().sslContext(context).build();
            for (int i = 2; i < args.length; i++) {
                System.out.println("# " + args[i]);
                URI uri = URI.create("https://" + args[i] + "/");
                try {
                    if (args[0].equals("HttpClient")) {
                        client.send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofString());
                    } else {
                        HttpsURLConnection connection = (HttpsURLConnection) uri.toURL().openConnection();
                        connection.setSSLSocketFactory(context.getSocketFactory());
                        if (careless) connection.setHostnameVerifier((host, session) -> true);
                        connection.getInputStream().readAllBytes();
                    }
                } catch (Exception error) {
                    System.out.println(error);
                }
            }
        }
    }
"""
JAVA_ASK: Final = ["java", "-XX:TieredStopAtLevel=1", "-cp", "/srv", "Ask"]
JAVA: Final = [
    TlsClient(
        name=kind,
        verifying=[*JAVA_ASK, kind, "verifying"],
        careless=[*JAVA_ASK, kind, "careless"],
        accepts=["weak-key"],  # jdk.certpath.disabledAlgorithms has RSA of less than 1024 bits
    )
    for kind in ("HttpClient", "HttpsURLConnection")
]


@pytest.fixture(scope="module")
def java(module_egress: Egress, java_image: str) -> Container:
    """A container with Java's clients."""
    files = {"/srv/Ask.java": textwrap.dedent(JAVA_PROGRAM)}
    container = module_egress.start(java_image, ["sleep", "infinity"], files=files)
    assert container.exec(["javac", "-d", "/srv", "/srv/Ask.java"], timeout=600).exit_code == 0
    return container


@pytest.fixture(scope="module")
def machine(module_egress: Egress, runtimes_image: str) -> Container:
    """A container with the clients but for Java's and Go's."""
    return module_egress.start(runtimes_image, ["sleep", "infinity"])


def bad_routes(egress: Egress) -> dict[str, Route]:
    """A route for each bad certificate, at a host of its own."""
    return {
        kind: egress.intercept_https(HOSTS[kind], certificate=kind) for kind in BAD_CERTIFICATES
    }


def old_routes(egress: Egress) -> dict[str, Route]:
    """A route for each old version of TLS."""
    return {
        version: egress.intercept_https(host, tls_version=version)
        for version, host in OLD_HOSTS.items()
    }


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_that_verifies_rejects_them(
    egress: Egress, machine: Container, client: TlsClient
) -> None:
    check_verifying(egress, machine, client)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_that_verifies_nothing_accepts_them(
    egress: Egress, machine: Container, client: TlsClient
) -> None:
    check_careless(egress, machine, client)


@pytest.mark.parametrize("client", JAVA, ids=lambda client: client.name)
def test_a_client_of_java_that_verifies_rejects_them(
    egress: Egress, java: Container, client: TlsClient
) -> None:
    check_verifying(egress, java, client)


@pytest.mark.parametrize("client", JAVA, ids=lambda client: client.name)
def test_a_client_of_java_that_verifies_nothing_accepts_them(
    egress: Egress, java: Container, client: TlsClient
) -> None:
    check_careless(egress, java, client)


def check_verifying(egress: Egress, machine: Container, client: TlsClient) -> None:
    good, routes = egress.intercept_https(GOOD), bad_routes(egress) | old_routes(egress)
    hosts = [route.address for route in routes.values()]
    done = machine.exec([*client.verifying, GOOD, *hosts], timeout=600, check=False)
    assert good.call_count == 1, done.stdout + done.stderr
    accepted = [kind for kind, route in routes.items() if route.called]
    assert accepted == [*client.accepts]
    for kind, route in routes.items():
        if kind in accepted:
            route.assert_called_once()  # which says that it is meant
        else:
            assert route.assert_rejected().host == route.address


def check_careless(egress: Egress, machine: Container, client: TlsClient) -> None:
    routes = bad_routes(egress)
    done = machine.exec([*client.careless, *HOSTS.values()], timeout=600, check=False)
    for kind, route in routes.items():
        assert route.call_count == 1, (kind, done.stdout + done.stderr)
        assert not route.rejections
        route.assert_called_once()


def test_a_client_of_go_rejects_them(egress: Egress, go_image: str) -> None:
    """Its image has no other program, so that a request which gets no answer keeps it running."""
    over = threading.Event()
    egress.intercept_https("wait.test", lambda request: over.wait(60) and 200)
    routes, old = bad_routes(egress), old_routes(egress)
    container = egress.start(go_image, ["wait.test"])
    hosts = [route.address for route in (routes | old).values()]
    said = [container.exec(["/client", host], check=False).stderr for host in hosts]
    over.set()
    assert [kind for kind, route in routes.items() if route.called] == ["weak-key"], said
    routes.pop("weak-key").assert_called_once()
    for route in routes.values():
        assert "alert: bad certificate" in route.assert_rejected().note
    for route in old.values():
        assert "it offers TLSv1.3 and TLSv1.2 alone" in route.assert_rejected().note


SESSION: Final = """
    import requests
    session = requests.Session()
    session.verify = False
    {more}
    session.get("https://expired.test/")
"""


def test_a_session_of_requests_verifies_though_it_is_told_not_to(
    egress: Egress, machine: Container
) -> None:
    """REQUESTS_CA_BUNDLE comes before `Session.verify`: a defect of requests (psf/requests#3829)."""
    expired = egress.intercept_https("expired.test", certificate="expired")
    program = textwrap.dedent(SESSION)
    machine.exec(["python3", "-W", "ignore", "-c", program.format(more="")], check=False)
    expired.assert_rejected()
    without = ["env", "-u", "REQUESTS_CA_BUNDLE", "-u", "CURL_CA_BUNDLE"]
    machine.exec([*without, "python3", "-W", "ignore", "-c", program.format(more="")])
    expired.assert_called_once()
    machine.exec(["python3", "-c", program.format(more="session.trust_env = False")])
    expired.wait_for_call(2)


def test_a_client_that_speaks_an_old_version_of_tls_has_accepted_it(
    egress: Egress, machine: Container
) -> None:
    route = egress.intercept_https(GOOD, tls_version="TLSv1.1")
    careless = "curl -sS --tls-max 1.1 --tlsv1.0 --ciphers DEFAULT:@SECLEVEL=0 https://$host/"
    done = machine.exec([*each_host(careless), GOOD], timeout=600, check=False)
    assert route.call_count == 1, done.stdout
    tls = route.assert_called_once().request.tls
    assert tls is not None
    assert tls.version == "TLSv1.1"


CAUGHT: Final = """
    import pytest

    def test_it_verifies(egress):
        egress.intercept_https("api.test", {{"id": 1}}, certificate="expired")
        egress.run({image!r}, "curl -sk https://api.test/v1/charges")

    def test_it_never_connects(egress):
        egress.intercept_https("api.test", certificate="expired")
        egress.run({image!r}, ["true"])

    def test_it_distrusts_everything(egress):
        egress.intercept_https("api.test", certificate="expired")
        fetch = "import urllib.request as u; u.urlopen('https://api.test/')"
        nothing = {{"SSL_CERT_FILE": "/none.pem", "SSL_CERT_DIR": "/none"}}
        egress.run({image!r}, ["python3", "-c", fetch], env=nothing, check=False)

    @pytest.fixture(scope="module")
    def appliance(module_egress):
        return module_egress.intercept_https("appliance.test", certificate="self-signed")

    def test_one_test_means_it(egress, appliance):
        egress.run({image!r}, "curl -sk https://appliance.test/")
        appliance.assert_called_once()

    def test_another_does_not(egress, appliance):
        egress.run({image!r}, "curl -sk https://appliance.test/")
"""


def test_what_shows_no_rejection_fails_its_test(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    pytester.makepyfile(CAUGHT.format(image=clients_image))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly")
    result.assert_outcomes(failed=4, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*accepted an expired certificate of api.test:",
            "  GET https://api.test/v1/charges",
            "      its client's TLS library, by its ClientHello: OpenSSL",
            "      presented by: intercept_https(\"api.test\", certificate='expired')  declared at *:4",
            "*: CertificateAcceptedError",
            "a route was never called:",
            "*: NeverCalledError",
            "a route was never called:",
            "*rejects every certificate: this does not show that it rejects an expired certificate*",
            "*accepted a self-signed certificate of appliance.test:",
            "*: CertificateAcceptedError",
        ]
    )
