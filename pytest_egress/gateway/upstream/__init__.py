"""Real servers: which one is meant, whether it may be reached, and an exchange with it.

* `body`: the body of a real server's response, while that of the request may still go out.
* `datagrams`: exchanges datagrams with real servers, by a socket for each flow.
* `exchange`: connects to a real server, and asks it by the right version of HTTP.
* `http1`: an exchange with a real server by HTTP/1.1.
* `http2`: an exchange with a real server by HTTP/2.
* `reach`: which upstream addresses are this machine's own, or otherwise reserved.
* `upstreams`: which real server is meant, and whether it may be reached.
* `websocket`: `forward()` of a WebSocket.
"""
