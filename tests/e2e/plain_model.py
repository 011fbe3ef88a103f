# SPDX-License-Identifier: Apache-2.0
"""What cubes, ports, peers and stacks are, in dictionaries: what a daemon is compared with. An operation says whether it is to succeed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MOST_PORTS = {"helloworld": 2}
TRANSPARENT = "transparenthelloworld"


@dataclass
class Port:
    peer: str = ""
    stack: list[str] = field(default_factory=list)


@dataclass
class Cube:
    service: str
    type: str
    loglevel: str = "INFO"
    aging: int = 300
    ports: dict[str, Port] = field(default_factory=dict)

    @property
    def transparent(self) -> bool:
        return self.service == TRANSPARENT


class PlainModel:
    """`netdevs`: those there are, all up."""

    def __init__(self, netdevs: list[str]) -> None:
        self.cubes: dict[str, Cube] = {}
        self.stacks: dict[str, list[str]] = {netdev: [] for netdev in netdevs}

    # ---- operations ----

    def create(self, name: str, service: str, type: str, ports: list[str]) -> bool:
        if name in self.cubes or (ports and service == TRANSPARENT) or len(ports) > MOST_PORTS.get(service, 9):
            return False
        self.cubes[name] = Cube(service, type, ports={port: Port() for port in ports})
        return True

    def delete(self, name: str) -> bool:
        if name not in self.cubes:
            return False
        del self.cubes[name]
        for stack in self._stacks():
            if name in stack:
                stack.remove(name)
        for cube in self.cubes.values():
            for port in cube.ports.values():
                if port.peer.startswith(f"{name}:"):
                    port.peer = ""
        return True

    def add_port(self, name: str, port: str, peer: str) -> bool:
        cube = self.cubes.get(name)
        if cube is None or cube.transparent or port in cube.ports or len(cube.ports) >= MOST_PORTS.get(cube.service, 9):
            return False
        cube.ports[port] = Port()
        if peer and not self._may_be_peers(name, port, peer):
            del cube.ports[port]
            return False
        cube.ports[port].peer = peer
        return True

    def delete_port(self, name: str, port: str) -> bool:
        return bool(name in self.cubes and self.cubes[name].ports.pop(port, None))

    def set_peer(self, name: str, port: str, peer: str) -> bool:
        found = self.port(f"{name}:{port}")
        if found is None or (peer and peer != found.peer and not self._may_be_peers(name, port, peer)):
            return False
        found.peer = peer
        return True

    def connect(self, one: str, other: str) -> bool:
        ends = [(end, peer, self.port(end)) for end, peer in ((one, other), (other, one)) if ":" in end]
        if not ends or any(port is None or port.peer for _, _, port in ends):
            return False
        if any(not self._may_be_peers(*end.split(":"), peer) for end, peer, _ in ends):
            return False
        for _, peer, port in ends:
            assert port
            port.peer = peer
        return True

    def disconnect(self, one: str, other: str) -> bool:
        if ":" not in one:
            one, other = other, one
        near, far = self.port(one), self.port(other)
        if near is None or near.peer != other or (":" in other and far is None):
            return False
        near.peer = ""
        if far and far.peer == one:
            far.peer = ""
        return True

    def attach(self, name: str, target: str) -> bool:
        """As the first of those there."""
        cube, stack = self.cubes.get(name), self._stack(target)
        if cube is None or not cube.transparent or stack is None or any(name in other for other in self._stacks()):
            return False
        if ":" in target and self.cubes[target.partition(":")[0]].type != cube.type:
            return False
        stack.insert(0, name)
        return True

    def detach(self, name: str, target: str) -> bool:
        stack = self._stack(target)
        if stack is None or name not in stack:
            return False
        stack.remove(name)
        return True

    def set_loglevel(self, name: str, level: str) -> bool:
        if name not in self.cubes or level == "LOUD":
            return False
        self.cubes[name].loglevel = level
        return True

    def set_aging(self, name: str, seconds: int) -> bool:
        if name not in self.cubes or self.cubes[name].service != "simplebridge" or not seconds:
            return False
        self.cubes[name].aging = seconds
        return True

    # ---- what stands ----

    def document(self) -> dict[str, Any]:
        """As `GET config` has it."""
        cubes = [self._cube(name, cube) for name, cube in sorted(self.cubes.items())]
        attached = {netdev: stack for netdev, stack in self.stacks.items() if stack}
        return {"cubes": cubes} | ({"attached": attached} if attached else {})

    def port(self, end: str) -> Port | None:
        cube, _, port = end.partition(":")
        return self.cubes[cube].ports.get(port) if cube in self.cubes else None

    def _cube(self, name: str, cube: Cube) -> dict[str, Any]:
        found: dict[str, Any] = {"name": name, "service-name": cube.service}
        found |= {"type": cube.type} if cube.type != "TC" else {}
        found |= {"loglevel": cube.loglevel} if cube.loglevel != "INFO" else {}
        found |= {"fdb": {"aging-time": cube.aging}} if cube.aging != 300 else {}
        ports = [
            {"name": name} | ({"peer": port.peer} if port.peer else {}) | ({"tcubes": port.stack} if port.stack else {})
            for name, port in cube.ports.items()
        ]
        return found | ({"ports": ports} if ports else {})

    def _stack(self, target: str) -> list[str] | None:
        if ":" not in target:
            return self.stacks.get(target)
        port = self.port(target)
        return port.stack if port else None

    def _stacks(self) -> list[list[str]]:
        return [*self.stacks.values(), *(port.stack for cube in self.cubes.values() for port in cube.ports.values())]

    def _may_be_peers(self, name: str, port: str, peer: str) -> bool:
        if ":" not in peer:
            users = [(cube, own) for cube, one in self.cubes.items() for own, other in one.ports.items() if other.peer == peer]
            return peer in self.stacks and not set(users) - {(name, port)}
        other = self.cubes.get(peer.partition(":")[0])
        if other is None:
            return True  # it may come
        return peer != f"{name}:{port}" and not other.transparent and other.type == self.cubes[name].type
