"""An endpoint of the Docker Engine API whose containers are captured, whatever tool creates them.

It allows and does not forbid: a call that is not in the table is not passed on, and a body that is passed on has been
made anew from the keys that are known.

* `refusal`: the error that a tool gets.
* `calls`: the calls of the API that are known, by method and decoded path.
* `fields`: objects of JSON, of which each key is known.
* `mounts`: mounts, volumes and devices.
* `ports`: published ports.
* `networks`: networks that tools make, kept by us.
* `network_calls`: the calls about them.
* `peers`: the names by which containers of one network reach each other.
* `bodies`: the bodies of requests that make something.
* `volume_calls`: the calls about volumes.
* `wire`: HTTP on both sides, and the streams that take a connection over.
* `veil`: what the engine tells of containers, as it would be without us.
* `container_calls`: all other calls, and the containers made through it.
* `server`: the socket, and its connections.
* `compose`: a project of Docker Compose, and the program, which is run for it.
* `stack`: the services of a project that runs behind an endpoint.
"""
