"""Routes: what tests declare, and which route answers an attempt.

The rule: no input or output. A malformed declaration is refused where it is made, and the error quotes the value and
lists what is accepted.

Doors: `answers`, `asgi`, `asgi_websocket`, `async_websocket`, `certificates`, `declarations`, `duplex`, `faults`,
`grpc`, `inner_route`, `kinds`, `open_websocket`, `raw`, `route`, `smtp`, `table`, `turns`, `websocket`, `wsgi`.

* `answers`: what routes may answer with and handlers may return; `forward`, `sequence`.
* `applications`: helpers that `wsgi` and `asgi` share.
* `asgi`: an ASGI application as a handler, on an event loop in a thread of its own.
* `asgi_websocket`: the WebSockets of an ASGI application.
* `async_websocket`: a WebSocket for an `async def` handler.
* `certificates`: the words of `certificate=` and `tls_version=`, and what a route presents by them.
* `declarations`: a route's arguments, and what checks them.
* `duplex`: the interface of answers that read and send by themselves.
* `faults`: answers that fail, or that come late, slowly or in part.
* `grpc`: gRPC servicers as the answer of a route.
* `grpc_calls`: calls a servicer's method, and sends what comes of it.
* `grpc_context`: the contexts that servicers get.
* `grpc_stream`: the messages, metadata and status of one call.
* `grpc_threads`: the order in which the threads of a call send.
* `inner_route`: a declared route, as the gateway and the ledger use it.
* `kinds`: the table of route kinds. A new kind is a value there.
* `name_answers`: checks what a DNS route answers with.
* `matching`: the conditions that a request has to meet.
* `open_websocket`: a WebSocket for a handler and for the test, whose reader is a thread.
* `raw`: servers of libraries as handlers of a raw route.
* `route`: what tests hold of a declared route: its answer and its calls.
* `sequences`: answers that are used one after the other.
* `smtp`: a mail server that takes every mail.
* `table`: the routes of a scope, and which of them answers.
* `turns`: the answers of a route, and how often it gives them.
* `websocket`: the answer that opens WebSockets.
* `wsgi`: a WSGI application as a handler.
"""
