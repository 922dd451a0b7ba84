"""Sidecars: their program, where they come from, and those that are ready before they are needed.

* `program`: the content of a sidecar: its image, its mounts, the agent's archive.
* `provision`: tries the setups of a sidecar (link and interpreter) in order.
* `ready`: sidecars that are started ahead of their targets.
* `relay`: the container that passes connections of the test process to sidecars of the stream link.
* `sidecar`: the container whose network namespace a target shares.
"""
