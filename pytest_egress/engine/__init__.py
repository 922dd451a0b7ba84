"""The few calls of a container engine's API.

The rule: an engine knows containers and images, and no sidecar. Doors: `archive`, `endpoint`, `engine`, `failures`,
`leftovers`.

* `archive`: files in and out of containers, by tar.
* `endpoint`: where an engine listens, and which engine that is.
* `engine`: creates, starts, watches and removes containers.
* `failures`: an engine's errors in words of ours.
* `folder`: the folder of a run, and who owns it.
* `images`: pulls and inspects images.
* `leftovers`: removes what a dead run has left.
* `progress`: what takes long, for whoever shows it.
* `ssh`: a unix socket whose connections lead to an engine elsewhere.
* `watchdog`: the process that removes a run's containers when the run is killed.
"""
