"""Bodies of real clients: compressed in either direction, forms with files, cookies."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_egress import Egress, Request, Response
from pytest_egress.targets.handle import Container
from tests.support.clients import python
from tests.support.upstreams import succeed

URL = "https://api.test/things"
BODY = {"amount": 4200, "text": "\u00fc" * 3000}
CODINGS = ["gzip", "deflate", "br", "zstd"]


@pytest.fixture(scope="module")
def client(module_egress: Egress, bodies_image: str) -> Container:
    """A container that waits for commands; each test answers them with routes of its own."""
    return module_egress.start(bodies_image, ["sleep", "infinity"])


@pytest.fixture(scope="module")
def java(module_egress: Egress, java_image: str) -> Container:
    """The same with Java, which runs a source file."""
    return module_egress.start(java_image, ["sleep", "infinity"], files={"/srv/Gzip.java": GZIP})


GZIP = """
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.*;
import java.util.zip.*;

public class Gzip {
    public static void main(String[] args) throws Exception {
        var packed = new ByteArrayOutputStream();
        try (var out = new GZIPOutputStream(packed)) { out.write(args[1].getBytes("UTF-8")); }
        var request = HttpRequest.newBuilder(URI.create(args[0]))
            .header("Content-Encoding", "gzip").header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofByteArray(packed.toByteArray())).build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofInputStream());
        var coding = answer.headers().firstValue("Content-Encoding").orElse("");
        var body = coding.equals("gzip") ? new GZIPInputStream(answer.body()) : answer.body();
        System.out.println(new String(body.readAllBytes(), "UTF-8"));
    }
}
"""

# Compressed requests.

PACK = """
import gzip, json, sys, zlib, brotli, zstandard
url, body, coding = sys.argv[1:4]
pack = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}
pack["zstd"] = zstandard.ZstdCompressor().compress
data = pack[coding](body.encode())
headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
"""
REQUESTS = PACK + "import requests; print(requests.post(url, data=data, headers=headers).text)"
HTTPX = PACK + "import httpx; print(httpx.post(url, content=iter([data]), headers=headers).text)"
NODE = """
const zlib = require("zlib"), [url, body, coding] = process.argv.slice(1);
const pack = {gzip: zlib.gzipSync, deflate: zlib.deflateRawSync, br: zlib.brotliCompressSync};
const headers = {"Content-Encoding": coding, "Content-Type": "application/json"};
fetch(url, {method: "POST", body: pack[coding](body), headers})
  .then(answer => answer.text()).then(text => console.log(text));
"""
CURL = 'printf %s "$1" | gzip | curl -fsS --data-binary @- -H "Content-Encoding: $2" "$0"'
SENDERS = {
    **{f"requests {coding}": (["python3", "-c", REQUESTS], coding) for coding in CODINGS},
    **{f"httpx {coding}": (["python3", "-c", HTTPX], coding) for coding in CODINGS},
    **{f"node {coding}": (["node", "-e", NODE], coding) for coding in CODINGS[:3]},
    "curl gzip": (["sh", "-c", CURL], "gzip"),
}


@pytest.mark.parametrize(("command", "coding"), SENDERS.values(), ids=SENDERS.keys())
def test_a_compressed_request_is_decoded_for_matchers_and_tests(
    egress: Egress, client: Container, command: list[str], coding: str
) -> None:
    route = egress.intercept_https("api.test", {"id": 1}, json=BODY)
    body = json.dumps(BODY)
    assert succeed(client.exec([*command, URL, body, coding])) == '{"id": 1}'
    request = route.assert_called_once().request
    assert (request.text, request.json()) == (body, BODY)
    assert 0 < len(request.raw_content) < len(request.content) == len(body)
    assert request.headers["content-encoding"] == coding


def test_java_compresses_and_decodes(egress: Egress, java: Container) -> None:
    @egress.intercept_https("api.test", json=BODY)
    def answer(request: Request) -> Response:
        return Response(json=request.json(), compress="gzip")

    command = ["/usr/lib/jvm/21/bin/java", "/srv/Gzip.java", URL, json.dumps(BODY)]
    assert json.loads(succeed(java.exec(command, timeout=600))) == BODY
    answer.assert_called_once()


PUT = """
import boto3
s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
s3.put_object(Bucket="books", Key="a.json", Body=b'{"amount": 4200}')
"""


def test_what_boto_puts_into_a_bucket_is_read_without_its_chunks(
    egress: Egress, runtimes_image: str
) -> None:
    put = egress.intercept_https("books.s3.amazonaws.com", method="PUT", json={"amount": 4200})
    egress.run(runtimes_image, ["python3", "-c", PUT])
    request = put.assert_called_once().request
    assert request.headers["content-encoding"] == "aws-chunked"
    assert request.raw_content.startswith(b"10\r\n")


def test_what_is_not_what_it_says_is_told_to_the_test_and_not_to_the_container(
    egress: Egress, client: Container
) -> None:
    @egress.intercept_https("api.test")
    def answer(request: Request) -> Response:
        with pytest.raises(ValueError, match="content coding gzip, and is no gzip") as raised:
            request.json()
        return Response(422, text=str(raised.value))

    send = ["curl", "-sS", "-H", "Content-Encoding: gzip", "--data-binary", "no gzip", URL]
    assert "is no gzip" in succeed(client.exec(send))
    assert answer.assert_called_once().request.raw_content == b"no gzip"


# Compressed responses.

FETCH = "fetch(process.argv[1]).then(answer => answer.text()).then(text => console.log(text))"
READERS: dict[str, tuple[list[str], Any]] = {
    **{f"curl {coding}": (["curl", "-fsS", "--compressed"], coding) for coding in CODINGS},
    **{
        f"{name} {coding}": (
            ["python3", "-c", f"import {name}, sys; print({name}.get(sys.argv[1]).text)"],
            coding,
        )
        for name in ("requests", "httpx")
        for coding in CODINGS
    },
    **{f"node {coding}": (["node", "-e", FETCH], coding) for coding in CODINGS[:3]},
}


@pytest.mark.parametrize(("command", "coding"), READERS.values(), ids=READERS.keys())
def test_a_compressed_response_is_decoded_by_its_client(
    egress: Egress, client: Container, command: list[str], coding: Any
) -> None:
    route = egress.intercept_https("api.test", Response(json=BODY, compress=coding))
    assert json.loads(succeed(client.exec([*command, URL]))) == BODY
    call = route.assert_called_once()
    assert coding in call.request.headers["accept-encoding"]
    assert call.response.json() == BODY


def test_go_decodes_gzip(egress: Egress, go_image: str) -> None:
    egress.intercept_https("api.test", Response(json=BODY, compress="gzip"))
    result = egress.run(go_image, ["api.test"])
    assert json.loads(result.stdout) == BODY


def test_a_client_that_does_not_ask_for_it_gets_it_too(egress: Egress, client: Container) -> None:
    # `compress=` is there to show what a container makes of such an answer.
    egress.intercept_https("api.test", Response(text="packed", compress="gzip"))
    read = ["sh", "-c", f"curl -fsS {URL} | od -An -tx1 -v | tr -d ' \\n'"]
    assert gzip.decompress(bytes.fromhex(succeed(client.exec(read)))) == b"packed"


def test_the_head_of_a_compressed_response_has_its_length(
    egress: Egress, client: Container
) -> None:
    egress.intercept_https("api.test", Response(json=BODY, compress="gzip"))
    head = succeed(client.exec(["curl", "-fsSI", URL])).lower().splitlines()
    body = succeed(client.exec(["sh", "-c", f"curl -fsS {URL} | wc -c"]))
    assert {"content-encoding: gzip", f"content-length: {body}"} <= {*head}


STREAM = """
import httpx, sys
with httpx.stream("GET", sys.argv[1], timeout=60) as answer:
    for text in filter(None, answer.iter_text()):
        print(text, flush=True)
        httpx.get(sys.argv[1] + "/read")
"""


@pytest.mark.parametrize("coding", CODINGS)
def test_each_piece_of_a_compressed_stream_is_read_before_the_next_is_made(
    egress: Egress, client: Container, coding: Any
) -> None:
    read = threading.Semaphore(0)

    @egress.intercept_https("api.test", path="/things/read")
    def acknowledge(request: Request) -> None:
        read.release()

    def pieces() -> Iterator[str]:
        for word in ("one", "two", "three"):
            yield word
            assert read.acquire(timeout=60)

    @egress.intercept_https("api.test", path="/things")
    def stream(request: Request) -> Response:
        return Response(stream=pieces(), compress=coding)

    assert python(client, STREAM, URL).split() == ["one", "two", "three"]
    assert acknowledge.call_count == 3


# Forms.

CURL_FORM = r"""
printf one > '/tmp/o"ne.txt'; printf '\000\001' > /tmp/two
curl -fsS -b 'sid="a b"; theme=dark' -F a=1 -F a=2 -F "text=$(printf '\303\274')" \
  -F 'doc=@/tmp/o"ne.txt;type=text/plain' -F 'doc=@/tmp/two;type=x/y' "$0"
"""
REQUESTS_FORM = r"""
import requests, sys
files = [("doc", ('o"ne.txt', b"one", "text/plain")), ("doc", ("two", b"\0\1", "x/y"))]
data = [("a", "1"), ("a", "2"), ("text", "\u00fc")]
cookies = {"sid": '"a b"', "theme": "dark"}
requests.post(sys.argv[1], files=files, data=data, cookies=cookies).raise_for_status()
"""
HTTPX_FORM = r"""
import httpx, sys
files = [("doc", ('o"ne.txt', b"one", "text/plain")), ("doc", ("two", b"\0\1", "x/y"))]
data = {"a": ["1", "2"], "text": "\u00fc"}
with httpx.Client(cookies={"sid": '"a b"', "theme": "dark"}) as client:
    client.post(sys.argv[1], files=files, data=data).raise_for_status()
"""
NODE_FORM = r"""
const form = new FormData();
for (const [name, value] of [["a", "1"], ["a", "2"], ["text", "\u00fc"]]) form.append(name, value);
form.append("doc", new Blob(["one"], {type: "text/plain"}), 'o"ne.txt');
form.append("doc", new Blob([new Uint8Array([0, 1])], {type: "x/y"}), "two");
fetch(process.argv[1], {method: "POST", body: form, headers: {cookie: 'sid="a b"; theme=dark'}})
  .then(answer => { process.exitCode = answer.ok ? 0 : 1; });
"""
FORMS = {
    "curl": ["sh", "-c", CURL_FORM],
    "requests": ["python3", "-c", REQUESTS_FORM],
    "httpx": ["python3", "-c", HTTPX_FORM],
    "node": ["node", "-e", NODE_FORM],
}


@pytest.mark.parametrize("command", FORMS.values(), ids=FORMS.keys())
def test_a_form_with_files_and_cookies_is_what_its_client_says(
    egress: Egress, client: Container, command: list[str]
) -> None:
    route = egress.intercept_https("api.test")
    succeed(client.exec([*command, URL]))
    request = route.assert_called_once().request
    assert request.form == {"a": "2", "text": "\u00fc"}
    assert request.form.get_all("a") == ["1", "2"]
    assert request.cookies == {"sid": "a b", "theme": "dark"}
    found = [(f.filename, f.content_type, f.content) for f in request.files.get_all("doc")]
    assert found == [('o"ne.txt', "text/plain", b"one"), ("two", "x/y", b"\0\1")]
