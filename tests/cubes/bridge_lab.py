# SPDX-License-Identifier: Apache-2.0
"""A bridge under test, set up by the same functions as in its control plane, and frames for it."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from polycube.cubes.bridge.model import BridgeConfig
from polycube.cubes.bridge.vlans import VLANS, domains, memberships
from polycube.testing.cube import CubeUnderTest
from polycube.toolkit.fdb import now

A, B, C = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
BROADCAST = "ff:ff:ff:ff:ff:ff"
DISCARDING, LEARNING, FORWARDING, TOWARDS_ROOT = range(4)


def access(vlan: int) -> dict[str, Any]:
    return {"mode": "access", "access": {"vlanid": vlan}}


def trunk(*allowed: int, native: int | None = None, every: bool = False) -> dict[str, Any]:
    held: dict[str, Any] = {"allowed": [{"vlanid": vlan} for vlan in allowed], "all-vlans": every}
    return {"mode": "trunk", "trunk": held | ({"native-vlan-enabled": False} if native is None else {"native-vlan": native})}


def set_up(bridge: CubeUnderTest, *ports: dict[str, Any]) -> None:
    """Ports as configured: p0, p1, …"""
    config = BridgeConfig.model_validate({"name": "br", "ports": [{"name": f"p{n}", **port} for n, port in enumerate(ports)]})
    members, numbers = memberships(config), {f"p{n}": n for n in range(len(ports))}
    bridge.cfg(aging_time=300)
    for name, one in members.items():
        bridge.map("bridge_ports")[numbers[name]] = one.record()
    for vlan, inside in domains(members, numbers).items():
        bridge.map("bridge_domains")[vlan] = vlan
        bridge.domains[vlan] = inside
    bridge.chain.wire()


def key(address: str, vlan: int) -> dict[str, Any]:
    return {"address": bytes.fromhex(address.replace(":", "")), "vlan": vlan}


def frame(source: str, target: str, *tags: int, load: bytes = b"payload") -> Packet:
    """A frame with these tags, outermost first; more than a VLAN is a whole TCI."""
    packet = Ether(src=source, dst=target)
    for tci in tags:
        packet = packet / Dot1Q(vlan=tci & 0xFFF, prio=tci >> 13)
    return packet / IP() / UDP() / load


def states(bridge: CubeUnderTest, port: int, flushed: int = 0, **vlans: int) -> None:
    """States of a port by VLAN (v1=FORWARDING); the others discard."""
    record = bytearray(VLANS // 4)
    for name, state in vlans.items():
        vlan = int(name[1:])
        record[vlan >> 2] |= state << (vlan & 3) * 2
    bridge.map("bridge_trees")[port] = {"flushed": flushed, "states": bytes(record)}


def beat(bridge: CubeUnderTest, ago: int = 0, limit: int = 3) -> None:
    bridge.map("bridge_heartbeats")[0] = {"beat": now() - ago, "limit": limit}
