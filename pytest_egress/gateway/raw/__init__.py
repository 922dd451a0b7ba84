"""Bytes: connections that are served by a raw handler, by a static answer, or by a relay to another server.

* `between`: copies a connection between two containers of one network.
* `ends`: which errors of a raw handler came from the end of its client's connection.
* `faults`: what the faults of a raw route make of one connection.
* `hearing`: keeps what a raw handler reads.
* `server`: serves a connection as bytes: by a raw handler, a static answer, or a relay to another server.
* `sockets`: the sockets that raw handlers get.
* `starttls`: the handshake that a raw handler asks for in mid-connection.
"""
