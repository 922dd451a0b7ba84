"""What a test declares, and which of it answers an attempt.

The rule: no input or output. A malformed declaration is refused where it is made, with the value and what is accepted.
Doors: `answers`, `asgi`, `declarations`, `handles`, `kinds`, `route`, `table`, `wsgi`.

* `answers`: what a handler may return, and `forward`, `sequence`.
* `applications`: what WSGI and ASGI have in common.
* `asgi`: an ASGI application as an answer, with a loop on a thread of its own.
* `declarations`: the arguments of each kind of route.
* `handles`: a route as tests hold it.
* `kinds`: the table of route kinds. A new kind is a line there.
* `matching`: the conditions that a request has to meet.
* `route`: one declaration, the calls that it answered, and what a test asks of them.
* `table`: the routes of a scope, and the one that answers.
* `wsgi`: a WSGI application as an answer.
"""
