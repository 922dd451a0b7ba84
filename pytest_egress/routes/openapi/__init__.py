"""`openapi(...)`: requests are checked against an OpenAPI document, and its examples may answer.

The rule: what a container sends becomes sentences about it, and never an error of these modules.

* `patterns`: the patterns of a document.
* `documents`: a document, from a file or a dict.
* `operations`: the operation that a request is for.
* `schemas`: the ways in which a schema may read a text.
* `sent`: texts as they were sent, and the names that they have in brackets.
* `values`: parameters and bodies as the values that schemas describe.
* `validators`: the validators of a document's schemas.
* `checking`: a request, or a response, against its operation.
* `answer`: the answer of a route.
"""
