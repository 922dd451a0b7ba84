"""The parts, by name, in the order of the table."""

from __future__ import annotations

from typing import Final

from benchmarks import (
    datagrams,
    evidence,
    first,
    grpc_calls,
    http2,
    links,
    memory,
    plugin,
    relay,
    reuse,
    routes,
    scaling,
    start,
    throughput,
    trust,
)

MODULES: Final = (
    start,
    first,
    scaling,
    throughput,
    http2,
    grpc_calls,
    relay,
    links,
    memory,
    plugin,
    routes,
    trust,
    reuse,
    evidence,
    datagrams,
)
PARTS: Final = {module.PART.name: module.PART for module in MODULES}
