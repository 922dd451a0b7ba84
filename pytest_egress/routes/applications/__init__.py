"""Applications: those of WSGI and ASGI as answers.

* `asgi`: an ASGI application as a handler, on an event loop in a thread of its own.
* `asgi_websocket`: the WebSockets of an ASGI application.
* `shared`: helpers that `wsgi` and `asgi` share.
* `wsgi`: a WSGI application as a handler.
"""
