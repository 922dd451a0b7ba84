"""The least that answers HTTPS in Python: `ssl`, h11, and a thread for each connection.

It routes nothing, records nothing and ends for nobody; what a gateway costs beyond it is what it does.

usage: bare_server.py PORT CERTIFICATE_CHAIN_AND_KEY
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading

import h11

BODY = b'{"ok": true}'
HEADERS = [("content-type", "application/json"), ("content-length", str(len(BODY)))]


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(context, sock), daemon=True).start()


def serve(context: ssl.SSLContext, sock: socket.socket) -> None:
    with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as connection:
        http = h11.Connection(h11.SERVER)
        while answer_next(http, connection):
            http.start_next_cycle()


def answer_next(http: h11.Connection, connection: ssl.SSLSocket) -> bool:
    """Read a request to its end and answer it; False at the end of the connection."""
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            http.receive_data(connection.recv(65536))
        elif isinstance(event, h11.ConnectionClosed):
            return False
    parts = [
        http.send(h11.Response(status_code=200, headers=HEADERS)),
        http.send(h11.Data(data=BODY)),
        http.send(h11.EndOfMessage()),
    ]
    connection.sendall(b"".join(filter(None, parts)))
    return True


if __name__ == "__main__":
    main()
