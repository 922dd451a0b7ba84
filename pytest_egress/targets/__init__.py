"""A target and its sidecar, from the image to the removal.

The rule: no instruction of a target runs before its traffic is captured and its roots are in place.
Doors: `container`, `external`, `handle`, `options`, `packages`, `plan`, `provision`, `readiness`, `results`, `roots`,
`sidecar`.

* `certificates`: keystores and bundles with the CA in them.
* `container`: a running target, as tests see it.
* `external`: a target that something else starts.
* `handle`: a container as tests hold it.
* `ingress`: ports of a target, reached from the test.
* `mounts`: which of a container's paths belong to somebody else.
* `options`: the options of a start.
* `packages`: roots that SDKs bring along.
* `plan`: what is created for a start.
* `program`: what runs in a sidecar: its image, its mounts, the agent's archive.
* `provision`: which link and which interpreter a sidecar has, tried in order.
* `readiness`: when a target is ready.
* `results`: how a target ended.
* `roots`: which files of an image hold root certificates.
* `runtimes`: the variables and files by which runtimes are told of the CA.
* `sidecar`: starts the container whose network namespace a target shares.
* `trust`: puts the CA into a target.
"""
