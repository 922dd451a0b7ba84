"""DNS: queries, and the answers to them.

* `answers`: the answer of a DNS route.
* `records`: the records of other types that a DNS route declares.
* `resolver`: DNS queries and their answers, with synthetic addresses.
* `searchlist`: finds the DNS queries that a resolver's search list made.
"""
