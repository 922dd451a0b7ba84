"""HTTP/1.1: a connection that carries one request after the other.

* `server`: reads HTTP/1.1 requests.
* `stream`: both directions of one HTTP/1.1 request.
"""
