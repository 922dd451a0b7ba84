"""What goes over the wire, as values and as bytes.

The rule: no socket, no clock, no thread. A parser returns None for "more is needed", raises one error of ours for what
is malformed, and nothing else. Every module is a door.

* `address`: a host with a port, and what each kind of route accepts as one.
* `clienthello`: the first message of a TLS client.
* `dns`: questions and answers.
* `dns_answers`: what a route says of a name.
* `entries`: what the ledger holds, a value for each kind of attempt.
* `fields`: the head of an HTTP message: its fields, its authority, and the limits that hold for every version.
* `http1`: HTTP/1.1 by h11.
* `messages`: `Request`, `Response`, `Headers`.
* `packets`: what the kernel reports of packets that were refused.
* `redaction`: secrets in what is shown.
* `searchlist`: which questions of a resolver belong together.
"""
