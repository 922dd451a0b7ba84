"""DNS: answers to queries, and which name an address was given out for.

* `late`: the answers of DNS that are sent later.
* `names`: answers DNS queries, and knows which name an address was given out for.
* `turns`: which answer of a sequence a DNS query gets.
"""
