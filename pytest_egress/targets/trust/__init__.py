"""Trust: how the CA of the run gets into an image, before its first instruction.

* `certificates`: reads and writes PEM bundles and Java keystores.
* `mounts`: which paths of a container lie in a mount that is not its own.
* `packages`: the root certificates that SDKs and browsers bring along.
* `placing`: puts the CA into a target.
* `roots`: the files of an image that hold root certificates.
* `runtimes`: the variables by which runtimes are told of the CA.
"""
