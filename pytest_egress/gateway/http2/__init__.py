"""HTTP/2: a connection that carries many requests at once.

* `batches`: has one worker serve all requests of HTTP/2 that one read has brought.
* `server`: reads the requests of an HTTP/2 connection, many at once.
* `stream`: one request of HTTP/2 and the way back to its client.
* `wire`: the socket of a connection on which many threads send.
"""
