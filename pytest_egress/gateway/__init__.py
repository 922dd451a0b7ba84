"""The gateway: the server in the test process that accepts a target's traffic from a link and answers every attempt.

The rule: an attempt that no route claims is not answered from outside. This room never imports docker. Doors:
`authority`, `raw_socket`, `server`.

* `answering`: turns a request into its response and its entry, without a client socket and for any version of HTTP.
* `attempt`: one attempt, with all that its entry needs.
* `authority`: the CA, and the TLS context with the leaf certificate for each name.
* `calling`: an answer that returns a response, as the gateway sees it.
* `calls`: calls a handler.
* `bodies`: the body of a request, read once.
* `connect_faults`: which dials of its target the kernel refuses or drops, and the record of those.
* `connection`: one accepted connection: its thread, its socket, its window.
* `connections`: the open connections of a target, their limit, and which one is cut when the limit is reached.
* `conversation`: an answer that reads and sends by itself, as the gateway sees it.
* `destination`: what a connection is for: address, port, name, SNI, TLS.
* `dispatch`: finds out by a connection's first bytes what it carries, and passes it to the server for that.
* `forwarding`: sends one request to real servers.
* `http1_duplex`: both directions of one HTTP/1.1 request.
* `http1_server`: reads HTTP/1.1 requests.
* `http2_batches`: has one worker serve all requests of HTTP/2 that one read has brought.
* `http2_server`: reads the requests of an HTTP/2 connection, many at once.
* `http2_stream`: one request of HTTP/2 and the way back to its client.
* `http2_wire`: the socket of a connection on which many threads send.
* `incoming`: a request whose head has been read, and what was decided about it.
* `late_answers`: the answers of DNS that are sent later.
* `late_heads`: the head of a response, sent alone where its body is late.
* `lasting`: a call that may outlive its test, as a WebSocket does.
* `leaves`: makes leaf certificates, good ones and those with one fault.
* `name_turns`: which answer of a sequence a DNS query gets.
* `named_hosts`: the host that a request names, and whether its connection is for that.
* `names`: answers DNS queries, and knows which name an address was given out for.
* `packets`: the packets that no socket takes: recorded, judged, and counted where they are missing.
* `patience`: how long a client may stop within a head or a body.
* `raw_ends`: which errors of a raw handler came from the end of its client's connection.
* `raw_faults`: what the faults of a raw route make of one connection.
* `raw_server`: serves a connection as bytes: by a raw handler, a static answer, or a relay to another server.
* `raw_socket`: the sockets that raw handlers get.
* `reach`: which upstream addresses are this machine's own, or otherwise reserved.
* `recorder`: decides, records and counts the outcome of an attempt.
* `replies`: the responses to requests that no handler answers.
* `sending`: sends a response by the duplex of its request.
* `server`: the gateway of one target, and its reader thread.
* `site`: what the gateway knows of its target.
* `spoiling`: what makes an answer late, slow or short.
* `starttls`: the handshake that a raw handler asks for in mid-connection.
* `tcp_info`: what a connection has carried, by the kernel's counters.
* `tls`: the server side of a TLS handshake.
* `tls_failures`: why a handshake failed, and what to do about it.
* `upstream`: connects to a real server, and asks it by the right version of HTTP.
* `upstream_body`: the body of a real server's response, while that of the request may still go out.
* `upstream_http1`: an exchange with a real server by HTTP/1.1.
* `upstream_http2`: an exchange with a real server by HTTP/2.
* `upstreams`: which real server is meant, and whether it may be reached.
* `websocket_relay`: `forward()` of a WebSocket.
"""
