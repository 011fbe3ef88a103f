# SPDX-License-Identifier: Apache-2.0
"""Multicast snooping (RFC 4541), the control plane's part.

Every IGMP and MLD message comes here instead of being forwarded. What it says of listeners goes into maps by which the data plane drops
copies that nobody wants, with the second until which it holds. The message goes on: a query to all ports of its VLAN, anything else
to the ports that lead to routers, or to all while none is known. The bridge asks nobody itself: without a querier in the VLAN all
multicast is flooded. So it is when the table of listeners is full, until the next query.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from polycube.bpf import MapFull
from polycube.core.slowpath import NotSent
from polycube.cubes.bridge.groups import Address, Message, Said, messages
from polycube.cubes.bridge.vlans import memberships
from polycube.toolkit.fdb import now

if TYPE_CHECKING:
    from polycube.cubes.bridge.cube import Bridge

ROBUSTNESS, QUERY_INTERVAL = 2, 125  # defaults of RFC 3376, 8
LAST_LISTENER = 2  # seconds in which somebody else must answer after a leave
PRIORITY_AND_VLAN = slice(14, 16)
_NOBODY = bytes(16)
_MAPPED = bytes(10) + b"\xff\xff"
_TAG = b"\x81\x00"


class Snooping:
    """See the module's docstring."""

    def __init__(self, cube: Bridge) -> None:
        self.cube = cube

    def receive(self, port: int, vlan: int, frame: bytes) -> None:
        """An IGMP or MLD message."""
        said = messages(frame)
        for message in said:
            self._note(port, vlan, message)
        self._pass_on(port, vlan, frame, to_all=any(one.said is Said.QUERY for one in said))

    def remove_expired(self) -> None:
        """Room for others."""
        groups, second = self.cube.maps["bridge_groups"], now()
        for key, until in list(groups.items()):
            if until <= second:
                del groups[key]

    def _note(self, port: int, vlan: int, message: Message) -> None:
        groups, queriers = self.cube.maps["bridge_groups"], self.cube.maps["bridge_queriers"]
        interval = round(ROBUSTNESS * QUERY_INTERVAL + message.response)
        try:
            if message.said is Said.QUERY:
                if int(message.source):  # without an address it is a proxy's, or a host's before it has one (RFC 4541, 2.1.1)
                    groups[_key(vlan, port, None)] = now() + interval
                if message.group is None:
                    queriers[vlan] = now() + interval
            elif message.said is Said.JOIN and message.group is not None:
                groups[_key(vlan, port, message.group)] = now() + interval
            elif message.said is Said.LEAVE and message.group is not None:
                key = _key(vlan, port, message.group)
                if key in groups:
                    groups[key] = min(groups[key], now() + LAST_LISTENER)
        except MapFull:
            queriers[vlan] = 0

    def _pass_on(self, port: int, vlan: int, frame: bytes, *, to_all: bool) -> None:
        config = self.cube.current
        assert config is not None
        ports = {self.cube.ports[name].number for name, one in memberships(config).items() if vlan in one.vlans and name in self.cube.ports}
        routers = {number for number in ports if self.cube.maps["bridge_groups"].get(_key(vlan, number, None), 0) > now()}
        for number in (ports if to_all or not routers else routers) - {port}:
            try:
                self.cube.send(number, tagged(frame, vlan))
            except NotSent as error:  # lost, as on any link
                self.cube.log.debug("multicast message not passed on", reason=str(error))

    def state(self) -> dict[str, Any]:
        """Listeners and routers, in the words of the model."""
        names = {facts.number: name for name, facts in self.cube.ports.items()}
        found: dict[str, list[dict[str, Any]]] = {"group": [], "router": []}
        for key, until in self.cube.maps["bridge_groups"].items():
            left = until - now()
            if left <= 0 or key["port"] not in names:
                continue
            shown = {"vlan": key["vlan"], "port": names[key["port"]], "expires": left}
            if key["address"] == _NOBODY:
                found["router"].append(shown)
            else:
                found["group"].append(shown | {"group": str(_address(key["address"]))})
        return found


def _key(vlan: int, port: int, group: Address | None) -> dict[str, Any]:
    """struct bridge_group; without a group it stands for a router."""
    packed = group.packed if group is not None else _NOBODY
    return {"vlan": vlan, "port": port, "address": _MAPPED + packed if isinstance(group, IPv4Address) else packed}


def _address(data: bytes) -> Address:
    mapped = IPv6Address(data).ipv4_mapped
    return mapped if mapped is not None else IPv6Address(data)


def tagged(frame: bytes, vlan: int) -> bytes:
    """The frame with the tag of its VLAN, as frames of the control plane have it; a priority is kept."""
    if frame[12:14] == _TAG:
        priority = int.from_bytes(frame[PRIORITY_AND_VLAN], "big") & 0xF000
        return frame[:14] + (priority | vlan).to_bytes(2, "big") + frame[16:]
    return frame[:12] + _TAG + vlan.to_bytes(2, "big") + frame[12:]
