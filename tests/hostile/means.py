"""The means of hostile attempts: how a nonce is sent, and how a kernel is asked for changes.

Standard library only, with the agent's own netlink: `attempts.py` runs with it in a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import socket
import struct

from agent import capture, netlink, nftables  # type: ignore[import-not-found]

TO4, TO6 = "203.0.113.9", "2001:db8::9"
OWN4, OWN6 = "10.213.0.2", "fd00:213::2"
UDP_PORT, TCP_PORT, TRICK_PORT = 9001, 9002, 9003
SECONDS = 0.3  # for what is captured at once, or never

NET_ROUTE, NET_DIAG, NET_XFRM, NET_FILTER = 0, 4, 6, 12
NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE, NEWRULE, DELRULE = (
    *(16, 17, 20, 21, 24, 25, 32, 33),
)
NEWQDISC = 36
REPLACE = 0x100
CREATE, EXCLUSIVE = 0x400, 0x200
UNREACHABLE, BLACKHOLE = 7, 6
NEWNET, NEWUSER = 0x40000000, 0x10000000
DATA = rb"\x0c\x00[\x02\x03][\x00\x80]\x08\x00\x01\x00(....)"  # four bytes of a rule


def named(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


# Sending the nonce.


def beacon(nonce: bytes) -> None:
    """Send it to documentation addresses, in every way there is."""
    for family, address in ((socket.AF_INET, TO4), (socket.AF_INET6, TO6)):
        for send in (send_udp, send_raw, send_tcp):
            with contextlib.suppress(OSError):
                send(family, address, nonce)
    for _, device in socket.if_nameindex():
        with contextlib.suppress(OSError):
            send_frame(device, nonce)


def send_udp(family: int, address: str, nonce: bytes, port: int = UDP_PORT) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(nonce, (address, port))


def send_raw(family: int, address: str, nonce: bytes, protocol: int = 253) -> None:
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        sock.sendto(nonce, (address, 0))


def send_tcp(family: int, address: str, nonce: bytes, port: int = TCP_PORT) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        speak(sock, address, nonce, port)


def speak(sock: socket.socket, address: str, nonce: bytes, port: int = TCP_PORT) -> None:
    sock.settimeout(SECONDS)
    sock.connect((address, port))
    sock.sendall(nonce)
    sock.settimeout(5)
    with contextlib.suppress(OSError):
        sock.recv(1)  # until it is reset, so that it has been read


def send_frame(device: str, nonce: bytes, mark: bytes = bytes(4)) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 36, mark)  # SO_MARK
        sock.bind((device, 0))
        sock.send(b"\xff" * 6 + b"\2" * 6 + b"\x08\0" + ipv4(17, datagram(nonce)))


def marks_of_datagrams() -> list[bytes]:
    """Those that the rules of the chains `let_out` and `replies` name: values of four bytes."""
    sock = capture.open_netlink(NET_FILTER)
    body = struct.pack("!BBH", nftables.NFPROTO_INET, 0, 0)
    sock.send(netlink.message(10 << 8 | 7, 0x301, body))  # NFT_MSG_GETRULE, a dump
    found: list[bytes] = []
    while True:
        data = sock.recv(1 << 20)
        while data:
            size, kind = struct.unpack_from("=IH", data)
            if kind == 3:  # NLMSG_DONE
                sock.close()
                return [each for each in found if each != b"\0\0\0\1"]  # accept
            rule, data = data[:size], data[size + 3 & ~3 :]
            if b"let_out\0" in rule or b"replies\0" in rule:
                found += re.findall(DATA, rule, re.DOTALL)


def send_marked(mark: bytes, nonce: bytes) -> None:
    """Packets of several protocols, and a frame on each interface, with a mark."""
    by_mark = b"\0" + nonce + b" by mark"
    for family, kind, protocol, to, said in (
        (socket.AF_INET, socket.SOCK_DGRAM, 0, TO4, by_mark),
        (socket.AF_INET6, socket.SOCK_DGRAM, 0, TO6, by_mark),
        (socket.AF_INET, socket.SOCK_RAW, 1, TO4, b"\x08" + bytes(7) + nonce),
        (socket.AF_INET, socket.SOCK_STREAM, 0, TO4, by_mark),
    ):
        with socket.socket(family, kind, protocol) as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, 36, mark)  # SO_MARK
            sock.settimeout(SECONDS)
            sock.connect((to, TRICK_PORT))
            sock.send(said)
    for name in ("eth0", "egress0"):
        send_frame(name, b"\0" + nonce + b" by frame", mark)


def datagram(nonce: bytes) -> bytes:
    return struct.pack("!HHHH", 4000, UDP_PORT, 8 + len(nonce), 0) + nonce


def ipv4(protocol: int, content: bytes, source: str = OWN4, to: str = TO4) -> bytes:
    head = struct.pack("!BxHHHBBH", 0x45, 20 + len(content), 7, 0, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(to)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + content


# Asking the kernel.


def ask(family: int, kind: int, body: bytes, flags: int = 0) -> None:
    """One netlink request; what the kernel refuses is an OSError."""
    request = netlink.NetlinkRequest("", "", kind, flags, body)
    sock = capture.open_netlink(family)
    try:
        capture.ask(sock, [request], wrap=kind >> 8 == 10)
    except capture.Refusal as refusal:
        raise OSError(refusal.number, os.strerror(refusal.number)) from None
    finally:
        sock.close()


def nft(kind: int, body: bytes, family: int = nftables.NFPROTO_INET, flags: int = 0) -> None:
    request = nftables._request("", "", kind, flags, body, family)
    ask(NET_FILTER, request.kind, request.body, request.flags)


def device(name: str) -> int:
    return socket.if_nametoindex(name)


def link(name: str, kind: bytes, *more: bytes, data: bytes = b"") -> None:
    """Make an interface, and start it."""
    info = netlink.attribute(1, kind) + (netlink.nest(2, data) if data else b"")
    body = capture._interface() + netlink.attribute(3, name.encode() + b"\0")
    ask(NET_ROUTE, NEWLINK, body + b"".join(more) + netlink.nest(18, info), CREATE | EXCLUSIVE)
    ask(NET_ROUTE, NEWLINK, capture._interface(device(name), 1, 1))


def address(kind: int, name: str, ip: str, prefix: int) -> None:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    packed = netlink.attribute(1, socket.inet_pton(family, ip))
    local = netlink.attribute(2, socket.inet_pton(family, ip))
    body = struct.pack("=BBBBi", family, prefix, 2 if ":" in ip else 0, 0, device(name))
    ask(NET_ROUTE, kind, body + packed + local, CREATE if kind == NEWADDR else 0)


def route(
    kind: int,
    to: str,
    prefix: int,
    name: str = "",
    *,
    type: int = 1,
    table: int = 254,
    flags: int = CREATE,
) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    scope = 0 if family == socket.AF_INET6 or type != 1 else 253
    body = struct.pack("=BBBBBBBBI", family, prefix, 0, 0, table, 4, scope, type, 0)
    if prefix:
        body += netlink.attribute(1, socket.inet_pton(family, to))
    if name:
        body += netlink.attribute(4, struct.pack("=i", device(name)))
    ask(NET_ROUTE, kind, body, flags if kind == NEWROUTE else 0)


def over(name: str) -> None:
    """Let what is for the documentation networks go by an interface."""
    address(NEWADDR, name, "198.51.100.7", 24)
    route(NEWROUTE, "203.0.113.0", 24, name)
    route(NEWROUTE, "2001:db8::", 32, name)


def unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def new_connection(
    protocol: int,
    original: tuple[str, int, str, int],
    to: tuple[str, int],
    more: bytes,
    reply: tuple[str, int, str, int] | None = None,
) -> None:
    """IPCTNL_MSG_CT_NEW with a translated destination."""
    source, source_port, destination, port = original
    back = reply or (destination, port, source, source_port)
    body = struct.pack("!BBH", socket.AF_INET, 0, 0)
    body += (
        netlink.nest(1, *flow(protocol, original)) + netlink.nest(2, *flow(protocol, back)) + more
    )
    if reply is None:
        ends = netlink.attribute(1, socket.inet_aton(to[0])) + netlink.attribute(
            2, socket.inet_aton(to[0])
        )
        body += netlink.nest(13, ends)  # CTA_NAT_DST
    ask(NET_FILTER, 1 << 8 | 0, body, CREATE | EXCLUSIVE)


def flow(protocol: int, ends: tuple[str, int, str, int]) -> tuple[bytes, bytes]:
    source, source_port, destination, port = ends
    addresses = netlink.attribute(1, socket.inet_aton(source)) + netlink.attribute(
        2, socket.inet_aton(destination)
    )
    ports = netlink.attribute(1, bytes([protocol])) + netlink.attribute(
        2, struct.pack("!H", source_port)
    )
    return netlink.nest(1, addresses), netlink.nest(
        2, ports + netlink.attribute(3, struct.pack("!H", port))
    )
