"""TLS: what the first message of a client says, over TCP and in QUIC.

* `hello`: the first message of a TLS client.
* `quic`: tells the datagram by which QUIC begins.
"""
