"""Services that queue their work: RabbitMQ with pika, Celery with Redis, and Google Pub/Sub.

RabbitMQ is a function of the test that speaks by pika's own frames, Redis a container, and Pub/Sub a servicer.
"""

import json
import socket
from collections.abc import Iterator

import grpc
import pika
import pika.frame
import pytest
from google.pubsub_v1 import PublishRequest, PublishResponse
from pika import spec

from pytest_egress import Container, Egress, forward, grpc_server, port_open, refuse, sequence

PIKA = """
import pika, time

for attempt in range(5):
    try:
        connection = pika.BlockingConnection(pika.ConnectionParameters("queue.internal"))
        break
    except pika.exceptions.AMQPConnectionError:
        time.sleep(0.1)
channel = connection.channel()
channel.basic_publish("", "orders", b'{"sku": "chair"}', pika.BasicProperties(delivery_mode=2))
connection.close()
"""
CELERY = """
import celery, requests

app = celery.Celery(broker="redis://queue.internal/0")

@app.task(name="invoice", autoretry_for=(requests.HTTPError,), retry_backoff=1, retry_jitter=False)
def invoice(order):
    requests.post("https://billing.test/invoices", json={"order": order}).raise_for_status()
"""
WORKER = "celery --app tasks --workdir /srv worker --pool solo --loglevel info --without-mingle"
PUBSUB = """
from google.auth.credentials import AnonymousCredentials
from google.cloud import pubsub_v1

publisher = pubsub_v1.PublisherClient(credentials=AnonymousCredentials())
print(publisher.publish("projects/shop/topics/orders", b"chair", origin="web").result(30))
"""


def frames(sock: socket.socket) -> Iterator[pika.frame.Frame]:
    """What a client of AMQP 0-9-1 sends, until it leaves."""
    received = b""
    while piece := sock.recv(65536):
        received += piece
        while (decoded := pika.frame.decode_frame(received))[0]:
            length, frame = decoded
            received = received[length:]
            yield frame


def broker(sock: socket.socket) -> Iterator[tuple[spec.BasicProperties, bytes]]:
    """RabbitMQ, as much of it as publishing needs: each message, with its properties."""
    answers = {
        pika.frame.ProtocolHeader: spec.Connection.Start(server_properties={}),
        spec.Connection.StartOk: spec.Connection.Tune(frame_max=131072),
        spec.Connection.Open: spec.Connection.OpenOk(),
        spec.Channel.Open: spec.Channel.OpenOk(),
        spec.Channel.Close: spec.Channel.CloseOk(),
        spec.Connection.Close: spec.Connection.CloseOk(),
    }
    properties = spec.BasicProperties()
    for frame in frames(sock):
        if isinstance(frame, pika.frame.Header):
            properties = frame.properties
        elif isinstance(frame, pika.frame.Body):
            yield properties, frame.fragment
        elif answer := answers.get(type(getattr(frame, "method", frame))):
            channel = getattr(frame, "channel_number", 0)
            sock.sendall(pika.frame.Method(channel, answer).marshal())


def test_an_order_is_published_to_a_broker_that_comes_up_late(egress: Egress, queues: str) -> None:
    published: list[tuple[spec.BasicProperties, bytes]] = []

    def rabbitmq(sock: socket.socket) -> None:
        published.extend(broker(sock))

    egress.intercept_tcp("queue.internal:5672", sequence(refuse(), refuse(), rabbitmq))

    egress.run(queues, ["python3", "-c", PIKA])

    ((properties, order),) = published
    assert json.loads(order) == {"sku": "chair"}
    assert properties.delivery_mode == 2  # it outlives a restart of the broker


@pytest.fixture
def redis(egress: Egress, services: str) -> Container:
    redis = egress.start(services, "redis-server --save ''", wait=port_open(6379))
    egress.intercept_tcp("queue.internal:6379", forward(redis, 6379))
    return redis


@pytest.mark.usefixtures("redis")
def test_a_task_of_celery_is_tried_again(egress: Egress, queues: str) -> None:
    billing = egress.intercept_https("billing.test", sequence(503, 201), method="POST")
    worker = egress.start(queues, WORKER, files={"/srv/tasks.py": CELERY})

    worker.exec(
        ["celery", "--workdir", "/srv", "--app", "tasks", "call", "invoice", "--args", "[7]"]
    )

    billing.wait_for_call(2, timeout=30)
    assert [call.request.json() for call in billing.calls] == [{"order": 7}] * 2
    assert billing.intervals[0] >= 0.9
    worker.stop()


def test_an_order_is_published_to_pubsub(egress: Egress, queues: str) -> None:
    def publish(request: PublishRequest, context: grpc.ServicerContext) -> PublishResponse:
        return PublishResponse(message_ids=["1"])

    method = grpc.unary_unary_rpc_method_handler(
        publish, PublishRequest.deserialize, PublishResponse.serialize
    )
    server = grpc_server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", {"Publish": method})]
    )
    pubsub = egress.intercept_https("pubsub.googleapis.com", server)

    result = egress.run(queues, ["python3", "-c", PUBSUB])

    assert result.stdout == "1\n"
    (message,) = pubsub.assert_called_once().grpc.request.messages
    assert (message.data, dict(message.attributes)) == (b"chair", {"origin": "web"})
