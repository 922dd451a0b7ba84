"""HTTP: a request is read, decided and answered, by any version.

* `answering`: turns a request into its response and its entry, without a client socket and for any version of HTTP.
* `bodies`: the body of a request, read once.
* `calling`: an answer that returns a response, as the gateway sees it.
* `conversation`: an answer that reads and sends by itself, as the gateway sees it.
* `forwarding`: sends one request to real servers.
* `http1`: reads HTTP/1.1 requests.
* `http1_stream`: both directions of one HTTP/1.1 request.
* `http2`: reads the requests of an HTTP/2 connection, many at once.
* `http2_batches`: has one worker serve all requests of HTTP/2 that one read has brought.
* `http2_stream`: one request of HTTP/2 and the way back to its client.
* `http2_wire`: the socket of a connection on which many threads send.
* `incoming`: a request whose head has been read, and what was decided about it.
* `late_heads`: the head of a response, sent alone where its body is late.
* `named_hosts`: the host that a request names, and whether its connection is for that.
* `replies`: the responses to requests that no handler answers.
* `sending`: sends a response by the duplex of its request.
* `spoiling`: what makes an answer late, slow or short.
"""
