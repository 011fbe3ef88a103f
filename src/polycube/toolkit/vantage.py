# SPDX-License-Identifier: Apache-2.0
"""A host of the control plane's own behind a port of its cube.

What stands behind a cube may be out of reach of the daemon's own stack. So the kernel gets a second one: a network namespace without a
name, whose only netdev is a TAP. Frames that its stack sends go out of the cube's port (`Cube.send`), and what the data plane hands up
because it is for this host's MAC or addresses goes in. Connections, echoes, ARP and Neighbour Discovery are thus the kernel's, and take
the way that traffic takes. The namespace ends with the process.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Sequence

from polycube.net import netns
from polycube.net.addr import Address, Interface, Mac
from polycube.net.links import Links

NETDEV = "probe"
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_LONGEST = 1 << 16
_SHORTEST = 60


class PortVantage:
    """Sockets made here speak through the cube; `open` first, `close` at the end."""

    def __init__(self, mac: Mac, addresses: Sequence[Interface], gateways: Sequence[Address], send: Callable[[bytes], None]) -> None:
        self.mac = mac
        self._addresses = addresses
        self._gateways = gateways
        self._send = send
        self._namespace: netns.Namespace | None = None
        self._tap = -1

    async def open(self) -> None:
        """Raises NetError or OSError (no /dev/net/tun)."""
        self._namespace = netns.anonymous()
        self._tap = netns.run_in(self._namespace, _tap)
        async with Links(self._namespace) as links:
            await links.set_mac(NETDEV, self.mac)
            await links.set_up(NETDEV)
            for address in self._addresses:
                await links.add_address(NETDEV, address)
            for gateway in self._gateways:
                await links.add_default_route(gateway)
        asyncio.get_running_loop().add_reader(self._tap, self._readable)

    def socket(self, family: int, type: int, proto: int = 0) -> socket.socket:
        if self._namespace is None:
            raise OSError(0, "the cube's own host is not there yet")
        return netns.run_in(self._namespace, lambda: socket.socket(family, type | socket.SOCK_CLOEXEC, proto))

    def receive(self, frame: bytes) -> None:
        """A frame for this host."""
        if self._tap >= 0:
            try:
                os.write(self._tap, frame)
            except OSError:
                return  # its queue is full, or the frame is none: lost, as on any link

    def close(self) -> None:
        if self._tap >= 0:
            asyncio.get_running_loop().remove_reader(self._tap)
            os.close(self._tap)
            self._tap = -1
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None

    def _readable(self) -> None:
        for _ in range(64):  # then others have their turn
            try:
                frame = os.read(self._tap, _LONGEST)
            except OSError:
                return
            self._send(frame.ljust(_SHORTEST, b"\0"))


def _tap() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", NETDEV.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd
