"""Detects tampering: changes of a target's network namespace that could end the capture of its traffic.

A monitor is a netlink socket of the sidecar. It is opened after the rules were loaded, so that it reports only later
changes.
"""

from __future__ import annotations

import socket
import struct

from pytest_egress.agent import netlink
from pytest_egress.agent.addresses import ADDRESS4, ADDRESS6, INTERFACE, PEER

_EVENT_BYTES = 1 << 16
_NFTABLES_EVENTS = {
    0: "added a table",
    2: "deleted a table",
    3: "added a chain",
    5: "deleted a chain",
    6: "added a rule",
    8: "deleted a rule",
}
_LOST = "something changed the network namespace so often that events were lost"
_NFTABLES, _NEW_GENERATION = 10, 15  # NFNL_SUBSYS_NFTABLES; the event after every transaction
_NEWLINK, _DELLINK, _DELADDR = 16, 17, 21
_NEWROUTE, _DELROUTE, _NEWRULE, _DELRULE = 24, 25, 32, 33
_TRAFFIC_CONTROL = range(36, 47)  # RTM_NEWQDISC to RTM_GETTFILTER
_BRIDGE = 7  # AF_BRIDGE, which is this number in the kernel of the sidecar
_LOCAL = 2  # RTN_LOCAL
_NOWHERE = range(6, 10)  # RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW
_OURS = {name.encode() + b"\0" for name in ("lo", INTERFACE, PEER)}
_OUR_ADDRESSES = {
    socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    for address in (ADDRESS4, ADDRESS6, "127.0.0.1", "::1")
}
_LOOPBACK4 = b"\x7f"  # begins every address of 127.0.0.0/8, to which connections are redirected


def tampering(monitor: socket.socket, own_port: int = 0) -> str | None:
    """Read one event of a monitor, and describe the change if it could end the capture; None if harmless.

    Every change of nftables, policy rules and traffic control counts, since it may undo the agent's.
    A change of interfaces, addresses or routes counts only if it removes the agent's own or takes
    precedence over them: a target may add others. This function never waits for an event.

    Args:
        own_port: The port id of the agent's own netlink socket for nftables, whose changes do not count. No other
            socket of the namespace can have it while that one is open. 0 where it has none.
    """
    try:
        data = monitor.recv(_EVENT_BYTES, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError as error:  # ENOBUFS: more events than there is room for
        return f"{_LOST} ({error})"
    if not data:  # by an empty datagram the stream link reports lost events
        return _LOST
    is_of_rules = monitor.proto == netlink.NETFILTER
    read = _rules_event if is_of_rules else _network_event
    for kind, _sequence, body in netlink.messages(data, own_port if is_of_rules else 0):
        if what := read(kind, body):
            return f"something {what} in the target's network namespace"
    return None


def _rules_event(kind: int, body: bytes) -> str | None:
    subsystem, event = kind >> 8, kind & 0xFF
    if subsystem != _NFTABLES or event == _NEW_GENERATION:
        return None
    return f"{_NFTABLES_EVENTS.get(event, 'changed a set or an object')} of nftables"


def _network_event(kind: int, body: bytes) -> str | None:
    if kind in (_NEWLINK, _DELLINK):
        return _link_event(kind, body)
    if kind == _DELADDR:
        found = netlink.attributes(body[8:])  # after ifaddrmsg; IFA_ADDRESS is 1, IFA_LOCAL 2
        ours = _OUR_ADDRESSES & {found.get(1), found.get(2)}
        return "deleted an address of ours" if ours else None
    if kind in (_NEWROUTE, _DELROUTE):
        return _route_event(kind, body)
    if kind in _TRAFFIC_CONTROL:
        return "changed traffic control"
    return {_NEWRULE: "added a policy rule", _DELRULE: "deleted a policy rule"}.get(kind)


def _route_event(kind: int, body: bytes) -> str | None:
    """Describe a harmful change of routes; the kernel reports a replaced route as a new one.

    The attributes follow rtmsg; RTA_DST is 1.
    """
    if len(body) < 12:
        return None
    verb = "deleted" if kind == _DELROUTE else "added"
    destination = netlink.attributes(body[12:]).get(1, b"")
    if body[1] == 0:
        return f"{verb} a default route"
    if verb == "added" and body[7] in _NOWHERE:
        return "added a route that leads nowhere"
    ours = destination in _OUR_ADDRESSES or (
        len(destination) == 4 and destination.startswith(_LOOPBACK4)
    )
    if not ours or (verb == "added" and body[7] == _LOCAL):  # the kernel's, some come late
        return None
    return f"{verb} a route to an address of ours"


def _link_event(kind: int, body: bytes) -> str | None:
    name = netlink.attributes(body[16:]).get(3)  # after ifinfomsg; IFLA_IFNAME
    if len(body) < 16 or name not in _OURS or body[0] == _BRIDGE:  # of a bridge's ports
        return None
    shown = name[:-1].decode()
    if kind == _DELLINK:
        return f"deleted the interface {shown}"
    up = struct.unpack_from("=I", body, 8)[0] & 1  # IFF_UP; the carrier comes and goes harmlessly
    return None if up else f"shut down the interface {shown}"
