"""`serve_between`: copies a connection between two containers of one network, by the test process.

What it carries does not leave those containers. So none of its bytes are kept, no assertion about egress counts it, and
it holds no window open.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_egress.base.clock import monotonic
from pytest_egress.base.relay import Direction, relay
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.upstream.upstreams import Upstreams
from pytest_egress.routes.answers import Connectable


def serve_between(
    connection: Connection, upstreams: Upstreams, peers: Sequence[Connectable]
) -> None:
    """Serve a connection to its end, by one of the containers that have the name which was dialled.

    It is reset where none of them listens at the port.
    """
    connection.accounted, connection.is_between = True, True
    attempt, ledger = connection.attempt, connection.ledger
    entry = connection.recorder.begin_between(attempt)
    try:
        peer, server = upstreams.connect_any(connection, peers, connection.destination.port)
        entry.between = peer.name
        connection.end()
        connection.is_relayed = True

        def watch(out: Direction, back: Direction) -> None:
            entry.sent, entry.received = out.count, back.count
            connection.idle_since = monotonic()

        relay(connection.sock, server, watch, clock=ledger.clock)
    except UpstreamError as error:
        entry.note = str(error)
        connection.reset()
    except OSError as error:
        entry.note = f"broke off: {error}"
        connection.reset()
    else:
        connection.linger()
    finally:
        entry.duration = ledger.now() - entry.started
