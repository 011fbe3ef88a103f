# SPDX-License-Identifier: Apache-2.0
"""Objects of fused units, looked into: what became a constant is gone, and cubes are joined without tail calls."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from polycube.bpf import Object
from polycube.compiler import build
from polycube.compiler.bitcode import recipe
from polycube.compiler.cache import key
from polycube.compiler.function import COMPILER, PACKAGE, Function, Hook
from polycube.compiler.glue import STANDARD, Cube, Entry, FusedSpec, Step, Way, glue
from polycube.compiler.process import Compiler

HELLO = Function("helloworld", PACKAGE / "cubes" / "helloworld")
BRIDGE = Function("simplebridge", PACKAGE / "cubes" / "simplebridge")
NETDEV, CUBE = 1, 2
TAIL_CALL = 12
SLOWPATH, FORWARD = 1, 2


@pytest.fixture(scope="module")
def compiler():
    build.build([COMPILER, HELLO.folder, BRIDGE.folder])
    with Compiler(nice=5) as made:
        yield made


def row(hook: Hook, count: int, action: int = FORWARD, function: Function = HELLO, end: int = NETDEV) -> FusedSpec:
    """Cubes in a row, from netdev 7 to netdev 8, or to the unit of one in slot 8; each port 0 leads back."""
    cubes, steps = [], []
    for number in range(count):
        constants = {"pcn_cube": struct.pack("<I", number + 1)} | ({"action": struct.pack("<I", action)} if function is HELLO else {})
        cubes.append(Cube(function, constants))
        first = Way((CUBE if number else NETDEV, 0, 1, 2 * number if number else 7, 2 * number + 1, 2 * number))
        following = Way((CUBE, 0, 0, 2 * number + 4, 2 * number + 2, 2 * number + 3), number + 1)
        last = Way((end, 0, 0, 8, 2 * number + 2, 0))
        steps.append(Step(number, STANDARD, {0: first, 1: following if number + 1 < count else last}))
    return FusedSpec(hook, tuple(cubes), tuple(steps), (Entry(7, 0, 0, 1),))


def opened(compiler: Compiler, spec: FusedSpec) -> Object:
    return Object.open(compiler.emit_spec_sync(spec), "fused")


@pytest.mark.parametrize("hook", list(Hook))
def test_the_straight_way_has_no_tail_call_no_metadata_no_tables_of_the_framework(compiler, hook):
    with opened(compiler, row(hook, 4)) as object:
        assert set(object.programs) == {"fused"}
        shared = {"pcn_counters", "pcn_drops"} | ({"pcn_netdevs"} if hook == Hook.XDP else set())
        assert set(object.maps) == shared, "neither pcn_progs nor pcn_scratch, ports, pcn_entries"
        assert not object.calls({TAIL_CALL})
    with opened(compiler, row(hook, 4, end=CUBE)) as object:
        assert object.calls({TAIL_CALL}), "where the unit ends"


@pytest.mark.parametrize("hook", list(Hook))
def test_constants_are_folded_and_dead_code_is_gone(compiler, hook):
    with opened(compiler, row(hook, 2)) as forward, opened(compiler, row(hook, 2, action=SLOWPATH)) as slow:
        assert ".data.cfg" not in forward.maps and "m0_slowpath" not in forward.maps
        assert "m0_slowpath" in slow.maps and "m1_slowpath" not in slow.maps, "nothing gets to the second cube"
        assert {"pcn_netdevs"}.isdisjoint(slow.maps)


@pytest.mark.parametrize("hook", list(Hook))
def test_each_cube_has_its_own_tables(compiler, hook):
    with opened(compiler, row(hook, 3, function=BRIDGE)) as object:
        assert {f"m{number}_fdb" for number in range(3)} <= set(object.maps)
        assert object.maps["m0_fdb"].describe() == object.maps["m2_fdb"].describe()
        assert object.maps["m1_fdb"].value_layout.fields[0].name == "seen", "with their types"


def test_length_grows_with_the_chain_and_not_faster(compiler):
    lengths = []
    for count in (1, 4, 8):
        with opened(compiler, row(Hook.XDP, count)) as object:
            lengths.append(object.programs["fused"].instructions)
    assert lengths[2] - lengths[1] <= 4 * (lengths[1] - lengths[0]) / 3 + 8


def test_equal_units_have_equal_names_and_others_have_not():
    one, same, other = (row(Hook.TC, 2), row(Hook.TC, 2), row(Hook.TC, 2, action=SLOWPATH))
    assert key(recipe(one).pack()) == key(recipe(same).pack()) != key(recipe(other).pack())
    assert glue(one) == glue(same)


def test_a_table_by_index_stays_right(compiler, tmp_path: Path):
    """A constant that is an array, read at a place that is not known: memory of the unit, with the values given."""
    folder = tmp_path / "array"
    folder.mkdir()
    (folder / "array.bpf.c").write_text(
        "#include <polycube/cube.h>\nstruct exits { __u32 port[8]; };\nCFG(struct exits, exits);\nMAP(seen, HASH, __u32, __u32, 8);\n"
        "HANDLER(ingress) { return pcn_forward(pkt, !!bpf_map_lookup_elem(&seen, &exits.port[pkt->len & 7])); }\n"
    )
    build.build([folder])
    spec = row(Hook.XDP, 1)
    values = struct.pack("<8I", *range(8, 0, -1))
    spec = FusedSpec(Hook.XDP, (Cube(Function("array", folder), {"pcn_cube": bytes(4), "exits": values}),), spec.steps, spec.entries)
    with opened(compiler, spec) as object:
        assert ".rodata" in object.maps and object.maps[".rodata"].initial[:32] == values
