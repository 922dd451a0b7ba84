"""Routes: what tests declare, and which route answers an attempt.

The rule: no input or output. A malformed declaration is refused where it is made, and the error quotes the value and
lists what is accepted.

Doors: `answers`, `asgi`, `declarations`, `duplex`, `handles`, `kinds`, `route`, `table`, `wsgi`.

* `answers`: what routes may answer with and handlers may return; `forward`, `sequence`.
* `applications`: helpers that `wsgi` and `asgi` share.
* `asgi`: an ASGI application as a handler, on an event loop in a thread of its own.
* `declarations`: checks the arguments of each kind of route.
* `duplex`: the interface of answers that read and send by themselves.
* `handles`: the interface of a route for tests.
* `kinds`: the table of route kinds. A new kind is a value there.
* `matching`: the conditions that a request has to meet.
* `route`: a declared route, with its answer and its calls.
* `table`: the routes of a scope, and which of them answers.
* `wsgi`: a WSGI application as a handler.
"""
