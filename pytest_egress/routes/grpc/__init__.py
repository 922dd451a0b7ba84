"""gRPC: a server of a test's servicers as an answer.

* `call`: calls a servicer's method, and sends what comes of it.
* `context`: the contexts that servicers get.
* `server`: gRPC servicers as the answer of a route.
* `stream`: the messages, metadata and status of one call.
* `turns`: the order in which the threads of a call send.
"""
