"""The sockets of a target's network namespace, whichever way they come to this process.

The rule: a link hands over sockets, or reads and writes for them, and knows no protocol that a target speaks.
Doors: all of them.

* `attach`: the streams of a container, over a connection of the engine's API.
* `descriptor`: sockets that the sidecar hands over as descriptors.
* `interface`: what every link offers the gateway.
* `rendezvous`: where a sidecar and this process meet, and how the first knows the second.
* `stream`: sockets that stay in the sidecar, multiplexed over one stream.
* `stream_sockets`: what stands in this process for a socket there.
* `tampering`: whether the rules of a namespace are still those that were loaded.
"""
