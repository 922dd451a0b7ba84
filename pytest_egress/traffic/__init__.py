"""The formats on the wire, as values and as bytes: addresses, TLS hellos, DNS, HTTP and packets.

The rule: no socket, no clock, no thread. A parser returns a value, or None where it needs more bytes, or raises one
error of ours where they are malformed. Every module is a door.

* `address`: a host with a port, and what each kind of route accepts as one.
* `clienthello`: the first message of a TLS client.
* `content_coding`: compressed bodies: gzip, deflate, br, zstd.
* `dns`: DNS queries and their answers, with synthetic addresses.
* `dns_answers`: the answer of a DNS route.
* `dns_records`: the records of other types that a DNS route declares.
* `entries`: the entries of the ledger, one class for each kind of attempt.
* `events`: server-sent events.
* `fields`: the head of an HTTP message: its fields, its authority, and the limits that hold for every version.
* `heads`: the strict look at the head of a request, of HTTP/1.1 before h11 reads it, and of HTTP/2 after h2 has.
* `forms`: forms, files and cookies.
* `grpc`: gRPC over HTTP/2: messages, metadata, deadlines and status.
* `http1`: HTTP/1.1, by h11.
* `http1_plain`: requests of HTTP/1.1 that need no h11, and the answers to them.
* `http2`: HTTP/2, by h2, and the limits that h2 does not have.
* `http2_ends`: finds what a client sends on a stream that it has ended.
* `http2_errors`: what h2 finds wrong, in words.
* `http2_frames`: cuts the bytes of HTTP/2 into frames.
* `made_body`: the body of a streamed response, kept while it is sent.
* `messages`: `Request`, `Response`, `Headers`.
* `packets`: the packets that the kernel rejected and reported.
* `quic`: tells the datagram by which QUIC begins.
* `redaction`: masks secrets in texts that are shown.
* `searchlist`: finds the DNS queries that a resolver's search list made.
* `websocket`: the handshake of a WebSocket, and its frames, by wsproto.
* `smtp`: SMTP as a server speaks it.
"""
