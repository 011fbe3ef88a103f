# SPDX-License-Identifier: Apache-2.0
"""Network functions tested like functions: packet in; verdict, out port, packet out and map changes.

    chain = Chain(Hook.XDP)
    br = chain.cube("simplebridge", ports=3)
    br.cfg(aging_time=300)
    br.send(Ether() / IP() / UDP(), port=0).flooded(ports=[1, 2])

Each cube is its real unit of one with its own maps; ports of several can be linked, transparent cubes stacked on them, and every port that
is not linked is an edge where frames are observed. Works without pytest too, in a process that was isolated (isolation.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from polycube.bpf import u32
from polycube.compiler.code import Code, CodeError, Language
from polycube.compiler.function import PACKAGE, Function, Hook
from polycube.core.slowpath import INJECT, MARK_OUT, META_OUT
from polycube.testing.cube import EGRESS, INGRESS, Changes, Counters, CubeUnderTest
from polycube.testing.fuse import FusedPrograms
from polycube.testing.observation import Observation
from polycube.testing.packets import PacketLike, to_bytes
from polycube.testing.result import Drop, Event, Exit, Result
from polycube.testing.stage import PROBE_SLOT, stage, with_tag

__all__ = [
    "Chain",
    "Changes",
    "Code",
    "CodeError",
    "Counters",
    "CubeUnderTest",
    "Drop",
    "Event",
    "Exit",
    "Function",
    "Hook",
    "Language",
    "Result",
    "find_function",
]

NEXT_NONE, NEXT_NETDEV, NEXT_CUBE, NEXT_STACK = range(4)
OWN_FLOOD, INDIRECT = 2, 4
TC_PASS = {0xFFFFFFFF, 0}  # TC_ACT_UNSPEC, TC_ACT_OK
TC_REDIRECT = 7
FUSED = "POLYCUBE_TEST_FUSED"


def find_function(service: str | Path | Function, transparent: bool = False) -> Function:
    """A service of the package by name, one in a folder by its path, or a function as it is."""
    if isinstance(service, Function):
        return service
    folder = service if isinstance(service, Path) else PACKAGE / "cubes" / service
    return Function(folder.name, folder.resolve(), transparent)


class Chain:
    """Cubes on the stage of a hook: one, or several linked to each other. Observed at all edges."""

    def __init__(self, hook: Hook, fused: bool | None = None) -> None:
        """`fused`: frames enter by a fused unit, made anew whenever next hops or constants have changed; the default is False, unless
        the variable POLYCUBE_TEST_FUSED is in the environment, so that any test of a cube tests it fused, too."""
        self.hook = Hook(hook)
        self.stage = stage(self.hook)
        self.cubes: list[CubeUnderTest] = []
        self.fused = FusedPrograms(self) if (fused if fused is not None else FUSED in os.environ) else None

    def cube(
        self,
        service: str | Path | Function,
        *,
        ports: int = 2,
        transparent: bool = False,
        name: str | None = None,
        sizes: dict[str, int] | None = None,
    ) -> CubeUnderTest:
        """Adds a cube. `service`: a name, a folder, or a Function; `sizes`: other max_entries for some maps."""
        function = find_function(service, transparent)
        label = name or function.name + (str(len(self.cubes) + 1) if any(c.function == function for c in self.cubes) else "")
        cube = CubeUnderTest(self, function, ports, label, sizes or {})
        if cube.floods:
            cube.domains[0] = list(range(ports))
        self.cubes.append(cube)
        self.wire()
        return cube

    def link(self, a: CubeUnderTest, a_port: int, b: CubeUnderTest, b_port: int) -> None:
        """Joins two ports."""
        a.peers[a_port], b.peers[b_port] = (b, b_port), (a, a_port)
        self.wire()

    def stack(self, transparent: CubeUnderTest, cube: CubeUnderTest, port: int) -> None:
        """Puts a transparent cube on a port, outside of those that are there."""
        cube.stacks.setdefault(port, []).append(transparent)
        self.wire()

    def send(self, packet: PacketLike, cube: CubeUnderTest, port: int = 0, *, mark: int = 0, gso_size: int = 0) -> Result:
        """A frame that arrives at an edge from outside. TC: with a `gso_size` it is one that the kernel will still cut into segments."""
        ifindex = cube.netdevs.get(port, self.stage.near)
        first, name = cube, "entry"
        if cube.function.transparent:
            name = "ingress" if port == INGRESS else "egress"
        elif cube.stacks.get(port):
            first, name = cube.stacks[port][-1], "ingress"
        else:
            entry = port.to_bytes(4, "little") + u32(cube.ids[port])
            self.stage.maps["pcn_entries"].set(u32(ifindex), entry)
        program = self.fused.get(first, name, port if first is cube else INGRESS, ifindex) if self.fused else first.program(name)
        frame = to_bytes(packet)
        return self._run(cube, port, frame, lambda: self.stage.run(program, frame, ifindex=ifindex, mark=mark, gso_size=gso_size))

    def inject(self, packet: PacketLike, cube: CubeUnderTest, port: int, *, out: bool = True) -> Result:
        """A frame from the control plane."""
        frame, flags = to_bytes(packet), META_OUT if out else 0
        slot = cube.number * 2
        if cube.function.transparent:
            slot += port
        if self.hook == Hook.XDP:
            header = INJECT.pack(port, flags, cube.ids[port], slot, 0)
            return self._run(cube, port, frame, lambda: self.stage.run(self.stage.inject, header + frame))
        where = slot << 16 | (MARK_OUT if out else 0) | port
        return self._run(cube, port, frame, lambda: self.stage.run(self.stage.lead, frame, mark=where))

    def wire(self) -> None:
        """Writes all next hops and flood domains."""
        self.stage.free_devices()
        stacked = {t.number for cube in self.cubes for stack in cube.stacks.values() for t in stack}
        for cube in self.cubes:
            if not cube.function.transparent:
                for port in range(cube.ports):
                    self._wire_port(cube, port)
            elif cube.number not in stacked:
                for direction in (INGRESS, EGRESS):
                    probe = {"next": NEXT_CUBE, "target": PROBE_SLOT, "peer_port": cube.ids[direction]}
                    cube.write_port(direction, id=cube.ids[direction], **probe)
        for cube in self.cubes:
            if cube.floods:
                cube.write_domains()

    def close(self) -> None:
        """Takes all cubes off the stage."""
        if self.fused:
            self.fused.close()
        for cube in self.cubes:
            cube.close()
        self.cubes.clear()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wire_port(self, cube: CubeUnderTest, port: int) -> None:
        if port in cube.netdevs:
            ifindex = cube.netdevs[port] = self.stage.netdev(cube.ids[port])
            if self.hook == Hook.XDP:
                self.stage.maps["pcn_netdevs"].set(u32(cube.ids[port]), u32(ifindex))
            cube.write_port(port, next=NEXT_NETDEV, target=ifindex, id=cube.ids[port])
            return
        stack = cube.stacks.get(port, [])
        peer = cube.peers.get(port)
        beyond = self._address(*peer) if peer else (PROBE_SLOT, cube.ids[port], 0)
        within = (cube.number * 2, port, cube.ids[port])
        out = [(t.number * 2 + EGRESS, EGRESS, t.ids[EGRESS]) for t in stack] + [beyond]
        back = [within] + [(t.number * 2 + INGRESS, INGRESS, t.ids[INGRESS]) for t in stack]
        self._hop(cube, port, out[0], OWN_FLOOD | INDIRECT)
        for position, t in enumerate(stack):
            self._hop(t, EGRESS, out[position + 1])
            self._hop(t, INGRESS, back[position])

    def _address(self, cube: CubeUnderTest, port: int) -> tuple[int, int, int]:
        """Where frames for a port go: slot, port, id."""
        stack = cube.stacks.get(port)
        if stack:
            return stack[-1].number * 2 + INGRESS, INGRESS, stack[-1].ids[INGRESS]
        return cube.number * 2, port, cube.ids[port]

    def _hop(self, cube: CubeUnderTest, port: int, to: tuple[int, int, int], flags: int = 0) -> None:
        slot, peer_port, peer_id = to
        cube.write_port(port, next=NEXT_CUBE, flags=flags, peer_port=peer_port, target=slot, id=cube.ids[port], peer_id=peer_id)

    def _run(self, cube: CubeUnderTest, port: int, frame: bytes, run: Callable[[], int | None]) -> Result:
        seen = Observation(self.stage, self.cubes, cube)
        action = run()
        seen.collect()
        if action in TC_PASS:
            seen.result.stack.append(self._left(frame))
        elif seen.result.verdict == "lost" and action != TC_REDIRECT:
            seen.wait(lambda: seen.result.verdict != "lost")
        if any(member.floods for member in self.cubes):
            seen.settle()
        if action == TC_REDIRECT and not seen.redirected(self._left(frame)) and cube.has_shadow:
            seen.result.namespace.append(Exit(cube.name, port, self._left(frame)))
        seen.result.exits.sort(key=lambda exit: (exit.cube, exit.port))
        return seen.result

    def _left(self, sent: bytes) -> bytes:
        """The frame that a TC program passed. A tag in the metadata does not come out of a test run; it is shown as it was sent."""
        frame = self.stage.left.data
        if sent[12:14] in (b"\x81\x00", b"\x88\xa8"):
            return with_tag(frame, int.from_bytes(sent[14:16], "big"), int.from_bytes(sent[12:14], "little"))
        return frame
