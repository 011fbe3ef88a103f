# SPDX-License-Identifier: Apache-2.0
"""Fused units of cubes under test: planned and compiled as the daemon does it, with the maps of the cubes on the stage.

The stage is told as resources (core/operation.py): what the harness has written into tables, and one attachment, that of the netdev which
the frame seems to come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polycube.bpf import Object, Program
from polycube.core.fusing import Fused, View, compose
from polycube.core.operation import FLAGS, NEXT, Key, Kind
from polycube.testing.stage import compiler, fresh_bitcode

if TYPE_CHECKING:
    from polycube.testing.cube import CubeUnderTest
    from polycube.testing.harness import Chain

MEMBERS = {"next": 0, "flags": 0, "peer_port": 0, "target": 0, "id": 0, "peer_id": 0}


def unit_of(chain: Chain) -> str:
    """What resources call the unit of one of any cube on the stage."""
    return f"{chain.hook}-0"


def resources(chain: Chain, first: CubeUnderTest, program: str, port: int, ifindex: int) -> dict[Key, Any]:
    """The cubes of a chain, with a netdev whose frames enter by a program of one of them, as received by a port."""
    found: dict[Key, Any] = {}
    for cube in chain.cubes:
        uuid, unit = str(cube.number), unit_of(chain)
        found[Key(Kind.CFG, (uuid, unit))] = cube.constants()
        for offset, name in enumerate(cube.tails):
            found[Key(Kind.SLOT, (chain.hook, cube.number * 2 + offset))] = {"uuid": uuid, "unit": unit, "program": name}
        for number, fields in cube.next_hops.items():
            value = MEMBERS | fields
            flags = [name for name, bit in FLAGS.items() if value["flags"] & bit]
            found[Key(Kind.PORT, (uuid, unit, number))] = value | {"next": NEXT[value["next"]], "flags": flags}
    found[Key(Kind.ATTACH, (ifindex, "test"))] = {"uuid": str(first.number), "unit": unit_of(chain), "program": program}
    found[Key(Kind.ENTRY, (ifindex,))] = {"port": port, "id": first.ids[port]}
    return found


def proposal(chain: Chain, first: CubeUnderTest, program: str, port: int, ifindex: int) -> Fused:
    """The fused unit for an entry."""
    view = View(resources(chain, first, program, port, ifindex))
    pieces = {(str(cube.number), unit_of(chain)): cube.piece for cube in chain.cubes}
    fused = compose(view, chain.hook, list(view.attached), pieces, ())
    assert isinstance(fused, Fused), fused
    return fused


class FusedPrograms:
    """Those of one chain, by what they were made of."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._loaded: dict[str, Program] = {}

    def get(self, first: CubeUnderTest, program: str, port: int, ifindex: int) -> Program:
        """The fused program that takes the place of a unit of one's where a frame enters."""
        fused = proposal(self._chain, first, program, port, ifindex)
        if fused.name not in self._loaded:
            self._loaded[fused.name] = self._load(fused)
        return self._loaded[fused.name]

    def _load(self, fused: Fused) -> Program:
        for cube in fused.spec.cubes:
            fresh_bitcode(cube.function.folder)
        cubes = {str(cube.number): cube for cube in self._chain.cubes}
        with Object.open(compiler().emit_spec_sync(fused.spec), "fused") as object:
            for spec in object.maps.values():
                prefix, _, name = spec.name.partition("_")
                if spec.name in self._chain.stage.maps:
                    spec.reuse(self._chain.stage.maps[spec.name])
                elif f"{prefix}_" in fused.pins:
                    spec.reuse(cubes[fused.pins[f"{prefix}_"][0]].kernel_map(name))
            object.load()
            return object.program("fused")

    def close(self) -> None:
        """Unloads them."""
        for program in self._loaded.values():
            program.close()
        self._loaded.clear()
