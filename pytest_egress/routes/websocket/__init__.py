"""WebSockets: a handler as an answer, and the open WebSocket that it gets.

* `answer`: the answer that opens WebSockets.
* `asynchronous`: a WebSocket for an `async def` handler.
* `open`: a WebSocket for a handler and for the test, whose reader is a thread.
"""
