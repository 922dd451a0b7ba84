"""The addresses and interfaces of every namespace that the agent sets up: constants, no code.

They are the same in each, because these namespaces are never connected with each other.
"""

from __future__ import annotations

INTERFACE = "eth0"
"""The network interface that programs of a target find."""

PEER = "egress0"
"""The other end of the veth pair. Nothing listens on it; `INTERFACE` can only be up because it exists."""

ADDRESS4, PREFIX4 = "10.213.0.2", 24
ADDRESS6, PREFIX6 = "fd00:213::2", 64
"""The addresses of `INTERFACE`.

With only loopback addresses, glibc's resolver would look up no name at all (AI_ADDRCONFIG).
"""
