# SPDX-License-Identifier: Apache-2.0
"""The ways into cubes for frames of the slow path: veth pairs, into whose outer end user space sends. The program on the inner end leads
the frame to the cube that the frame itself names.
"""

from __future__ import annotations

from polycube.bpf import AttachType, Link, Program, XdpMode, features, pin, tcfilter
from polycube.core.paths import GENERIC_DEVICE, INJECTION_DEVICE, LEAD_TC, XDP_INJECTOR, Paths, Point
from polycube.core.topology import VETH_BASE
from polycube.net import netns
from polycube.net.links import Links
from polycube.net.rtnl import Rtnl

INJECT_OUTER, INJECT_INNER = VETH_BASE - 2, VETH_BASE - 1
GENERIC_OUTER, GENERIC_INNER = VETH_BASE - 4, VETH_BASE - 3
INTERNAL = GENERIC_OUTER  # netdevs with this ifindex or a higher one are the daemon's own


class WaysIn:
    """One for TC, one for XDP."""

    def __init__(self, paths: Paths, links: Links) -> None:
        self._paths = paths
        self._links = links

    async def make(self) -> None:
        """Makes what is missing, and attaches the programs, which are pinned."""
        await self._make_device(INJECTION_DEVICE, INJECT_OUTER, 65535)
        await self._make_device(GENERIC_DEVICE, GENERIC_OUTER, 9000)
        with Program.open(self._paths.shared_map(LEAD_TC)) as program:
            if features().tcx:
                self._attach(program, INJECT_INNER, Point.TC_INGRESS)
            else:
                tcfilter.attach(program, INJECT_INNER, AttachType.TCX_INGRESS)
        with Program.open(self._paths.shared_map(XDP_INJECTOR)) as program:
            self._attach(program, GENERIC_INNER, Point.XDP)

    async def remove(self) -> None:
        """Takes the devices away."""
        for index in (INJECT_OUTER, GENERIC_OUTER):
            if await self._links.find(index):
                await self._links.delete(index)

    async def _make_device(self, name: str, index: int, mtu: int) -> None:
        if not await self._links.find(index):
            await create_veth(name, index, name[:-1] + "1", index + 1, mtu)
        for end in (index + 1, index):  # the outer end last: what is sent before the kernel has looked at its carrier would be dropped
            await self._links.disable_ipv6(end)
            await self._links.set_up(end)

    def _attach(self, program: Program, ifindex: int, point: Point) -> None:
        path = self._paths.link(ifindex, point)
        standing = Link.find(path)
        if standing and standing.info.ifindex:
            with standing:
                standing.update(program)
            return
        pin.remove(path)
        made = Link.xdp(program, ifindex, XdpMode.SKB) if point is Point.XDP else Link.tcx(program, ifindex, AttachType.TCX_INGRESS)
        with made as link:
            link.pin(path)


async def create_veth(name: str, index: int, peer: str, peer_index: int, mtu: int = 1500) -> None:
    """A veth pair with ifindexes of the caller's choosing."""

    def create() -> None:
        with Rtnl() as rtnl:
            rtnl.create_veth(name, index, peer, peer_index, mtu)

    await netns.call_in(None, create)
