"""What targets attempted, in order, and what that means for a test.

The rule: an attempt is recorded before anything acts on it. Every module is a door.

* `ledger`: all entries of a run, and the one lock that guards them.
* `report`: entries as text: timelines, near misses, advice.
* `verdict`: whether a test fails, and by which error.
* `windows`: the part of a run that belongs to one test.
"""
