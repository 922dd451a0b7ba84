"""The formats on the wire, as values and as bytes: addresses, TLS hellos, DNS, HTTP and packets.

The rule: no socket, no clock, no thread. A parser returns a value, or None where it needs more bytes, or raises one
error of ours where they are malformed. Every module is a door.

* `cassettes`: recorded exchanges as values, and as the text of a file.
* `http`: requests and responses as values, their heads, and the bytes of both versions.
* `dns`: queries, and the answers to them.
* `search`: where something is in all that a target has sent.
* `tls`: what the first message of a client says, over TCP and in QUIC.
* `absent`: the error of a name that a message does not have.
* `address`: a host with a port, and what each kind of route accepts as one.
* `datagrams`: datagrams of UDP as frames, and the frames of their answers.
* `entries`: the entries of the ledger, one class for each kind of attempt.
* `grpc`: gRPC over HTTP/2: messages, metadata, deadlines and status.
* `kafka`: Kafka's protocol as a broker speaks it.
* `notes`: what is kept of attempts while a report asks for it: times, connections, messages.
* `ntp`: NTP as a server speaks it.
* `packets`: the packets that the kernel rejected and reported.
* `parts`: parts of a datagram that are calls of their own.
* `redaction`: masks secrets in texts that are shown.
* `websocket`: the handshake of a WebSocket, and its frames, by wsproto.
* `shown`: how values, hosts and URLs are shown in messages.
* `smtp`: SMTP as a server speaks it.
* `statsd`: metrics of StatsD and DogStatsD.
* `strict_json`: a text of JSON that every reader reads alike.
* `syslog`: messages of syslog, by RFC 5424 and RFC 3164.
"""
