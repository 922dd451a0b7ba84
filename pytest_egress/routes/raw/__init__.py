"""Bytes: servers of libraries that raw routes take, and SMTP.

* `libraries`: servers of libraries as handlers of a raw route.
* `smtp`: a mail server that takes every mail.
"""
