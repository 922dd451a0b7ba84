"""WebSockets of real clients in containers, over TLS and without: Python's, Node's, Java's and Chromium's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from pytest_egress import (
    AsyncWebSocket,
    Egress,
    Exchange,
    Response,
    WebSocket,
    asgi,
    forward,
    port_open,
    sequence,
    websocket,
)
from pytest_egress.targets.handle import Container

PYTHON = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], subprotocols=["chat"]) as ws:
    ws.send("hello")
    print(ws.recv(), ws.subprotocol)
    ws.send(b"x" * 300_000)
    print(len(ws.recv()))
    ws.send("bye")
    try:
        ws.recv()
    except Exception as error:
        print(error)
"""
NODE = """
const WebSocket = require("ws");
const ws = new WebSocket(process.argv[1], ["chat"]);
ws.on("open", () => ws.send("hello"));
ws.on("message", (data, binary) => {
  console.log(binary ? data.length : `${data} ${ws.protocol}`);
  ws.send(binary ? "bye" : Buffer.alloc(300000, "x"));
});
ws.on("close", (code, reason) => console.log(`received ${code} ${reason}`));
ws.on("error", error => console.log(error));
"""
JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.ByteBuffer;
import java.util.concurrent.*;

public class Chat implements WebSocket.Listener {
    static final CountDownLatch over = new CountDownLatch(1);
    CompletableFuture<WebSocket> sent = new CompletableFuture<>();  // a send fails while another is pending
    int size = 0;

    public static void main(String[] args) throws Exception {
        Chat chat = new Chat();
        WebSocket ws = HttpClient.newHttpClient().newWebSocketBuilder().subprotocols("chat")
            .buildAsync(URI.create(args[0]), chat).get(60, TimeUnit.SECONDS);
        chat.sent.complete(ws.sendText("hello", true).get());
        over.await(60, TimeUnit.SECONDS);
        System.exit(0);
    }

    public CompletionStage<?> onText(WebSocket ws, CharSequence data, boolean last) {
        System.out.println(data + " " + ws.getSubprotocol());
        ws.request(1);
        ByteBuffer binary = ByteBuffer.wrap("x".repeat(300000).getBytes());
        return sent = sent.thenCompose(done -> ws.sendBinary(binary, true));
    }

    public CompletionStage<?> onBinary(WebSocket ws, ByteBuffer data, boolean last) {
        size += data.remaining();
        ws.request(1);
        if (!last) return null;
        System.out.println(size);
        return sent = sent.thenCompose(done -> ws.sendText("bye", true));
    }

    public void onError(WebSocket ws, Throwable error) {
        System.out.println(error);
        over.countDown();
    }

    public CompletionStage<?> onClose(WebSocket ws, int code, String reason) {
        System.out.println("received " + code + " " + reason);
        return ws.sendClose(code, reason).thenRun(over::countDown);
    }
}
"""
CLIENTS = {
    "python": ["python3", "-c", PYTHON],
    "node": ["node", "-e", NODE],
    "java": [
        "sh",
        "-c",
        f"cat > /tmp/Chat.java <<'END'\n{JAVA}\nEND\n/usr/lib/jvm/21/bin/java /tmp/Chat.java $0",
    ],
}
HOST = "chat.example.test"


@pytest.fixture(scope="module")
def clients(module_egress: Egress, websocket_image: str, java_image: str) -> dict[str, Container]:
    """Containers that wait for commands, one for Java and one for the others."""
    usual = module_egress.start(websocket_image, ["sleep", "infinity"])
    return {
        "python": usual,
        "node": usual,
        "java": module_egress.start(java_image, ["sleep", "infinity"]),
    }


def output(container: Container, client: str, url: str) -> str:
    """What a client prints that speaks with a URL."""
    result = container.exec([*CLIENTS[client], url], timeout=600)
    assert result.exit_code == 0, result.stdout + result.stderr
    return result.stdout


def echo(ws: WebSocket) -> None:
    """Send back what comes, and close after "bye"."""
    for message in ws:
        if message == "bye":
            ws.close(4001, "bye")
        else:
            ws.send(message)


async def async_echo(ws: AsyncWebSocket) -> None:
    async for message in ws:
        if message == "bye":
            await ws.close(4001, "bye")
        else:
            await ws.send(message)


async def starlette_echo(ws: StarletteWebSocket) -> None:
    await ws.accept(subprotocol="chat")
    while True:
        message = await ws.receive()
        if message.get("text") == "bye":
            await ws.close(4001, "bye")
            return
        await ws.send({**message, "type": "websocket.send"})


APPLICATION = Starlette(routes=[WebSocketRoute("/room", starlette_echo)])


@pytest.mark.parametrize("secure", [True, False], ids=["wss", "ws"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_speaks_with_a_handler(
    egress: Egress, clients: dict[str, Container], client: str, secure: bool
) -> None:
    intercept = egress.intercept_https if secure else egress.intercept_http
    chat = intercept(HOST, websocket(echo, subprotocols=["chat"]), path="/room")
    lines = output(
        clients[client], client, f"{'wss' if secure else 'ws'}://{HOST}/room"
    ).splitlines()
    assert lines[:2] == ["hello chat", "300000"]
    assert "4001" in lines[2]
    call = chat.assert_called_once()
    assert [message.from_client for message in call.messages] == [True, False, True, False, True]
    assert call.messages[0].content == "hello"
    assert call.messages[2].content == b"x" * 300_000
    assert call.response.status_code in (101, 200)
    assert call.websocket.close_code == 4001


@pytest.mark.parametrize(
    "answer", [websocket(async_echo, ["chat"]), asgi(APPLICATION)], ids=["async", "asgi"]
)
def test_async_handlers_and_applications_speak(
    egress: Egress, clients: dict[str, Container], answer: Any
) -> None:
    egress.intercept_https(HOST, answer)
    lines = output(clients["python"], "python", f"wss://{HOST}/room").splitlines()
    assert lines[:2] == ["hello chat", "300000"]
    assert "4001" in lines[2]


LISTEN = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1]) as ws:
    for message in ws:
        print(message, flush=True)
        ws.send(f"got {message}")
print(ws.close_code, ws.close_reason, flush=True)
"""


def test_the_test_pushes(egress: Egress, websocket_image: str) -> None:
    prices = egress.intercept_https("prices.test", websocket())
    container = egress.start(websocket_image, ["python3", "-c", LISTEN, "wss://prices.test/"])
    call: Exchange = prices.wait_for_call(timeout=60)
    call.send({"EUR": 1.1})
    assert json.loads(call.websocket.recv(timeout=60).removeprefix("got ")) == {"EUR": 1.1}
    call.close(1001, "closing time")
    assert container.wait(timeout=60).stdout == '{"EUR": 1.1}\n1001 closing time\n'


def test_a_websocket_comes_after_other_answers_in_a_sequence(
    egress: Egress, clients: dict[str, Container]
) -> None:
    chat = egress.intercept_https(HOST, sequence(503, websocket(echo, subprotocols=["chat"])))
    script = "import sys; from websockets.sync.client import connect; connect(sys.argv[1])"
    refused = clients["python"].exec(["python3", "-c", script, f"wss://{HOST}/"], check=False)
    assert "server rejected WebSocket connection: HTTP 503" in refused.stderr
    assert output(clients["python"], "python", f"wss://{HOST}/").startswith("hello chat")
    assert [call.response.status_code for call in chat.calls] == [503, 101]


PAGE = """<!doctype html><script>
const ws = new WebSocket(location.origin.replace("http", "ws") + "/room", ["chat"]);
ws.onopen = () => ws.send("hello");
ws.onmessage = event => ws.send(`${event.data} ${ws.protocol}`);
ws.onclose = event => fetch(`/over?code=${event.code}&reason=${event.reason}`);
</script>"""
CHROMIUM = "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-port=0"


@pytest.mark.docker  # the image of browsers is too large for another copy of it
@pytest.mark.runtimes
@pytest.mark.egress(unrouted="block")  # what else a browser sends at its start
def test_a_page_in_chromium_speaks(egress: Egress, browsers_image: str) -> None:
    def greet(ws: WebSocket) -> None:
        assert ws.recv(timeout=60) == "hello"
        ws.send("who is there?")
        assert ws.recv(timeout=60) == "who is there? chat"
        ws.close(4001, "enough")

    page = Response(text=PAGE, headers={"Content-Type": "text/html"})
    egress.intercept_https(HOST, page, path="/")
    egress.intercept_https(HOST, 404, path="/favicon.ico", optional=True)
    over = egress.intercept_https(HOST, 204, path="/over")
    chat = egress.intercept_https(HOST, websocket(greet, ["chat"]), path="/room")
    egress.start(browsers_image, ["sh", "-c", f"{CHROMIUM} https://{HOST}/"])
    assert over.wait_for_call(timeout=120).request.query == {"code": "4001", "reason": "enough"}
    call = chat.assert_called_once()
    assert len(call.messages) == 3
    assert call.request.http_version == "2"  # on the connection that brought the page (RFC 8441)


SERVER = """
import sys
from websockets.sync.server import serve
def echo(ws):
    for message in ws:
        if message == "bye":
            ws.close(4001, "bye")
        else:
            ws.send(message)
serve(echo, "0.0.0.0", 8000, subprotocols=["chat"]).serve_forever()
"""


def test_a_websocket_is_forwarded_to_a_server_and_recorded(
    egress: Egress, clients: dict[str, Container], websocket_image: str
) -> None:
    server = egress.start(websocket_image, ["python3", "-c", SERVER], wait=port_open(8000))
    chat = egress.intercept_https(HOST, forward(server, 8000))
    lines = output(clients["python"], "python", f"wss://{HOST}/").splitlines()
    assert lines[:2] == ["hello chat", "300000"]
    assert "4001" in lines[2]
    call = chat.assert_called_once()
    assert [message.from_client for message in call.messages] == [True, False, True, False, True]
