"""HTTP, whatever its version: how a request is decided and answered.

The rule: no bytes and no state of a version of HTTP are known here, and no socket of a client. A server gives the head
of a request, and its `Duplex`.

* `answering`: turns a request into its response and its entry, without a client socket and for any version of HTTP.
* `bodies`: the body of a request, read once.
* `calling`: an answer that returns a response, as the gateway sees it.
* `conversation`: an answer that reads and sends by itself, as the gateway sees it.
* `forwarding`: sends one request to real servers.
* `incoming`: a request whose head has been read, and what was decided about it.
* `late_heads`: the head of a response, sent alone where its body is late.
* `named_hosts`: the host that a request names, and whether its connection is for that.
* `proxies`: requests that a client sends to a proxy, and that none takes.
* `replies`: the responses of our own, where no handler answers or one has raised.
* `replacing`: an answer that a fault sweep has fail.
* `sending`: sends a response by the duplex of its request.
* `spoiling`: what makes an answer late, slow or short.
"""
