"""The commands that run an image without pytest: what it attempts, what it accepts, and the test that says so.

The rule: nothing gets out but by `record`, nothing is left behind, and no secret is printed or written.

* `order`: what a user has asked to be run.
* `trial`: one run of an image, with what it attempted.
* `written`: the test about an image as text.
* `watch`: a line for each attempt, and the test at the end.

Doors: order, watch.
"""
