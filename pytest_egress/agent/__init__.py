"""The agent, the program in the sidecar: it makes the namespace capture, and gives its sockets to the test process.

The rule: only the standard library and only relative imports, because in the sidecar this folder is the top-level
package `agent`. It imports few modules, since each start of a container waits for it. `link` may import all of it;
other rooms only `addresses`, `main` and `netlink`, which are facts and formats.

* `addresses`: the addresses and interfaces of every namespace.
* `capabilities`: what the program gives up once it has its sockets.
* `capture`: makes a namespace capture everything.
* `dials`: the connections that the kernel itself refuses or drops, the datagrams that it lets out, and changes of both.
* `direct`: joins connections of the target with those of the test process, where the stream link has a relay.
* `flows`: datagrams to ports of the target, over streams of a `mux`.
* `keeper`: the first process of a sidecar that serves several targets.
* `main`: the program; where the link is made of descriptors it passes the sockets.
* `mux`: one end of the stream link, as a protocol without input or output.
* `mux_frames`: the frames of the stream link, and their events.
* `netlink`: netlink messages as bytes.
* `nftables`: the rules of a namespace.
* `original_destination`: the address that the client of a redirected connection dialled.
* `ports`: sockets that send datagrams to a port of the target.
* `pump`: copies between the streams of a `mux` and TCP sockets.
* `relay`: the program of the relay, a container that passes connections of the test process to sidecars.
* `shared_files`: the files that a target shares with its sidecar.
* `stream`: the program's part for the stream link.
"""
