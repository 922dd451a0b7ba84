"""Routes: what tests declare, and which route answers an attempt.

The rule: no input or output. A malformed declaration is refused where it is made, and the error quotes the value and
lists what is accepted.

Doors: `answers`, `applications.asgi`, `applications.asgi_websocket`, `applications.wsgi`, `cassette`,
`certificates`, `datagrams`, `declarations`, `duplex`, `faults`, `grpc.server`, `inner_route`, `kinds`,
`openapi.answer`, `partials`, `patterns`, `raw.kafka`, `raw.libraries`, `raw.smtp`, `recordings.deck`,
`recordings.reel`, `route`, `services`, `table`, `turns`,
`websocket.answer`, `websocket.asynchronous`, `websocket.open`.

* `applications`: those of WSGI and ASGI as answers.
* `grpc`: a server of a test's servicers as an answer.
* `openapi`: a document that requests are checked against, and whose examples answer.
* `websocket`: a handler as an answer, and the open WebSocket that it gets.
* `raw`: servers of libraries that raw routes take, and SMTP.
* `recordings`: what plays a cassette, and takes new recordings.
* `answers`: what routes may answer with and handlers may return; `forward`, `sequence`.
* `cassette`: `cassette`, an answer by what was recorded in a file.
* `certificates`: the words of `certificate=` and `tls_version=`, and what a route presents by them.
* `datagrams`: what a route of datagrams may answer with.
* `declarations`: a route's arguments, and what checks them.
* `duplex`: the interface of answers that read and send by themselves.
* `faults`: answers that fail, or that come late, slowly or in part.
* `inner_route`: a declared route, as the gateway and the ledger use it.
* `json_bodies`: how a body of JSON differs from what `json=` expects.
* `kinds`: the table of route kinds. A new kind is a value there.
* `literals`: which declared values stand in the test's source, and so are shown.
* `names`: checks what a DNS route answers with.
* `matching`: the conditions that a request has to meet.
* `partials`: `partial`, a part of a value of JSON.
* `patterns`: globs, templates and compiled patterns of paths, fields and queries.
* `route`: what tests hold of a declared route: its answer and its calls.
* `sequences`: answers that are used one after the other.
* `services`: `ntp`, `statsd` and `syslog`, out of the box, for routes of datagrams.
* `table`: the routes of a scope, and which of them answers.
* `turns`: the answers of a route, and how often it gives them.
"""
