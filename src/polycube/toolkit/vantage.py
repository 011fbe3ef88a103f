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
from dataclasses import dataclass
from typing import Any

from polycube.core.maps import MapViews
from polycube.model import Ipv4Address, Ipv4Interface, Ipv6Address, Ipv6Interface, MacAddress, Node, leaf
from polycube.net import netns
from polycube.net.addr import Address, Interface, Mac
from polycube.net.links import Links
from polycube.toolkit import tokenbucket

NETDEV = "probe"
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_LONGEST = 1 << 16
_SHORTEST = 60


FRAMES = 5000  # a second, for this host


class ProbeHost(Node):
    """A host of the cube's own behind its backend port, from which it checks its backends. Without addresses the daemon's host does."""

    ip: Ipv4Interface | None = leaf("IPv4 address and prefix length, not used by anybody else", default=None, example="10.0.0.250/24")
    gateway: Ipv4Address | None = leaf("Router to backends in other IPv4 networks", default=None, example="10.0.0.254")
    ipv6: Ipv6Interface | None = leaf("IPv6 address and prefix length", default=None, example="fd00::250/64")
    gateway6: Ipv6Address | None = leaf("Router to backends in other IPv6 networks", default=None, example="fd00::fe")
    mac: MacAddress | None = leaf("MAC of this host; by default made from the cube's UUID", default=None)

    def placed(self, uuid: str) -> Placed | None:
        """The host as it is for a cube; None if there is none."""
        addresses = tuple(address for address in (self.ip, self.ipv6) if address is not None)
        gateways = tuple(address for address in (self.gateway, self.gateway6) if address is not None)
        mac = Mac.parse(self.mac) if self.mac is not None else Mac.derived(uuid, "probe")
        return Placed(mac, addresses, gateways) if addresses else None


@dataclass(frozen=True)
class Placed:
    """MAC, addresses and routers of such a host."""

    mac: Mac
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]

    def cfg(self) -> dict[str, Any]:
        """For CFG(vantage)."""
        found: dict[str, Any] = {"mac": bytes(self.mac), "on": 1}
        for address in self.addresses:
            if address.version == 4:
                found["ipv4"] = int.from_bytes(address.ip.packed, "little")
            else:
                found["ipv6"] = address.ip.packed
        return found


def set_limit(maps: MapViews) -> None:
    """Lets so many frames up; part of `apply` of a new cube."""
    maps["vantage_limit"][0] = {"rate": tokenbucket.rate(FRAMES, FRAMES // 4)}


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
