"""SDKs of PyPI and npm in a real container, as their users install them, that are told of no CA and verify."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pytest

from pytest_egress import Egress, Response
from pytest_egress.targets.handle import Container
from pytest_egress.targets.results import CompletedContainer
from pytest_egress.targets.trust.runtimes import VARIABLES
from pytest_egress.traffic.entries import TlsFailure
from tests.support.project import ROOT

pytestmark = pytest.mark.runtimes

OWN_FILE: Final = "a file of its own"
CERTIFI: Final = "the file of certifi"
NOT_THERE: Final = "/not/there.pem"
MARK: Final = "from-the-test"
# As its vendor builds it: Debian's reads the image's bundle too.
NODE: Final = {"NODE_OPTIONS": "--use-bundled-ca"}
AWS: Final = {
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, kw_only=True)
class Sdk:
    """One row.

    Attributes:
        name: As its registry has it.
        by: What leads it to the CA: a variable, or a file that is extended.
        code: One call, which prints `says`.
        cleared: Whether it trusts the CA without its environment too.
    """

    name: str
    by: str
    code: str
    host: str
    answer: Any = field(default_factory=lambda: {"id": MARK})
    says: str = MARK
    language: Literal["python", "node"] = "python"
    env: Mapping[str, str] = field(default_factory=dict)
    cleared: bool = True

    def command(self) -> list[str]:
        """What runs it."""
        code = textwrap.dedent(self.code)
        if self.language == "python":
            return ["python3", "-c", code]
        return ["node", "--input-type=module", "-e", code]

    def variables(self) -> dict[str, str]:
        """What it needs for itself."""
        return {**self.env, **(NODE if self.language == "node" else {})}


def xml(name: str, inner: str) -> Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{name}>{inner}</{name}>'
    return Response(text=text, headers={"Content-Type": "application/xml"})


CUSTOMER: Final = xml("customer", f"<id>{MARK}</id>")
BUCKET: Final = xml(
    "ListBucketResult",
    f"<Name>b</Name><KeyCount>1</KeyCount><Contents><Key>{MARK}</Key><Size>1</Size></Contents>",
)
BLOB: Final = Response(
    206,
    text=MARK,
    headers={
        "Content-Range": f"bytes 0-{len(MARK) - 1}/{len(MARK)}",
        "ETag": '"1"',
        "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT",
        "x-ms-blob-type": "BlockBlob",
    },
)
OBJECT: Final = Response(
    text=MARK, headers={"Content-Type": "text/plain", "X-Goog-Generation": "1"}
)
ELASTIC: Final = Response(
    json={"name": MARK, "version": {"number": "9.0.0"}},
    headers={"X-Elastic-Product": "Elasticsearch"},
)
MESSAGE: Final = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": MARK}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
MODELS: Final = {
    "object": "list",
    "data": [{"id": MARK, "object": "model", "created": 0, "owned_by": "us"}],
}
HITS: Final = {
    "hits": [{"objectID": MARK}],
    "query": "q",
    "params": "",
    "page": 0,
    "nbHits": 1,
    "nbPages": 1,
    "hitsPerPage": 1,
    "processingTimeMS": 1,
}

PYTHON: Final = [
    Sdk(
        name="aiohttp",
        by="SSL_CERT_FILE",
        host="api.example.test",
        code="""
            import aiohttp, asyncio
            async def main():
                async with aiohttp.ClientSession() as session:
                    print(await (await session.get("https://api.example.test/")).text())
            asyncio.run(main())
        """,
    ),
    Sdk(
        name="algoliasearch",
        by=CERTIFI,
        host="app-dsn.algolia.net",
        answer=HITS,
        code="""
            from algoliasearch.search.client import SearchClientSync
            found = SearchClientSync("app", "key").search_single_index("i", {"query": "q"})
            print(found.hits[0].object_id)
        """,
    ),
    Sdk(
        name="anthropic",
        by="SSL_CERT_FILE",
        host="api.anthropic.com",
        answer=MESSAGE,
        code="""
            import anthropic
            client = anthropic.Anthropic(api_key="k", max_retries=0)
            messages = [{"role": "user", "content": "hello"}]
            print(client.messages.create(model="m", max_tokens=9, messages=messages).content[0].text)
        """,
    ),
    Sdk(
        name="azure-storage-blob",
        by="REQUESTS_CA_BUNDLE",
        host="account.blob.core.windows.net",
        answer=BLOB,
        code="""
            from azure.storage.blob import BlobClient
            blob = BlobClient.from_blob_url("https://account.blob.core.windows.net/c/b", retry_total=0)
            print(blob.download_blob().readall().decode())
        """,
    ),
    Sdk(
        name="boto3",
        by="AWS_CA_BUNDLE",
        host="things.s3.amazonaws.com",
        answer=BUCKET,
        env=AWS,
        code="""
            import boto3
            print(boto3.client("s3").list_objects_v2(Bucket="things")["Contents"][0]["Key"])
        """,
    ),
    Sdk(
        name="braintree",
        by=OWN_FILE,
        host="api.braintreegateway.com",
        answer=CUSTOMER,
        code="""
            import braintree
            gateway = braintree.BraintreeGateway(braintree.Configuration(
                environment=braintree.Environment.Production,
                merchant_id="m", public_key="p", private_key="k"))
            print(gateway.customer.find("c").id)
        """,
    ),
    Sdk(
        name="dropbox",
        by="REQUESTS_CA_BUNDLE",
        host="api.dropboxapi.com",
        answer={"result": MARK},
        code="""
            import dropbox
            print(dropbox.Dropbox("token").check_user("q").result)
        """,
    ),
    Sdk(
        name="duo_client",
        by=OWN_FILE,
        host="api-1.duosecurity.com",
        answer={"stat": "OK", "response": {"time": MARK}},
        code="""
            import duo_client
            print(duo_client.Auth("i" * 20, "s" * 40, "api-1.duosecurity.com").ping()["time"])
        """,
    ),
    Sdk(
        name="elasticsearch",
        by=CERTIFI,
        host="elastic.example.test",
        answer=ELASTIC,
        code="""
            from elasticsearch import Elasticsearch
            print(Elasticsearch("https://elastic.example.test:443", max_retries=0).info()["name"])
        """,
    ),
    Sdk(
        name="google-api-python-client",
        by="HTTPLIB2_CA_CERTS",
        host="www.googleapis.com",
        answer={"files": [{"id": MARK}]},
        code="""
            from googleapiclient.discovery import build
            print(build("drive", "v3", developerKey="k").files().list().execute()["files"][0]["id"])
        """,
    ),
    Sdk(
        name="google-cloud-storage",
        by="REQUESTS_CA_BUNDLE",
        host="storage.googleapis.com",
        answer=OBJECT,
        code="""
            from google.cloud import storage
            client = storage.Client.create_anonymous_client()
            print(client.bucket("b").blob("o").download_as_bytes(checksum=None).decode())
        """,
    ),
    Sdk(
        name="httplib2",
        by="HTTPLIB2_CA_CERTS",
        host="api.example.test",
        code="""
            import httplib2
            print(httplib2.Http().request("https://api.example.test/")[1].decode())
        """,
    ),
    Sdk(
        name="httpx",
        by="SSL_CERT_FILE",
        host="api.example.test",
        code="import httpx; print(httpx.get('https://api.example.test/').text)",
    ),
    Sdk(
        name="launchdarkly-server-sdk",
        by=CERTIFI,
        host="app.launchdarkly.com",
        answer={"flags": {}, "segments": {}},
        says="initialized: True",
        code="""
            import ldclient
            from ldclient.config import Config
            ldclient.set_config(Config("key", stream=False, send_events=False, poll_interval=30))
            print("initialized:", ldclient.get().is_initialized(), flush=True)
            import os; os._exit(0)
        """,
    ),
    Sdk(
        name="openai",
        by="SSL_CERT_FILE",
        host="api.openai.com",
        answer=MODELS,
        code="""
            import openai
            print(openai.OpenAI(api_key="k", max_retries=0).models.list().data[0].id)
        """,
    ),
    Sdk(
        name="opentelemetry-exporter-otlp-proto-http",
        by="REQUESTS_CA_BUNDLE",
        host="otel.example.test",
        answer=b"",
        says="SUCCESS",
        code="""
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            print(OTLPSpanExporter("https://otel.example.test/v1/traces").export([]))
        """,
    ),
    Sdk(
        name="paypalrestsdk",
        by="REQUESTS_CA_BUNDLE",
        host="api.paypal.com",
        answer={"access_token": MARK, "token_type": "Bearer", "expires_in": 9},
        code="""
            import paypalrestsdk
            api = paypalrestsdk.Api({"mode": "live", "client_id": "i", "client_secret": "s"})
            print(api.get_token_hash()["access_token"])
        """,
    ),
    Sdk(
        name="pusher",
        by=OWN_FILE,
        host="api-eu.pusher.com",
        answer={"channels": {MARK: {}}},
        code="""
            import pusher
            client = pusher.Pusher(app_id="1", key="k", secret="s", cluster="eu", ssl=True)
            print(client.channels_info())
        """,
    ),
    Sdk(
        name="PyGithub",
        by="REQUESTS_CA_BUNDLE",
        host="api.github.com",
        answer={"login": MARK, "url": "https://api.github.com/users/x"},
        code="""
            import github
            print(github.Github(retry=None).get_user("x").login)
        """,
    ),
    Sdk(
        name="razorpay",
        by=OWN_FILE,
        host="api.razorpay.com",
        answer={"items": [{"id": MARK}]},
        code="""
            import razorpay
            print(razorpay.Client(auth=("i", "s")).order.all())
        """,
    ),
    Sdk(
        name="requests",
        by="REQUESTS_CA_BUNDLE",
        host="api.example.test",
        code="import requests; print(requests.get('https://api.example.test/').text)",
    ),
    Sdk(
        name="sendgrid",
        by="SSL_CERT_FILE",
        host="api.sendgrid.com",
        answer=(202, json.dumps({"id": MARK}).encode()),
        code="""
            import sendgrid
            client = sendgrid.SendGridAPIClient("k").client
            print(client.mail.send.post(request_body={}).body.decode())
        """,
    ),
    Sdk(
        name="sentry-sdk",
        by="SSL_CERT_FILE",
        host="o1.ingest.sentry.io",
        says="flushed",
        code="""
            import sentry_sdk
            sentry_sdk.init("https://key@o1.ingest.sentry.io/1")
            sentry_sdk.capture_message("hello")
            sentry_sdk.flush(5)
            print("flushed")
        """,
    ),
    Sdk(
        name="slack_sdk",
        by="SSL_CERT_FILE",
        host="slack.com",
        answer={"ok": True, "user": MARK},
        code="import slack_sdk; print(slack_sdk.WebClient('token').auth_test()['user'])",
    ),
    Sdk(
        name="stripe",
        by=OWN_FILE,
        host="api.stripe.com",
        answer={"id": MARK, "object": "customer"},
        code="""
            import stripe
            print(stripe.StripeClient("sk_test_1").v1.customers.create().id)
        """,
    ),
    Sdk(
        name="twilio",
        by="REQUESTS_CA_BUNDLE",
        host="api.twilio.com",
        answer=(201, {"sid": MARK}),
        code="""
            from twilio.rest import Client
            print(Client("AC1", "t").messages.create(to="+1", from_="+2", body="b").sid)
        """,
    ),
    Sdk(
        name="urllib3",
        by="SSL_CERT_FILE",
        host="api.example.test",
        code="import urllib3; print(urllib3.request('GET', 'https://api.example.test/').data)",
    ),
]


def node(name: str, host: str, code: str, **more: Any) -> Sdk:
    more = {"by": "NODE_EXTRA_CA_CERTS", "cleared": False, **more}
    return Sdk(name=name, host=host, code=code, language="node", **more)


NPM: Final = [
    node(
        "@anthropic-ai/sdk",
        "api.anthropic.com",
        """
            import Anthropic from "@anthropic-ai/sdk"
            const client = new Anthropic({apiKey: "k", maxRetries: 0})
            const messages = [{role: "user", content: "hello"}]
            console.log((await client.messages.create({model: "m", max_tokens: 9, messages})).content[0].text)
        """,
        answer=MESSAGE,
    ),
    node(
        "@aws-sdk/client-s3",
        "things.s3.us-east-1.amazonaws.com",
        """
            import {S3Client, ListObjectsV2Command} from "@aws-sdk/client-s3"
            const found = await new S3Client({}).send(new ListObjectsV2Command({Bucket: "things"}))
            console.log(found.Contents[0].Key)
        """,
        answer=BUCKET,
        env=AWS,
    ),
    node(
        "@google-cloud/storage",
        "storage.googleapis.com",
        """
            import {Storage} from "@google-cloud/storage"
            const client = new Storage({apiEndpoint: "https://storage.googleapis.com", projectId: "p",
              authClient: {request: async o => fetch(o.url), getRequestHeaders: async () => ({})}})
            console.log((await client.bucket("b").file("o").download({validation: false}))[0].toString())
        """,
        answer=OBJECT,
    ),
    node(
        "@octokit/rest",
        "api.github.com",
        """
            import {Octokit} from "@octokit/rest"
            console.log((await new Octokit().users.getByUsername({username: "x"})).data.login)
        """,
        answer={"login": MARK},
    ),
    node(
        "@sendgrid/mail",
        "api.sendgrid.com",
        """
            import mail from "@sendgrid/mail"
            mail.setApiKey("SG.k")
            const [answer] = await mail.send({to: "a@b.test", from: "c@d.test", subject: "s", text: "t"})
            console.log(answer.body)
        """,
        answer=(202, {"id": MARK}),
    ),
    node(
        "@slack/web-api",
        "slack.com",
        """
            import {WebClient} from "@slack/web-api"
            console.log((await new WebClient("token", {retryConfig: {retries: 0}}).auth.test()).user)
        """,
        answer={"ok": True, "user": MARK},
    ),
    node(
        "algoliasearch",
        "app-dsn.algolia.net",
        """
            import {algoliasearch} from "algoliasearch"
            const found = await algoliasearch("app", "key").searchSingleIndex({indexName: "i"})
            console.log(found.hits[0].objectID)
        """,
        answer=HITS,
    ),
    node(
        "axios",
        "api.example.test",
        """
            import axios from "axios"
            console.log((await axios.get("https://api.example.test/")).data.id)
        """,
    ),
    node(
        "braintree",
        "api.braintreegateway.com",
        """
            import braintree from "braintree"
            const gateway = new braintree.BraintreeGateway({environment: braintree.Environment.Production,
              merchantId: "m", publicKey: "p", privateKey: "k"})
            console.log((await gateway.customer.find("c")).id)
        """,
        answer=CUSTOMER,
    ),
    node(
        "certifi",
        "api.example.test",
        """
            import fs from "fs"; import https from "https"; import certifi from "certifi"
            https.get("https://api.example.test/", {ca: fs.readFileSync(certifi)}, r => r.pipe(process.stdout))
        """,
        by=OWN_FILE,
        cleared=True,
    ),
    node(
        "got",
        "api.example.test",
        """
            import got from "got"
            console.log((await got("https://api.example.test/").json()).id)
        """,
    ),
    node(
        "node-fetch",
        "api.example.test",
        """
            import fetch from "node-fetch"
            console.log((await (await fetch("https://api.example.test/")).json()).id)
        """,
    ),
    node(
        "openai",
        "api.openai.com",
        """
            import OpenAI from "openai"
            console.log((await new OpenAI({apiKey: "k", maxRetries: 0}).models.list()).data[0].id)
        """,
        answer=MODELS,
    ),
    node(
        "stripe",
        "api.stripe.com",
        """
            import Stripe from "stripe"
            console.log((await new Stripe("sk_test_1").customers.create()).id)
        """,
        answer={"id": MARK, "object": "customer"},
    ),
    node(
        "twilio",
        "api.twilio.com",
        """
            import twilio from "twilio"
            const message = await twilio("AC1", "t").messages.create({to: "+1", from: "+2", body: "b"})
            console.log(message.sid)
        """,
        answer=(201, {"sid": MARK}),
    ),
    node(
        "undici",
        "api.example.test",
        """
            import {request} from "undici"
            console.log((await (await request("https://api.example.test/")).body.json()).id)
        """,
    ),
]
SDKS: Final = [*PYTHON, *NPM]


def ids(sdk: Sdk) -> str:
    return f"{sdk.language} {sdk.name}"


@pytest.fixture(scope="module")
def machine(module_egress: Egress, sdks_image: str) -> Container:
    """A container with all of them that waits for commands."""
    return module_egress.start(sdks_image, ["sleep", "infinity"])


def shown(result: CompletedContainer) -> str:
    """What it wrote, where it succeeded."""
    assert result.exit_code == 0, result.stdout + result.stderr
    return result.stdout


def test_the_table_of_sdks_is_that_of_the_matrix() -> None:
    folder = ROOT / "tests/images/sdks"
    lines = (folder / "requirements.txt").read_text().splitlines()
    of_pypi = dict(line.split("==") for line in lines if "==" in line)
    of_npm = json.loads((folder / "package.json").read_text())["dependencies"]
    groups: dict[tuple[str, str, str], list[str]] = {}
    for sdk in SDKS:
        registry, versions = ("npm", of_npm) if sdk.language == "node" else ("PyPI", of_pypi)
        by = sdk.by if sdk.by in (OWN_FILE, CERTIFI) else f"`{sdk.by}`"
        cleared = "trusts" if sdk.cleared else "does not"
        groups.setdefault((by, registry, cleared), []).append(f"{sdk.name} {versions[sdk.name]}")
    rows = [
        f"| {by} | {registry} | {', '.join(sdks)} | {cleared} |"
        for (by, registry, cleared), sdks in sorted(groups.items(), key=lambda group: group[0][1:])
    ]
    assert "\n".join(rows) in (ROOT / "docs/trust.md").read_text()


@pytest.mark.parametrize("sdk", SDKS, ids=ids)
def test_an_sdk_trusts_the_answer_untold(egress: Egress, machine: Container, sdk: Sdk) -> None:
    route = egress.intercept_https(sdk.host, sdk.answer)
    assert sdk.says in shown(machine.exec(sdk.command(), env=sdk.variables()))
    assert route.called
    failures = [entry for entry in egress.ledger if isinstance(entry, TlsFailure)]
    assert not [
        entry for entry in failures if entry.reason == "untrusted"
    ]  # the others are guesses


@pytest.mark.parametrize("sdk", SDKS, ids=ids)
def test_an_sdk_needs_nothing_but_what_the_table_names(
    egress: Egress, machine: Container, sdk: Sdk
) -> None:
    egress.intercept_https(sdk.host, sdk.answer)
    names = [*(variable.name for variable in VARIABLES if variable.form != "truststore")]
    others = {name: NOT_THERE for name in [*names, "SSL_CERT_DIR"] if name != sdk.by}
    if sdk.by == "SSL_CERT_FILE":
        del others["SSL_CERT_DIR"]
    env = {**others, **sdk.variables()}
    assert sdk.says in shown(machine.exec(sdk.command(), env=env))


@pytest.mark.parametrize("sdk", [each for each in SDKS if each.cleared], ids=ids)
def test_an_sdk_whose_environment_was_cleared_trusts_it_too(
    egress: Egress, machine: Container, sdk: Sdk
) -> None:
    egress.intercept_https(sdk.host, sdk.answer)
    own = {**sdk.variables(), "HOME": "/root", "PATH": "/app/.venv/bin:/usr/bin:/bin"}
    variables = [f"{name}={value}" for name, value in own.items()]
    assert sdk.says in shown(machine.exec(["env", "-i", *variables, *sdk.command()]))
