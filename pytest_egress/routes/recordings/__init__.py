"""What plays the recordings of a cassette, and takes new ones.

* `comparing`: how a request differs from a recorded one.
* `calls`: the same of a call of gRPC, and the answer that was recorded.
* `following`: which recording a conversation plays, where several begin alike.
* `turns`: a call of gRPC that is played, or recorded, message by message.
* `websockets`: a WebSocket that is played, message by message, or recorded.
* `replies`: the response that was recorded.
* `passing`: the body of a response that is passed on as it comes, and recorded at its end.
* `reel`: the recordings of one file, and which have been played.
* `deck`: a reel as the answer of a route.
"""
