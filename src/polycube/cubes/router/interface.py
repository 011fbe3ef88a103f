# SPDX-License-Identifier: Apache-2.0
"""A port, or a VLAN of one, as the slow path sees it: configuration and facts put together. No I/O.

The MAC in effect is the configured one, else that of the netdev the port leads to (frames to another MAC might not get in), else one
derived from the cube's uuid and the port's name, which is the same after a restart.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polycube.core.cube import PortFacts
from polycube.cubes.router.addresses import Place, link_local_of, places, routed
from polycube.cubes.router.model import RouterConfig, Urpf
from polycube.net.addr import Address, Mac


@dataclass(frozen=True)
class Interface:
    """All that is needed to write frames."""

    name: str
    number: int  # of the port; with the VLAN in the upper bits
    up: bool
    mac: Mac
    mtu: int  # 0: not known
    link_local: ipaddress.IPv6Address
    ipv4: tuple[ipaddress.IPv4Interface, ...]
    ipv6: tuple[ipaddress.IPv6Interface, ...]
    urpf: Urpf = Urpf.NONE

    @property
    def port(self) -> int:
        """Number of the port."""
        return self.number & 0xFFFF

    @property
    def vlan(self) -> int:
        """The tag of frames; 0: none."""
        return self.number >> 16

    def owns(self, address: Address) -> bool:
        """Whether an address is the port's."""
        return address == self.link_local or address in [one.ip for one in self.ipv4] or address in [one.ip for one in self.ipv6]

    def source4(self, target: Address) -> ipaddress.IPv4Address | None:
        """The own address to speak from: one in the target's network, else the primary one."""
        near = [one.ip for one in self.ipv4 if target in one.network] or [one.ip for one in self.ipv4]
        return near[0] if near else None

    def source6(self, target: Address) -> ipaddress.IPv6Address:
        """The same of IPv6: for a link-local target, or without any other, the link-local address."""
        if target.is_link_local:
            return self.link_local
        near = [one.ip for one in self.ipv6 if target in one.network]
        return (near or [one.ip for one in self.ipv6] or [self.link_local])[0]

    def announced(self) -> tuple[Any, ...]:
        """What neighbours should be told when it changes."""
        return self.mac, self.link_local, self.ipv4, self.ipv6

    def as_map(self) -> dict[str, Any]:
        """The value of the maps `interfaces` and `subinterfaces`."""
        numbers = {"number": self.number, "port": self.port, "vlan": self.vlan, "urpf": list(Urpf).index(self.urpf)}
        return {"mac": bytes(self.mac), "up": 1, "mtu": self.mtu, "link_local": self.link_local.packed, **numbers}


def interface(place: Place, facts: PortFacts, uuid: str) -> Interface:
    """Puts one together."""
    netdev, port = facts.netdev, place.port
    if port.mac is not None:
        mac = Mac.parse(port.mac)
    elif netdev is not None and Mac.parse(netdev.mac) and not Mac.parse(netdev.mac).is_multicast:
        mac = Mac.parse(netdev.mac)
    else:
        mac = Mac.derived(uuid, port.name)
    addresses = routed(place)
    return Interface(
        place.name,
        place.number(facts.number),
        facts.up,
        mac,
        netdev.mtu if netdev is not None else int(facts.peer_facts.get("mtu") or 0),
        link_local_of(place, mac),
        tuple(one for one in addresses if isinstance(one, ipaddress.IPv4Interface)),
        tuple(one for one in addresses if isinstance(one, ipaddress.IPv6Interface)),
        place.config.urpf,
    )


def interfaces(config: RouterConfig, facts: Mapping[str, PortFacts], uuid: str) -> dict[int, Interface]:
    """All ports and their VLANs, by number."""
    found = (interface(place, facts[place.port.name], uuid) for place in places(config.ports).values() if place.port.name in facts)
    return {one.number: one for one in found}
