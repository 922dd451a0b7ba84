"""Cassettes: recorded exchanges as values, and as the text of a file.

The rule: no file is touched here, and nothing is replayed. A recording is written with its secrets replaced, by the
redactor of its run, or it is not written.

* `tape`: the recordings of a file as values, and the text of that file.
* `bodies`: a body as it is written for people, and as it is sent again.
* `messages`: the messages of a call of gRPC, likewise.
* `websocket`: the messages of a WebSocket.
* `making`: a recording of what was asked and answered.
* `hiding`: a recording without its secrets.
* `placeholders`: what stands in a secret's place, and what that stands for when a request is compared.
* `notation`: YAML with the types of JSON.
* `reading`: a file of whatever tool.
* `vcrpy`: cassettes of VCR.py.
* `har`: HAR files of browsers, proxies and Playwright.
* `wiremock`: mappings of WireMock.
"""
