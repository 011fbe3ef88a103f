# SPDX-License-Identifier: Apache-2.0
"""What cubes change at netdevs that are not the daemon's own: settings that XDP needs, a port's MAC and addresses. All is taken back
when no cube wants it any more."""

from __future__ import annotations

import structlog

from polycube.net import netns, readiness
from polycube.net.addr import Mac, parse_interface
from polycube.net.links import Links

log = structlog.get_logger("polycubed")


class Netdevs:
    """Changes of the netdevs of one namespace, with what stood before."""

    def __init__(self, links: Links) -> None:
        self.preparations: dict[int, readiness.Preparation] = {}  # ifindex -> what was set for XDP, to be restored
        self._links = links
        self._former_macs: dict[int, Mac] = {}  # ifindex -> what it was before a cube gave it its own
        self._given: set[tuple[int, str]] = set()  # ifindex and address: those that netdevs did not have before

    async def make_ready(self, ifindex: int) -> None:
        """Makes settings for XDP. ValueError: the netdev can't do it."""
        netdev = await self._links.get(ifindex)
        known = self.preparations.get(ifindex)
        result = await netns.call_in(None, lambda: readiness.apply(known) if known else readiness.prepare(netdev))
        if known and isinstance(result, readiness.NotReady):  # made for another netdev, which had this index before
            known, result = None, await netns.call_in(None, lambda: readiness.prepare(netdev))
        if isinstance(result, readiness.NotReady):
            raise ValueError(result.reason)
        self.preparations[ifindex] = result
        for line in _said(result):
            log.info("made ready for XDP", netdev=result.netdev, setting=line)

    async def restore(self, ifindex: int) -> None:
        """Takes settings for XDP back."""
        preparation = self.preparations.pop(ifindex, None)
        if preparation:
            restored = await netns.call_in(None, lambda: readiness.restore(preparation))
            log.info("no longer needed for XDP", netdev=preparation.netdev, settings_restored=len(restored))

    async def renew_readiness(self) -> None:
        """Settings made while the other end of a veth was down don't count in full: makes them again where it came up."""
        for preparation in self.preparations.values():
            if await self._links.find(preparation.ifindex):
                await netns.call_in(None, lambda one=preparation: readiness.is_ready(one) or readiness.apply(one))  # type: ignore[misc]

    async def give(self, ifindex: int, property: str, value: str) -> None:
        """Sets the MAC (`property` is "mac"), or adds an address (`property` itself)."""
        netdev = await self._links.get(ifindex)
        if property == "mac":
            if str(netdev.mac) != value.lower():
                self._former_macs.setdefault(ifindex, netdev.mac)
                await self._links.set_mac(ifindex, Mac.parse(value))
        elif parse_interface(property) not in netdev.addresses:
            await self._links.add_address(ifindex, parse_interface(property))
            self._given.add((ifindex, property))

    async def take_back(self, ifindex: int, property: str) -> None:
        """What was given; an address that was there before stays."""
        netdev = await self._links.find(ifindex)
        former = self._former_macs.pop(ifindex, None) if property == "mac" else None
        given = (ifindex, property) in self._given
        self._given.discard((ifindex, property))
        if netdev and former:
            await self._links.set_mac(ifindex, former)
        elif netdev and given and parse_interface(property) in netdev.addresses:
            await self._links.del_address(ifindex, parse_interface(property))


def _said(preparation: readiness.Preparation) -> list[str]:
    """What was set, for people."""
    settings = [
        f"{one.feature} {'on' if one.new else 'off'} at {one.end.ifname} in {one.end.netns_hint or 'this namespace'}"
        for one in preparation.settings
    ]
    return [*settings, *preparation.notes]
