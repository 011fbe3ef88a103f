# SPDX-License-Identifier: Apache-2.0
"""What a cube is told of its ports: how they stand in the kernel, and what is at their other end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polycube.core.cube import NetdevFacts, PortFacts
from polycube.core.topology import PortState
from polycube.daemon.draft import Draft, Entry
from polycube.model import dump
from polycube.net.netdev import Netdev

Told = tuple[tuple[PortFacts, ...], str]  # ports, and what a transparent cube is attached to


@dataclass(frozen=True)
class Facts:
    """Facts of all cubes of a draft."""

    draft: Draft
    states: Mapping[tuple[str, str], PortState]
    netdevs: Mapping[str, Netdev]

    def of(self, entry: Entry) -> Told:
        """What one cube is told."""
        if entry.transparent:
            parent = self.draft.parent(entry.name)
            netdev, peer = self._parent(parent)
            both = zip(("ingress", "egress"), (0, 1), entry.ids, strict=True)
            return tuple(PortFacts(name, number, id, bool(parent), parent, netdev, peer) for name, number, id in both), parent
        return tuple(self._port(entry, name) for name in entry.standard.ports), ""

    def _port(self, entry: Entry, name: str) -> PortFacts:
        port = entry.standard.ports[name]
        number, id = entry.ports[name]
        state = self._state(entry.name, name)
        return PortFacts(name, number, id, state.up, port.peer or "", self._netdev(state.netdev), self._peer(port.peer or ""))

    def _peer(self, peer: str) -> Mapping[str, Any]:
        """Leaves of the port at the other end."""
        cube, colon, name = peer.partition(":")
        other = self.draft.cubes.get(cube)
        if not colon or other is None or other.transparent or name not in other.standard.ports:
            return {}
        return dump(other.standard.ports[name])

    def _parent(self, parent: str) -> tuple[NetdevFacts | None, Mapping[str, Any]]:
        if ":" not in parent:
            owner_port = next((port for _, port in self.draft.ports() if port.peer == parent), None) if parent else None
            return self._netdev(parent), dump(owner_port) if owner_port else {}
        owner, port = self.draft.port(parent)
        return self._netdev(self._state(owner.name, port.name).netdev), dump(port)

    def _state(self, cube: str, port: str) -> PortState:
        return self.states.get((cube, port), PortState(False))

    def _netdev(self, name: str) -> NetdevFacts | None:
        one = self.netdevs.get(name)
        if one is None:
            return None
        return NetdevFacts(one.name, one.ifindex, str(one.mac), one.mtu, tuple(str(address) for address in one.addresses), one.running)
