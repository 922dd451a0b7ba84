"""Helpers for this process that work whatever a test has replaced: clocks, sockets, forks, frames.

The rule: nothing here knows what an egress is. Every module is a door.

* `account`: what targets make this process keep, within one limit.
* `acknowledged`: whether the other side of a connection has what was sent to it.
* `alarms`: functions that are called after a while, unless they are called off.
* `callers`: whose code a frame of a stack runs, and how its line is named.
* `choices`: the values of `unrouted=`, `dns=` and `link=`, and the check of a marker's keywords.
* `clock`: the real time, also while a test has frozen it.
* `escaping`: texts from outside as they may be shown.
* `forks`: closes descriptors in forked children.
* `frames`: the user's part of a traceback.
* `globs`: patterns with `*`.
* `loops`: event loops on threads of their own and on the caller's, and how they are ended.
* `once`: a value that is made at its first use, and once, whichever threads ask for it.
* `pacing`: bytes that come later, slowly or in part.
* `paths`: which paths of another machine are one, or in another.
* `raising`: who has raised an exception, and what was at hand there.
* `polling`: which events of poll(2) tell an end, and pollers of many sockets, where kernels differ.
* `relay`: copies bytes between two sockets, both ways, or plays what a pacer holds.
* `renamed`: old names of arguments, refused with the new one.
* `sockets`: sockets that work also where a test forbids them; resets, shutdowns and time-outs.
* `unawaited`: what the tasks of an event loop raise that nobody awaits.
* `unset`: the value of an argument that was not given.
* `wire`: a socket on which one thread receives while others send.
* `workers`: threads that are kept for a second after their job.
"""
