# SPDX-License-Identifier: Apache-2.0
"""A process of its own world: private network and mount namespaces, an own bpffs and an own /run/netns.

Nothing made in it is seen outside, and everything goes with the process: netdevs, namespaces, pins, programs. The machine's own network
is out of reach.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from fcntl import ioctl

_NEWNS, _NEWNET = 0x00020000, 0x40000000
_PRIVATE_RECURSIVE = 1 << 18 | 1 << 14
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_libc = ctypes.CDLL(None, use_errno=True)
_isolated: int | None = None


def isolate() -> None:
    """Moves this process into its own world, once."""
    global _isolated
    if _isolated == os.getpid():
        return
    _do("unshare", _libc.unshare(_NEWNS | _NEWNET))
    _do("make / private", _libc.mount(b"none", b"/", None, _PRIVATE_RECURSIVE, None))
    _do("mount sysfs", _libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None))
    _do("mount bpffs", _libc.mount(b"bpf", b"/sys/fs/bpf", b"bpf", 0, None))
    os.makedirs("/run/netns", exist_ok=True)
    _do("mount /run/netns", _libc.mount(b"tmpfs", b"/run/netns", b"tmpfs", 0, None))
    _do("share /run/netns", _libc.mount(b"none", b"/run/netns", None, 1 << 20, None))  # so that namespaces made later are seen by children
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack_from("16sh", request)[1]
        ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
    _isolated = os.getpid()


def _do(what: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
