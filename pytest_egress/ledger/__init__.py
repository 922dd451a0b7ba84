"""The ledger: what targets attempted, in order, and whether that fails a test.

The rule: an attempt is recorded before anything acts on it. Every module is a door.

* `declaring`: the block of code that declares all attempts of a test.
* `details`: what an entry was made of, for a failure at `-v`.
* `encryption`: what was sent in the clear, or by an old version of TLS, for `assert_encrypted`.
* `ledger`: the windows of a run with their entries, and the lock that guards them.
* `order`: the order in which routes were called, for `assert_order` and `assert_before`.
* `nearest`: the request that came nearest to a route that was not called.
* `pauses`: the wait of a fault, which keeps no window open.
* `refusals`: the bodies of the responses that refuse a request.
* `remedies`: the line of code that declares a route for an attempt.
* `report`: the texts of verdicts: attempts, near misses, advice, headlines.
* `secrets`: which secrets are looked for, and in which windows.
* `timeline`: a line for each entry, with its outcome.
* `upstream`: whether the real server of an attempt was reached.
* `verdict`: whether a window's attempts fail its test, and by which error.
* `watched`: the lines about attempts while they happen.
* `watcher`: the thread that looks for them.
* `windows`: `Window`, the attempts that are judged together.
"""
