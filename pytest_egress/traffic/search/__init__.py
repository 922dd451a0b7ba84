"""The search of `assert_not_sent`: all that a target has sent, decoded, and where something is found in it.

The rule: what cannot be read to its end is said, and never passed over. Nothing here is a copy that stays.

* `pieces`: what is searched, and what bounds it.
* `contents`: bodies and texts as pieces, with the place of each.
* `attempts`: the pieces of an entry of the ledger.
* `needles`: what is searched for.
* `verdict`: the search through entries, and the text of its error.
"""
