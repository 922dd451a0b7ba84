"""HTTP: requests and responses as values, their heads, and the bytes of all versions.

* `content_coding`: compressed bodies: gzip, deflate, br, zstd.
* `events`: server-sent events.
* `forms`: forms, files and cookies.
* `head`: the head of a request: its authority, and the limits that hold for every version.
* `head_faults`: the strict look at the head of a request, of HTTP/1.1 before h11 reads it, and of HTTP/2 after h2 has.
* `headers`: the fields of a message.
* `http1`: HTTP/1.1, by h11.
* `http1_plain`: requests of HTTP/1.1 that need no h11, and the answers to them.
* `http2`: HTTP/2, by h2, and the limits that h2 does not have.
* `http2_ends`: finds what a client sends on a stream that it has ended.
* `http2_errors`: what h2 finds wrong, in words.
* `http2_frames`: cuts the bytes of HTTP/2 into frames.
* `http3`: HTTP/3, by aioquic, and the limits that aioquic does not have.
* `made_body`: the body of a streamed response, kept while it is sent.
* `model_turns`: turns of language models as server-sent events.
* `multiplexed`: what a connection brings that carries many requests at once.
* `quic`: the connection of QUIC below HTTP/3.
* `request`: `Request`, and its body.
* `response`: `Response`, and what can be sent.
"""
