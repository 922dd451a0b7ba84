"""What this process has for itself, whatever a test has replaced: clocks, sockets, forks, frames.

The rule: nothing here knows what an egress is. Every module is a door.

* `callers`: which frame of a stack is the user's, and how it is named.
* `choices`: the values of `unrouted=`, `dns=` and `link=`.
* `clock`: the time, also where a test has stopped it.
* `frames`: the user's part of a traceback.
* `forks`: what is closed in a child that is forked.
* `globs`: patterns with `*`.
* `once`: a value that is made once, whichever thread asks first.
* `relay`: bytes from one socket to another, both ways.
* `sockets`: sockets, also where a test forbids them; resets, shutdowns and time-outs.
"""
