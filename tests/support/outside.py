"""A network of a test's own, in which real servers have addresses that are no address of the machine's.

Two network namespaces on two threads, joined by a pair of interfaces. Whatever is started on the near thread, a gateway
or a process, is in the near one, and resolves names by a hosts file of its own; every address that is none of it leads
to the far one, where servers listen. Both vanish with the process, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

NEWNS, NEWNET = 0x00020000, 0x40000000  # unshare(2)
NEAR, FAR = "198.51.100.1", "198.51.100.254"
NEAR6, FAR6 = "2001:db8:1::1", "2001:db8:1::2"
REAL, API, EDGE = "203.0.113.80", "203.0.113.81", "203.0.113.82"
HOSTS: Final = f"""
127.0.0.1 localhost own.test both.test
::1 own6.test
::ffff:127.0.0.1 mapped.test
{NEAR} near.test
{NEAR6} near6.test
169.254.169.254 metadata.test
224.0.0.7 many.test
0.0.0.0 none.test
{REAL} real.test
{API} api.test
{EDGE} edge.test both.test
"""

Result = TypeVar("Result")


class Outside:
    """The network; `near` calls a function in it.

    Args:
        folder: For its hosts file.
    """

    def __init__(self, folder: Path) -> None:
        self._open = ExitStack()
        self._near, self._far = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._open.callback(self._far.shutdown)
        self._open.callback(self._near.shutdown)
        hosts = folder / "hosts"
        hosts.write_text(HOSTS)
        far = self._far.submit(unshare, NEWNET).result()
        self.near(unshare, NEWNET | NEWNS)
        self.near(run, "mount", "--make-rprivate", "/")
        self.near(run, "mount", "--bind", str(hosts), "/etc/hosts")
        self.near(ip, f"link add near0 type veth peer name far0 netns {far}")
        ends = ((self.near, "near0", NEAR, NEAR6), (self.far, "far0", FAR, FAR6))
        for call, name, ours, ours6 in ends:
            call(ip, f"address add {ours}/24 dev {name}")
            call(ip, f"address add {ours6}/64 dev {name} nodad")
            call(ip, "link set lo up")
            call(ip, f"link set {name} up")
        self.near(ip, f"route add default via {FAR}")
        self.near(ip, f"route add default via {FAR6}")
        self.far(ip, "route add local default dev lo table main")
        self.far(ip, "route add local default dev lo table main", "-6")

    def near(self, function: Callable[..., Result], *args: object) -> Result:
        """Call it in the near namespace; threads and processes that it starts are there for good."""
        folder = os.getcwd()

        def call() -> Result:
            os.chdir(folder)  # a thread with mounts of its own has a working directory of its own
            return function(*args)

        return self._near.submit(call).result()

    def far(self, function: Callable[..., Result], *args: object) -> Result:
        """Call it in the far namespace."""
        return self._far.submit(function, *args).result()

    def listen(self, port: int) -> socket.socket:
        """A listener at a port of every address that is not near."""
        return self.far(socket.create_server, ("0.0.0.0", port))

    def close(self) -> None:
        """End both threads."""
        self._open.close()


def unshare(flags: int) -> int:
    """Give the thread namespaces of its own; returns its identifier."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return threading.get_native_id()


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def ip(command: str, *options: str) -> None:
    run("ip", *options, *command.split())
