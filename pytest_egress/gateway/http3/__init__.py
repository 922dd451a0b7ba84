"""HTTP/3: connections of QUIC, whose requests are answered as those of HTTP/2.

* `endpoint`: to which connection a datagram belongs.
* `handshake`: makes the handshake of a connection, and explains one that fails.
* `server`: reads the requests of an HTTP/3 connection, as that of HTTP/2 does.
* `sockets`: what a connection reads and sends its datagrams by.
"""
