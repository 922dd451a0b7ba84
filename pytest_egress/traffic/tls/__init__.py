"""TLS: what the first message of a client says, over TCP and in QUIC.

* `asked`: what a client sends in the clear to ask for TLS.
* `clients`: which TLS library a client uses, by its first message.
* `dtls`: tells flows of DTLS and of QUIC from those in the clear.
* `hello`: the first message of a TLS client.
* `quic`: tells the datagram by which QUIC begins.
"""
