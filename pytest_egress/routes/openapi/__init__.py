"""`openapi(...)`: requests are checked against an OpenAPI document, and its examples may answer.

The rule: what a container sends becomes sentences about it, and never an error of these modules.

* `documents`: a document, from a file or a dict.
* `operations`: the operation that a request is for.
* `values`: parameters and bodies as the values that schemas describe.
* `checking`: a request, or a response, against its operation.
* `answer`: the answer of a route.
"""
