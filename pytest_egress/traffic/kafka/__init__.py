"""Kafka's protocol as a broker speaks it. No socket here.

* `records`: records as values: those that a test declares, and those that a client produced.
* `batches`: batches of records, compressed or not, by kafka-python and cramjam.
* `codes`: the errors that a response tells.
* `library`: what is used of kafka-python.
* `wire`: requests and responses, by kafka-python.
"""
