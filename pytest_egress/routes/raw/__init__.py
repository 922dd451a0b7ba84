"""Bytes: servers of libraries that raw routes take, SMTP, and Kafka.

* `kafka`: a broker that records what is produced and serves what a test declares.
* `kafka_consumers`: what its consumers ask.
* `kafka_groups`: its consumer groups.
* `kafka_log`: its topics.
* `kafka_server`: one connection to it.
* `libraries`: servers of libraries as handlers of a raw route.
* `smtp`: a mail server that takes every mail.
"""
