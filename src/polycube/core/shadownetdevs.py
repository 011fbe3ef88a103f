# SPDX-License-Identifier: Apache-2.0
"""Namespaces of shadow cubes, and the veths into them.

A namespace is one of `ip netns`. Whose it is says the alias of its loopback device, "polycube:" and the cube's uuid: so the next daemon
knows it, and one that somebody else has made is left alone. A port's veth has the same ifindex at both ends, of the daemon's choosing; in
the namespace it is called as the port, and everything about it but its name belongs to whoever works there.

Programs, by filters which go with their netdev: what comes out of the namespace is led out of the cube's port (XDP cubes: by XDP, of the
cube's mode), and copies for those who capture there do not reach its stack.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from polycube.bpf import AttachType, Link, Program, XdpMode, pin, tcfilter
from polycube.bpf.link import xdp_mode
from polycube.core.operation import Key, Kind
from polycube.core.paths import LEAD_XDP, Paths, Point
from polycube.core.topology import HOST_BASE, SHADOW_BASE
from polycube.net import ethtool, netns
from polycube.net.errors import NamespaceExists, NetError, NoSuchNamespace
from polycube.net.links import Links
from polycube.net.netdev import Netdev
from polycube.net.rtnl import Rtnl

SHADOW_PROGRAMS = {"pcn_shadow_out": "shadow_out", "pcn_shadow_in": "shadow_in", "pcn_shadow_end": "shadow_end"}  # and their pins
PREFIX = "pcn-"  # of names of namespaces
MARK = "polycube:"  # of the alias of a namespace's loopback device
LOOPBACK = 1
# The first IPv4 address of a network does not take the others along, IPv6 addresses stay while a netdev is down, routers are not believed
SETTINGS = {"ipv4/conf/{}/promote_secondaries": "1", "ipv6/conf/{}/keep_addr_on_down": "1", "ipv6/conf/{}/accept_ra": "0"}


class Taken(NetError):
    """A namespace of that name is there, and not ours."""

    status = 409

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the network namespace {name} is somebody else's; remove it (`ip netns del {name}`), or give the cube another name"
        )


class ShadowNetdevs:
    """What there is of them in the kernel."""

    def __init__(self, paths: Paths, links: Links) -> None:
        self._paths = paths
        self._links = links

    # ---- namespaces ----

    async def add_namespace(self, name: str, uuid: str) -> None:
        """Makes one, or takes over what a cube of the same name has left. Raises `Taken`."""
        await netns.call_in(None, lambda: _make_namespace(name, uuid))

    async def remove_namespace(self, name: str) -> None:
        """Takes its name away; processes that are in it keep it."""
        with suppress(NoSuchNamespace):
            await netns.call_in(None, lambda: netns.delete(name) if _owner(name) else None)

    # ---- veths ----

    async def add(self, index: int, new: Mapping[str, Any]) -> None:
        """Makes a veth, or sets its MTU, and its near end up or down, if that is all that has changed."""
        there = await self._links.find(index)
        standing = await asyncio.to_thread(lambda: dict(self.read())[Key(Kind.SHADOW, (index,))]) if there else None
        if standing is None or {**standing, "up": new["up"], "mtu": new["mtu"]} != new:
            await self.remove(index)
            try:
                await netns.call_in(None, lambda: self._make(index, new["namespace"], new["name"], new["mode"]))
            except BaseException:
                await self.remove(index)
                raise
            standing = None
        if standing is None or standing["mtu"] != new["mtu"]:
            await netns.call_in(None, lambda: _resize(index, new["namespace"], new["mtu"]))
        await self._links.set_up(index, new["up"])

    def _make(self, index: int, namespace: str, name: str, mode: str) -> None:
        """In the daemon's own namespace. The near end comes up last."""
        with Rtnl() as rtnl, netns.Namespace.named(namespace) as where:
            rtnl.create_veth(f"pcn{index - SHADOW_BASE}s", index, name, index, where=where.fd)
            _write("ipv6/conf/{}/disable_ipv6", f"pcn{index - SHADOW_BASE}s", "1")
            self._filter("shadow_in", index, AttachType.TCX_EGRESS)
            if mode:
                with Program.open(self._paths.shared_map(LEAD_XDP)) as program, Link.xdp(program, index, XdpMode[mode.upper()]) as link:
                    link.pin(self._paths.link(index, Point.XDP))
            else:
                self._filter("shadow_out", index, AttachType.TCX_INGRESS)
            netns.run_in(where, lambda: self._prepare(index, name, mode))

    def _prepare(self, index: int, name: str, mode: str) -> None:
        """In the cube's namespace."""
        for setting, value in SETTINGS.items():
            _write(setting, name, value)
        if mode:  # XDP takes no unfinished checksums and no large packets, and gives only to who polls
            ethtool.set(name, gro=True, tx_checksum=False, tso=False, gso=False, txvlan=False)
        self._filter("shadow_end", index, AttachType.TCX_INGRESS)
        with Rtnl() as rtnl:
            rtnl.change(index, up=True)

    def _filter(self, program: str, index: int, point: AttachType) -> None:
        with Program.open(self._paths.shared_map(program)) as opened:
            tcfilter.attach(opened, index, point)

    async def remove(self, index: int) -> None:
        """Nothing happens if it is gone."""
        pin.remove(self._paths.link(index, Point.XDP))
        if await self._links.find(index):
            await self._links.delete(index)

    # ---- adoption ----

    def read(self) -> Iterator[tuple[Key, Any]]:
        """What stands: a veth whose end in the namespace is gone, or called otherwise, shows as one that fits nowhere."""
        near = [index for index, _ in socket.if_nameindex() if SHADOW_BASE <= index < HOST_BASE]
        far: dict[int, tuple[str, str]] = {}
        for name in netns.names():
            owner = _owner(name) if name.startswith(PREFIX) else ""
            if owner:
                yield Key(Kind.NAMESPACE, (name,)), {"uuid": owner}
                far |= {index: (name, netdev) for index, netdev in netns.run_in(name, socket.if_nameindex) if index >= SHADOW_BASE}
        for index in near:
            namespace, name = far.get(index, ("", ""))
            with Rtnl() as rtnl:
                netdev = rtnl.link(index)
            mode = xdp_mode(index) if netdev and netdev.xdp else ""
            value = {
                "namespace": namespace,
                "name": name,
                "mode": mode,
                "mtu": netdev.mtu if netdev else 0,
                "up": bool(netdev and netdev.up),
            }
            yield Key(Kind.SHADOW, (index,)), value

    def shut(self) -> frozenset[int]:
        """Ids of ports that are set down in their namespace."""
        found: set[int] = set()
        for name in netns.names():
            if name.startswith(PREFIX) and _owner(name):
                netdevs = netns.run_in(name, _netdevs)
                found |= {one.ifindex - SHADOW_BASE for one in netdevs if one.ifindex >= SHADOW_BASE and not one.up}
        return frozenset(found)


def _netdevs() -> list[Netdev]:
    with Rtnl() as rtnl:
        return rtnl.links()


def _make_namespace(name: str, uuid: str) -> None:
    try:
        netns.create(name).close()
    except NamespaceExists:
        if not _owner(name):
            raise Taken(name) from None
        left = [index for index, _ in netns.run_in(name, socket.if_nameindex) if index >= SHADOW_BASE]
        netns.run_in(name, lambda: _delete(left))
    netns.run_in(name, lambda: _mark(uuid))


def _resize(index: int, namespace: str, mtu: int) -> None:
    def resize() -> None:
        with Rtnl() as rtnl:
            rtnl.change(index, mtu=mtu)

    resize()
    netns.run_in(namespace, resize)


def _delete(indexes: list[int]) -> None:
    with Rtnl() as rtnl:
        for index in indexes:
            rtnl.delete(index)


def _mark(uuid: str) -> None:
    with Rtnl() as rtnl:
        rtnl.change(LOOPBACK, alias=MARK + uuid)


def _owner(name: str) -> str:
    """The uuid of the cube that has a namespace; "" if it is not ours."""

    def read() -> str:
        with Rtnl() as rtnl:
            loopback = rtnl.link(LOOPBACK)
        return loopback.alias if loopback else ""

    try:
        alias = netns.run_in(name, read)
    except (NetError, OSError):  # a name without a namespace: of one that went with a reboot, say
        return ""
    return alias.removeprefix(MARK) if alias.startswith(MARK) else ""


def _write(setting: str, netdev: str, value: str) -> None:
    """One of the sysctls of the calling thread's namespace; some containers have them read-only."""
    with suppress(OSError):
        Path("/proc/sys/net", setting.format(netdev)).write_text(value)
