"""Prints every packet that this network namespace's interfaces carry and that holds the nonce; standard library only.

`test_escape` runs it as `packet_capture.py NONCE` in a container in the network namespace of the host. TCP over
loopback is left out: there the test process itself copies what a target has sent, where its link is a stream.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

EVERYTHING = 3  # ETH_P_ALL
BUFFER = 64 << 20
_ATTACH_FILTER, _BUFFER_FORCE, _SOL_PACKET, _STATISTICS = 26, 33, 263, 6
_INTERFACE, _PROTOCOL = 0xFFFFF008, 0xFFFFF000  # SKF_AD_OFF and what it is of (linux/filter.h)
_LOOPBACK, _TCP, _IPV4, _IPV6 = 1, 6, 0x0800, 0x86DD
_WORD, _BYTE, _IF_EQUAL, _RETURN = 0x20, 0x30, 0x15, 0x06
FILTER = [
    (_WORD, 0, 0, _INTERFACE),
    (_IF_EQUAL, 0, 7, _LOOPBACK),
    (_WORD, 0, 0, _PROTOCOL),
    (_IF_EQUAL, 0, 2, _IPV4),
    (_BYTE, 0, 0, 14 + 9),
    (_IF_EQUAL, 4, 3, _TCP),
    (_IF_EQUAL, 0, 2, _IPV6),
    (_BYTE, 0, 0, 14 + 6),
    (_IF_EQUAL, 1, 0, _TCP),
    (_RETURN, 0, 0, 0xFFFFFFFF),
    (_RETURN, 0, 0, 0),
]
"""All but TCP on loopback, as the kernel filters (bpf(4))."""


def main(nonce: bytes) -> None:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
    sock.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCE, BUFFER)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *it) for it in FILTER))
    program = struct.pack("@HP", len(FILTER), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    print("ready", flush=True)
    while True:
        data, (interface, *_) = sock.recvfrom(65536)
        if nonce in data:
            found = data[data.index(nonce) :][:64].decode("ascii", "replace")
            _, lost = struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _STATISTICS, 8))
            print(interface, f"lost={lost}", *ends_of(data), found, flush=True)


def ends_of(frame: bytes) -> tuple[str, str]:
    """From where to where a segment of TCP over IPv4 goes; of any other frame ("-", "-")."""
    header = 14 + 4 * (frame[14] & 15)
    if frame[12:14] != b"\x08\x00" or frame[14 + 9] != _TCP:
        return "-", "-"
    ports = struct.unpack_from("!HH", frame, header)
    addresses = frame[26:30], frame[30:34]
    source, target = (
        f"{socket.inet_ntoa(it)}:{port}" for it, port in zip(addresses, ports, strict=True)
    )
    return source, target


if __name__ == "__main__":
    main(sys.argv[1].encode())
