"""The container engine: the few calls of its API that the package makes, and what it leaves there.

The rule: an engine knows containers and images, and no sidecar. Doors: `archive`, `copier`, `endpoint`, `engine`,
`failures`, `leftovers`.

* `archive`: builds and reads tar archives, by which files go in and out of containers.
* `copier`: repeats a copy that Podman has broken off.
* `endpoint`: finds out where the engine listens, and makes the client for it.
* `engine`: creates, inspects and removes containers and images.
* `failures`: turns docker-py's errors into `EngineError`s.
* `folder`: the temporary folder of a run, whose lock shows whether the run goes on.
* `images`: finds and pulls images.
* `leftovers`: recognises and removes the containers and images of runs.
* `progress`: reports steps that take long to a screen.
* `ssh`: a unix socket whose connections lead to an engine on another machine.
* `watchdog`: the process that removes a run's containers when the run is killed.
"""
