"""The evidence of a run: what people look at, keep and review.

The rule: the lines of `ledger.jsonl` are the source, and nothing is shown that has not passed the redactor.

* `pages`: the HTML pages of a test and of a run.
"""
