"""The commands that run an image without pytest: what it attempts, what it accepts, and the test that says so.

The rule: nothing gets out but by `record`, nothing is left behind, and no secret is printed or written.

* `order`: what a user has asked to be run.
* `trial`: one run of an image, with what it attempted.
* `written`: the test about an image as text.
* `audit`: the runs of an audit, and what it prints.
* `findings`: whom it asks, where its secrets go, what it accepts, and what is wrong.
* `upgrades`: the run of an audit that offers STARTTLS.
* `pages`: the report of an audit.
* `diff`: what differs between two images, two locks, or one of each.
* `sides`: what an audit says, in a form that is compared.
* `record`: a test and its cassette.
* `watch`: a line for each attempt, and the test at the end.

Doors: audit, diff, order, record, watch.
"""
