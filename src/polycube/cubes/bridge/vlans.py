# SPDX-License-Identifier: Apache-2.0
"""From a bridge's configuration to its ports' parts in VLANs, and to flood domains. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from polycube.cubes.bridge.model import BridgeConfig, BridgePort, PortMode

VLANS = 4096
EVERY = frozenset(range(1, VLANS - 1))
DEFAULT = 1
_MOST_DOMAINS = 1000  # the data plane has 1,024
_MOST_MEMBERS = 8000  # of all domains together: in XDP each costs a device map


@dataclass(frozen=True)
class Membership:
    """A port's part in VLANs. `pvid` 0: untagged frames are dropped."""

    pvid: int
    tagged: bool
    vlans: Set[int]
    named: Set[int]  # those of `vlans` that the configuration names

    def record(self) -> dict[str, object]:
        """For the data plane: struct bridge_port."""
        return {"pvid": self.pvid, "tagged": int(self.tagged), "vlans": _ALL if self.vlans is EVERY else bitmap(self.vlans)}


def bitmap(vlans: Set[int]) -> bytes:
    """A bit for each VLAN."""
    bits = bytearray(VLANS // 8)
    for vlan in vlans:
        bits[vlan >> 3] |= 1 << (vlan & 7)
    return bytes(bits)


_ALL = bitmap(EVERY)


def membership(port: BridgePort) -> Membership:
    """What the configuration of a port means."""
    if port.mode is PortMode.ACCESS:
        vlan = frozenset({port.access.vlanid})
        return Membership(port.access.vlanid, False, vlan, vlan)
    trunk = port.trunk
    native = trunk.native_vlan if trunk.native_vlan_enabled else 0
    named = frozenset(trunk.allowed or (() if trunk.all_vlans else (DEFAULT,))) | ({native} if native else set())
    return Membership(native, True, EVERY if trunk.all_vlans else named, named)


def memberships(config: BridgeConfig) -> dict[str, Membership]:
    """Those of all ports, by name."""
    return {name: membership(port) for name, port in config.ports.items()}


def named(members: Mapping[str, Membership]) -> set[int]:
    """VLANs that the configuration names."""
    return {vlan for one in members.values() for vlan in one.named}


def domains(members: Mapping[str, Membership], numbers: Mapping[str, int]) -> dict[int, list[int]]:
    """A flood domain for each VLAN that is named, under the VLAN's number, as long as there is room; the others use domain 0 of all ports,
    and the egress handler drops what is too much."""
    found: dict[int, list[int]] = {}
    room = _MOST_MEMBERS
    for vlan in sorted(named(members))[:_MOST_DOMAINS]:
        ports = [numbers[name] for name, one in members.items() if vlan in one.vlans and name in numbers]
        room -= len(ports)
        if room < 0:
            break
        found[vlan] = ports
    return found
