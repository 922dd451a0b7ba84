"""The addresses and interfaces of every namespace that the agent makes: facts, no code.

They are the same in each, because no two of these namespaces ever meet.
"""

from __future__ import annotations

INTERFACE = "eth0"
"""What a program that looks for an interface finds."""

PEER = "egress0"
"""The other end of the pair. Nothing listens on it: it only makes `INTERFACE` one that is up."""

ADDRESS4, PREFIX4 = "10.213.0.2", 24
ADDRESS6, PREFIX6 = "fd00:213::2", 64
"""The addresses of `INTERFACE`.

With none but loopback addresses glibc's resolver would ask for no name at all (AI_ADDRCONFIG).
"""
