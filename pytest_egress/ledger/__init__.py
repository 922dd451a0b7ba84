"""The ledger: what targets attempted, in order, and whether that fails a test.

The rule: an attempt is recorded before anything acts on it. Every module is a door.

* `ledger`: the windows of a run with their entries, and the lock that guards them.
* `pauses`: the wait of a fault, which keeps no window open.
* `report`: entries as text: verdicts, timelines, near misses, advice.
* `verdict`: whether a window's attempts fail its test, and by which error.
* `windows`: `Window`, the attempts that are judged together.
"""
