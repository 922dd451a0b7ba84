"""Links: they bring the sockets of a target's network namespace to this process.

The rule: a link passes sockets, or their bytes, and knows no protocol that a target speaks. Every module is a door.

* `attach`: the standard streams of a container, over a connection to the engine's API.
* `changes`: which dials of a target its kernel refuses or drops, as messages to the agent.
* `descriptor`: the link whose sockets the sidecar passes as descriptors.
* `direct`: connections to the sidecar by a relay, beside the engine's stream.
* `interface`: `Link`, the interface of both links for the gateway.
* `relay`: what this process and a relay say to each other, and whether a way to it is of use.
* `rendezvous`: the mounted folder in which a sidecar's agent finds this process and verifies it.
* `stream`: the link whose sockets stay in the sidecar, multiplexed over one stream.
* `stream_sockets`: the sockets of this process that stand for those in the sidecar.
* `tampering`: detects changes of the rules that capture a target's traffic.
"""
