"""What real clients send is never taken for a malformed head: bodies of every framing, odd fields, kept connections."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Final, Literal

import pytest

from pytest_egress import Egress
from pytest_egress.targets.handle import Container
from pytest_egress.traffic.entries import TcpConnection
from tests.support.clients import attempts

HOST: Final = "api.example.test"
URL: Final = f"http://{HOST}/upload"
BODY: Final = "caf\u00e9 " * 2000
"""Some 12 KB, not ASCII: enough for clients that send it after `Expect: 100-continue`."""


@dataclass(frozen=True)
class Uploader:
    """A row: a command that sends BODY, and how it frames it.

    Attributes:
        frames: "length" for Content-Length, "chunked" for Transfer-Encoding.
        times: How many requests it sends.
    """

    name: str
    command: list[str]
    frames: Literal["length", "chunked"]
    times: int = 1
    image: Literal["runtimes", "java"] = "runtimes"


def python(code: str) -> list[str]:
    start = f"URL = {URL!r}\nBODY = {BODY!r}.encode()\n"
    return ["python3", "-c", start + textwrap.dedent(code)]


def shell(script: str) -> list[str]:
    return ["sh", "-c", f"printf %s {BODY!r} > /tmp/body; {script}"]


JAVA: Final = """
import java.net.URI;
import java.net.http.*;
import java.net.http.HttpRequest.BodyPublishers;

public class Upload {
    public static void main(String[] args) throws Exception {
        byte[] body = "caf\\u00e9 ".repeat(2000).getBytes("UTF-8");
        var publisher = args[0].equals("length") ? BodyPublishers.ofByteArray(body)
            : BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(body));
        var builder = HttpRequest.newBuilder(URI.create(args[1])).POST(publisher);
        if (args.length > 2) builder.expectContinue(true);
        var client = HttpClient.newHttpClient();
        for (int i = 0; i < 2; i++)
            System.out.println(client.send(builder.build(), HttpResponse.BodyHandlers.ofString()).body());
    }
}
"""
NODE: Final = f"""
const body = Buffer.from({BODY!r}), http = require('http'), agent = new http.Agent({{keepAlive: true}});
const send = (headers) => new Promise((done) => {{
  const request = http.request({URL!r}, {{method: 'POST', agent, headers}}, (answer) => {{
    answer.resume().on('end', done);
  }});
  for (let at = 0; at < body.length; at += 1000) request.write(body.subarray(at, at + 1000));
  request.end();
}});
const headers = HEADERS;
send(headers).then(() => send(headers)).then(() => agent.destroy());
"""
FETCH: Final = f"""
const body = new ReadableStream({{start(c) {{ c.enqueue(new TextEncoder().encode({BODY!r})); c.close(); }}}});
fetch({URL!r}, {{method: 'POST', body, duplex: 'half'}}).then(r => r.text()).then(console.log);
"""
AIOHTTP: Final = """
    import aiohttp, asyncio
    async def pieces():
        for at in range(0, len(BODY), 1000):
            yield BODY[at:at + 1000]
    async def main():
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.post(URL, data=pieces(), headers={"X-Odd": "a,b;c=\\"d\\"\\t!"}) as answer:
                    await answer.read()
    asyncio.run(main())
"""
PHP: Final = f"""
$context = stream_context_create(['http' => ['method' => 'POST', 'content' => {BODY!r}]]);
echo file_get_contents('{URL}', false, $context);
"""
PHP_CURL: Final = f"""
$c = curl_init('{URL}');
curl_setopt($c, CURLOPT_POSTFIELDS, {BODY!r});
curl_setopt($c, CURLOPT_RETURNTRANSFER, true);
curl_exec($c); curl_exec($c);
"""
PERL: Final = f"""
use LWP::UserAgent; use HTTP::Request;
my $body = {BODY!r};
my $r = HTTP::Request->new(POST => '{URL}');
if ($ARGV[0] eq 'length') {{ $r->content($body) }} else {{
  $r->content(sub {{ substr($body, 0, 1000, '') }}) }}
die unless LWP::UserAgent->new->request($r)->is_success;
"""
RUBY: Final = f"""
require 'net/http'; require 'stringio'
body = {BODY!r}
Net::HTTP.start('{HOST}', 80) do |http|
  2.times do
    post = Net::HTTP::Post.new('/upload')
    if ARGV[0] == 'length' then post.body = body else
      post['Transfer-Encoding'] = 'chunked'; post.body_stream = StringIO.new(body) end
    http.request(post)
  end
end
"""
CLIENTS: Final = [
    Uploader("curl", shell(f"curl -fsS --data-binary @/tmp/body {URL} {URL}"), "length", 2),
    Uploader(
        "curl that waits",
        shell(f"curl -fsS -H 'Expect: 100-continue' -T /tmp/body {URL}"),
        "length",
    ),
    Uploader("curl in chunks", shell(f"cat /tmp/body | curl -fsS -T - {URL}"), "chunked"),
    Uploader("curl by HTTP/1.0", shell(f"curl -0 -fsS --data-binary @/tmp/body {URL}"), "length"),
    Uploader("wget", shell(f"wget -qO- --post-file=/tmp/body {URL}"), "length"),
    Uploader("urllib", python("import urllib.request as u; u.urlopen(URL, BODY).read()"), "length"),
    Uploader(
        "urllib in chunks",
        python("import urllib.request as u; u.urlopen(u.Request(URL, iter([BODY]))).read()"),
        "chunked",
    ),
    Uploader(
        "requests",
        python("import requests; s = requests.Session(); [s.post(URL, data=BODY) for _ in 'ab']"),
        "length",
        2,
    ),
    Uploader(
        "requests in chunks",
        python("import requests; requests.post(URL, data=iter([BODY[:9], BODY[9:]]))"),
        "chunked",
    ),
    Uploader(
        "httpx in chunks", python("import httpx; httpx.post(URL, content=iter([BODY]))"), "chunked"
    ),
    Uploader(
        "urllib3",
        python(
            "import urllib3; urllib3.request('PUT', URL, body=BODY, headers={'X-Odd': 'caf\\xe9'})"
        ),
        "length",
    ),
    Uploader("aiohttp in chunks", python(AIOHTTP), "chunked", 2),
    Uploader(
        "Node.js",
        ["node", "-e", NODE.replace("HEADERS", "{'Content-Length': body.length}")],
        "length",
        2,
    ),
    Uploader(
        "Node.js in chunks",
        ["node", "-e", NODE.replace("HEADERS", "{'X-Odd': 'caf\\xe9'}")],
        "chunked",
        2,
    ),
    Uploader("Node.js fetch", ["node", "-e", FETCH], "chunked"),
    Uploader("PHP", ["php", "-r", PHP], "length"),
    Uploader("PHP curl", ["php", "-r", PHP_CURL], "length", 2),
    Uploader("Perl LWP", ["perl", "-e", PERL, "length"], "length"),
    Uploader("Perl LWP in chunks", ["perl", "-e", PERL, "chunked"], "chunked"),
    Uploader("Ruby", ["ruby", "-e", RUBY, "length"], "length", 2),
    Uploader("Ruby in chunks", ["ruby", "-e", RUBY, "chunked"], "chunked", 2),
    Uploader(
        "Java", ["/usr/lib/jvm/21/bin/java", "/srv/Upload.java", "length", URL], "length", 2, "java"
    ),
    Uploader(
        "Java in chunks",
        ["/usr/lib/jvm/21/bin/java", "/srv/Upload.java", "chunked", URL],
        "chunked",
        2,
        "java",
    ),
    Uploader(
        "Java that waits",
        ["/usr/lib/jvm/21/bin/java", "/srv/Upload.java", "chunked", URL, "expect"],
        "chunked",
        2,
        "java",
    ),
]


@pytest.fixture(scope="module")
def machine(module_egress: Egress, runtimes_image: str) -> Container:
    """A container with all clients but Java's that waits for commands."""
    return module_egress.start(runtimes_image, ["sleep", "infinity"])


@pytest.fixture(scope="module")
def java_machine(module_egress: Egress, java_image: str) -> Container:
    """A container with a JDK that waits for commands."""
    files = {"/srv/Upload.java": JAVA.encode()}
    return module_egress.start(java_image, ["sleep", "infinity"], files=files)


@pytest.mark.runtimes
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_bodies_of_a_client_are_read_as_it_frames_them(
    egress: Egress, request: pytest.FixtureRequest, client: Uploader
) -> None:
    name = "java_machine" if client.image == "java" else "machine"
    machine: Container = request.getfixturevalue(name)
    route = egress.intercept_http(HOST, b"ok", path="/upload")
    done = machine.exec(client.command, env={"LANG": "C.UTF-8"}, timeout=600)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert [call.request.content for call in route.calls] == [BODY.encode()] * client.times
    framing = {"length": "content-length", "chunked": "transfer-encoding"}[client.frames]
    assert all(framing in call.request.headers for call in route.calls)
    assert not attempts(egress, TcpConnection)
