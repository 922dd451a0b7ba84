"""What runs in the sidecar: makes the namespace capture and hands its sockets to the test process.

The rule: standard library only and relative imports only, so that the folder also runs as the top-level package
`agent` that it is inside the sidecar. It imports little: each start of a container waits for it. `link` may import all
of it; others `addresses`, `main` and `netlink`, which are facts and formats.

* `addresses`: of every namespace that the agent makes.
* `capture`: makes a namespace capture everything.
* `main`: the program.
* `mux`: one end of the stream link.
* `mux_frames`: its frames.
* `netlink`: messages of netlink as bytes.
* `nftables`: the rules of a namespace.
* `original_destination`: what the client of a redirected connection dialled.
* `pump`: copies between the streams of a `mux` and TCP sockets.
* `stream`: the program where the link is a stream.
"""
