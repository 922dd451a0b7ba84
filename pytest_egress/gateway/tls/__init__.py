"""TLS: certificates, handshakes, and why one has failed.

* `authority`: the CA, and the TLS context with the leaf certificate for each name.
* `failures`: why a handshake failed, and what to do about it.
* `handshake`: the server side of a TLS handshake.
* `leaves`: makes leaf certificates, good ones and those with one fault.
* `sockets`: a TLS socket that can look at the next byte.
"""
