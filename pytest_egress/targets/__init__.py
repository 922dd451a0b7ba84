"""Targets and their sidecars: how they are planned, created, trusted, started, watched and removed.

The rule: no instruction of a target runs before its traffic is captured and its roots are in place.
Doors: `container`, `external`, `handle`, `options`, `packages`, `plan`, `provision`, `readiness`, `ready`, `results`,
`roots`, `sidecar`.

* `certificates`: reads and writes PEM bundles and Java keystores.
* `container`: a target with its sidecar, from its creation to its removal.
* `contents`: what is put into a target before its first instruction.
* `ending`: the end of a container: asked for, awaited and explained.
* `external`: a target that something else creates and starts.
* `handle`: the interface of a container that tests use.
* `ingress`: loopback ports that lead to a target's ports.
* `logs`: what a container has written.
* `mounts`: which paths of a container lie in a mount that is not its own.
* `options`: checks the options of a container.
* `packages`: the root certificates that SDKs and browsers bring along.
* `plan`: the checked arguments of a start.
* `processes`: with which containers a target may share processes.
* `program`: the content of a sidecar: its image, its mounts, the agent's archive.
* `provision`: tries the setups of a sidecar (link and interpreter) in order.
* `readiness`: the conditions by which a target is ready.
* `ready`: sidecars that are started ahead of their targets.
* `results`: the result of a container's command.
* `roots`: the files of an image that hold root certificates.
* `runtimes`: the variables by which runtimes are told of the CA.
* `sidecar`: the container whose network namespace a target shares.
* `trust`: puts the CA into a target.
"""
