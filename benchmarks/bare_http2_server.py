"""The least that answers HTTP/2 over TLS in Python: `ssl`, h2, and a thread for each connection that answers in place.

It routes nothing, records nothing, and no request may wait for another; what a gateway costs beyond it is what it does.

usage: bare_http2_server.py PORT CERTIFICATE_CHAIN_AND_KEY
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading

import h2.config
import h2.connection
import h2.events

BODY = b'{"ok": true}'
HEADERS = [
    (":status", "200"),
    ("content-type", "application/json"),
    ("content-length", str(len(BODY))),
]


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    context.num_tickets = 0
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(context, sock), daemon=True).start()


def serve(context: ssl.SSLContext, sock: socket.socket) -> None:
    with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as connection:
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http.initiate_connection()
        connection.sendall(http.data_to_send())
        while data := connection.recv(65536):
            for event in http.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    assert event.stream_id is not None
                    http.send_headers(event.stream_id, HEADERS)
                    http.send_data(event.stream_id, BODY, end_stream=True)
            connection.sendall(http.data_to_send())


if __name__ == "__main__":
    main()
