"""Targets and their sidecars: how they are planned, created, trusted, started, watched and removed.

The rule: no instruction of a target runs before its traffic is captured and its roots are in place.
Doors: `container`, `external`, `handle`, `ingress`, `mounts`, `options`, `plan`, `readiness`, `results`,
`sidecars.provision`, `sidecars.ready`, `sidecars.sidecar`, `trust.packages`, `trust.roots`.

* `trust`: how the CA of the run gets into an image, before its first instruction.
* `sidecars`: their program, where they come from, and those that are ready before they are needed.
* `container`: a target with its sidecar, from its creation to its removal.
* `contents`: what is put into a target before its first instruction.
* `created`: what of its machine a container was created with.
* `ending`: the end of a container: asked for, awaited and explained.
* `external`: a target that something else creates and starts.
* `handle`: the interface of a container that tests use.
* `ingress`: loopback ports that lead to a target's ports.
* `logs`: what a container has written.
* `mounts`: which files and devices of its machine a target may have.
* `options`: checks the options of a container.
* `plan`: the checked arguments of a start.
* `processes`: with which containers a target may share processes.
* `proxies`: the variables by which its programs find a proxy.
* `readiness`: the conditions by which a target is ready.
* `results`: the result of a container's command.
"""
