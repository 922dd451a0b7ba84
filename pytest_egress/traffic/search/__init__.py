"""The searches through all that a target has sent, decoded: that of `assert_not_sent`, and that for secrets.

The rule: what cannot be read to its end is said, and never passed over. Nothing here is a copy that stays.

* `pieces`: what is searched, and what bounds it.
* `contents`: bodies and texts as pieces, with the place of each.
* `attempts`: the pieces of an entry of the ledger.
* `needles`: what is searched for.
* `verdict`: the search through entries, and the text of its error.
* `secrets`: `secret()`, and what it has made.
* `unpacking`: the decoding of a body that passes.
* `embedded`: what is compressed at any place of what passes, and the messages of gRPC that are.
* `passing`: the search of what passes and is not kept.
* `leaks`: the search for secrets where they must not be, and the text of its error.
"""
