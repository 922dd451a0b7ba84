"""The server in this process: it accepts what a link brings, and gives every attempt an answer.

The rule: what no route claims gets no further. This room never imports docker. Doors: `authority`, `server`.

* `answering`: from a request to its response and its entry, without a client's socket or a version of HTTP.
* `attempt`: one attempt on its way to an answer.
* `authority`: leaf certificates by name.
* `calls`: runs a handler.
* `connection`: one accepted connection: its thread, its socket, its window.
* `connections`: those that are open, their limit, and which of them is closed when it is reached.
* `destination`: what a client dialled, as far as it is known.
* `dispatch`: what kind of traffic a connection carries, by its first bytes.
* `http1_server`: reads requests of HTTP/1.1 and sends responses.
* `loops`: the event loop of an async handler.
* `names`: the answers to DNS questions, and which name has which address.
* `raw_server`: connections whose bytes a handler reads itself.
* `reach`: which addresses an upstream may have.
* `recorder`: decides, records and counts the outcome of an attempt.
* `server`: the reader thread of a target, and what its parts share.
* `site`: what a connection may know of its target.
* `tcp_info`: whether a connection has carried a byte, as the kernel counts.
* `tls`: the server's side of a TLS handshake.
* `tls_failures`: why a handshake failed, and what to do about it.
* `upstream`: an exchange with a real server.
* `upstreams`: which real server is meant, and whether it may be reached.
"""
