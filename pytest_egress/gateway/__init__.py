"""The gateway: the server in the test process that accepts a target's traffic from a link and answers every attempt.

The rule: an attempt that no route claims is not answered from outside. This room never imports docker. Doors:
`tls.authority`, `raw.sockets`, `server`.

* `http`: how a request is decided and answered, whatever its version.
* `http1`: a connection of HTTP/1.1.
* `http2`: a connection of HTTP/2.
* `http3`: connections of QUIC, and of HTTP/3 on them.
* `tls`: certificates, handshakes, and why one has failed.
* `dns`: answers to queries, and which name an address was given out for.
* `raw`: connections of bytes, served by a raw handler, by a static answer, or by a relay to another server.
* `upstream`: which real server is meant, whether it may be reached, and an exchange with it.
* `attempt`: one attempt, with all that its entry needs.
* `handlers`: calls a handler.
* `dials`: which dials of its target the kernel refuses or drops, and the record of those.
* `connection`: one accepted connection: its thread, its socket, its window.
* `connections`: the open connections of a target, their limit, and which one is cut when the limit is reached.
* `datagram_rules`: which datagrams of its target the kernel lets out.
* `datagrams`: reads those, answers them, and records them by flow.
* `destination`: what a connection is for: address, port, name, SNI, TLS.
* `dispatch`: finds out by a connection's first bytes what it carries, and passes it to the server for that.
* `kernel_rules`: how the kernel of a target gets rules, and which are in force.
* `lasting`: a call that may outlive its test, as a WebSocket does.
* `packets`: the packets that no socket takes: recorded, judged, and counted where they are missing.
* `patience`: how long a client may stop within a head or a body.
* `proxying`: where the requests of a connection to a declared proxy lead.
* `recorder`: decides, records and counts the outcome of an attempt.
* `server`: the gateway of one target, and its reader thread.
* `site`: what the gateway knows of its target.
* `tcp_info`: what a connection has carried, by the kernel's counters.
"""
