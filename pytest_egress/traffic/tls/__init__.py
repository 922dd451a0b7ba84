"""TLS: what the first message of a client says, over TCP and in QUIC.

* `clients`: which TLS library a client uses, by its first message.
* `hello`: the first message of a TLS client.
* `quic`: tells the datagram by which QUIC begins.
"""
