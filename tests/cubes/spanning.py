# SPDX-License-Identifier: Apache-2.0
"""Bridges of nothing but spanning tree engines, joined by simulated links: messages in order on a link, in any order between links."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from polycube.cubes.bridge.bpdu import TIMES, Bpdu, Times
from polycube.cubes.bridge.port import Role
from polycube.cubes.bridge.tree import Settings, Tree

End = tuple[int, int]  # bridge, port


@dataclass
class Wire:
    """A link between two ends, and what is on its way to either of them."""

    ends: tuple[End, End]
    up: bool = True
    towards: tuple[deque[Bpdu], deque[Bpdu]] = field(default_factory=lambda: (deque(), deque()))


class Network:
    """Bridges, by number, and wires."""

    def __init__(self, bridges: int, pairs: list[tuple[int, int]], rapid: list[bool], seed: int = 0, times: Times = TIMES) -> None:
        self.random = random.Random(seed)
        self.trees = [Tree(Settings((32768 << 48) | number + 1, times, rapid[number])) for number in range(bridges)]
        self.wires: list[Wire] = []
        self.at: dict[End, tuple[Wire, int]] = {}
        self.seconds = 0
        for one, other in pairs:
            ends = tuple((bridge, self._new_port(bridge)) for bridge in (one, other))
            wire = Wire(ends)  # type: ignore[arg-type]
            self.wires.append(wire)
            for side, end in enumerate(ends):
                self.at[end] = (wire, side)
            for bridge, port in ends:
                self.trees[bridge].link(port, True)
        for bridge, tree in enumerate(self.trees):
            tree.run()
            self._collect(bridge)
        self.check()

    def _new_port(self, bridge: int) -> int:
        tree = self.trees[bridge]
        number = len(tree.ports)
        tree.add(number)
        return number

    # ---- what happens ----

    def second(self) -> None:
        """Every bridge's clock ticks once; between the ticks what is on the wires arrives, now and then only some of it."""
        for bridge in self.random.sample(range(len(self.trees)), len(self.trees)):
            self.trees[bridge].tick()
            self._collect(bridge)
            self.check()
            for _ in range(self.random.randrange(4)):
                self.deliver()
        while self.deliver():
            pass
        self.seconds += 1

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.second()

    def deliver(self) -> bool:
        """One message arrives; False if there is none."""
        waiting = [(wire, side) for wire in self.wires for side in (0, 1) if wire.towards[side]]
        if not waiting:
            return False
        wire, side = self.random.choice(waiting)
        bridge, port = wire.ends[side]
        self.trees[bridge].receive(port, wire.towards[side].popleft())
        self._collect(bridge)
        self.check()
        return True

    def set_link(self, wire: Wire, up: bool) -> None:
        wire.up = up
        for queue in wire.towards:
            queue.clear()
        for bridge, port in wire.ends:
            self.trees[bridge].link(port, up)
            self.trees[bridge].run()
            self._collect(bridge)
            self.check()

    def _collect(self, bridge: int) -> None:
        for port, bpdu in self.trees[bridge].outbox:
            wire, side = self.at[bridge, port]
            if wire.up:
                wire.towards[1 - side].append(bpdu)
        self.trees[bridge].outbox.clear()

    # ---- what must hold ----

    def open(self, wire: Wire) -> bool:
        """Whether frames pass the wire, in at least one direction."""
        return wire.up and all(self.trees[bridge].ports[port].forwarding for bridge, port in wire.ends)

    def check(self) -> None:
        """No loop: the wires that frames pass are a forest."""
        group = list(range(len(self.trees)))

        def root(one: int) -> int:
            while group[one] != one:
                one = group[one]
            return one

        for wire in self.wires:
            if self.open(wire):
                one, other = (root(bridge) for bridge, _ in wire.ends)
                assert one != other, f"a loop through {wire.ends} in second {self.seconds}"
                group[one] = other

    def parts(self, wires: list[Wire]) -> list[set[int]]:
        """Bridges that are joined by these wires."""
        parts = [{bridge} for bridge in range(len(self.trees))]
        for wire in wires:
            one, other = (next(part for part in parts if bridge in part) for bridge, _ in wire.ends)
            if one is not other:
                parts.remove(other)
                one |= other
        return sorted(parts, key=min)

    def assert_converged(self) -> None:
        """One tree in each part: its root is the best bridge there, and frames reach all of the part."""
        present = self.parts([wire for wire in self.wires if wire.up])
        assert self.parts([wire for wire in self.wires if self.open(wire)]) == present
        for part in present:
            best = min(self.trees[bridge].settings.identifier for bridge in part)
            assert {self.trees[bridge].root_priority.root for bridge in part} == {best}
            for bridge in part:
                roles = [port.role for port in self.trees[bridge].ports.values()]
                assert roles.count(Role.ROOT) == (self.trees[bridge].settings.identifier != best)
