# SPDX-License-Identifier: Apache-2.0
"""From resources to fused units: pure, without a kernel or a compiler."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polycube.bpf.stack import Stack
from polycube.compiler.function import PACKAGE, Function
from polycube.compiler.glue import STANDARD, FusedSpec
from polycube.core.fusing import ENTRIES, MAPS, NODES, PORTS, SHARED_MAPS, Cut, Fused, Piece, View, propose, stands
from polycube.core.operation import Key, Kind, plan, unfused
from polycube.core.topology import CubeSpec, NetdevSpec, PortSpec, World, build
from polycube.daemon.fuser import overlay

PIECE = Piece(Function("helloworld", PACKAGE / "cubes" / "helloworld"), {"pcn_cube": 4}, frozenset({"table"}), 100)
Link = tuple[str, str]


def world(
    links: list[Link], stacks: Mapping[str, tuple[str, ...]] | None = None, attached: Mapping[str, tuple[str, ...]] | None = None
) -> World:
    """Cubes are named by capital letters, netdevs by small ones, transparent ones by a `t`. `links`: ("A", "B"), ("A", "x")."""
    ports: dict[str, list[PortSpec]] = {}
    transparents = {name for names in [*(stacks or {}).values(), *(attached or {}).values()] for name in names}
    id = iter(range(1, 10_000))
    for one, two in links:
        first = len(ports.setdefault(one, []))
        if two.islower():
            ports[one].append(PortSpec(f"p{first}", first, next(id), two, (stacks or {}).get(f"{one}{first}", ())))
            continue
        second = len(ports.setdefault(two, [])) + (one == two)
        ports[one].append(PortSpec(f"p{first}", first, next(id), f"{two}:p{second}", (stacks or {}).get(f"{one}{first}", ())))
        ports[two].append(PortSpec(f"p{second}", second, next(id), f"{one}:p{first}", (stacks or {}).get(f"{two}{second}", ())))
    cubes = {}
    for number, name in enumerate([*ports, *sorted(transparents)], 1):
        units = {"tc": f"tc-{name}"}
        if name in transparents:
            cubes[name] = CubeSpec(name, name, number, True, "tc", ids=(next(id), next(id)), units=units)
        else:
            cubes[name] = CubeSpec(name, name, number, False, "tc", "", tuple(ports[name]), units=units, egress=name == "E")
    netdevs = sorted({two for _, two in links if two.islower()} | set(attached or {}))
    return World(cubes, {name: NetdevSpec(name, index) for index, name in enumerate(netdevs, 10)}, attached or {}, inject=99)


def proposed(world: World, piece: Piece = PIECE, **more: Any) -> dict[int, Fused | Cut]:
    """By ifindex of each entry on ingress."""
    resources, _ = build(world)
    pieces = {(cube.uuid, unit): piece for cube in world.cubes.values() for unit in cube.units.values()}
    return {key.name[0]: one for keys, one in propose(View(resources), pieces, **more) for key in keys if key.name[1] == "tc-ingress"}


def ways(one: Fused | Cut) -> list[list[str]]:
    """All ways through a unit, from its first step, as names of cubes; a tail call at the end is shown as "…"."""
    assert isinstance(one, Fused)
    spec, names = one.spec, [uuid for uuid, _ in one.units]

    def follow(step: int) -> list[list[str]]:
        found = []
        for way in spec.steps[step].ways.values():
            rest = follow(way.node) if way.node is not None else [["…"] if way.port[0] == 2 else []]
            found += [[names[spec.steps[step].cube], *more] for more in rest]
        return found

    return follow(spec.entries[0].node)


def check(spec: FusedSpec) -> None:
    """What any unit must be: without cycles, within its bounds, whole."""
    state: dict[int, int] = {}

    def visit(step: int) -> None:
        assert state.get(step) != 1, "a cycle"
        if step not in state:
            state[step] = 1
            for way in spec.steps[step].ways.values():
                if way.node is not None:
                    assert way.port[0] == 2, "only a cube is a node"
                    visit(way.node)
            state[step] = 2

    for entry in spec.entries:
        visit(entry.node)
    assert set(state) == set(range(len(spec.steps))), "a step that nothing leads to"
    assert len(spec.steps) <= NODES and len(spec.entries) <= ENTRIES
    assert {step.cube for step in spec.steps} == set(range(len(spec.cubes)))
    assert len({(step.cube, step.handler) for step in spec.steps}) == len(spec.steps), "no handler twice"


def test_a_chain_is_one_unit_a_way() -> None:
    found = proposed(world([("A", "x"), ("A", "B"), ("B", "C"), ("C", "y")]))
    assert sorted(ways(found[10]), key=len) == [["A"], ["A", "B", "…"], ["A", "B", "C"], ["A", "B", "C", "…"]]
    assert ["C", "B", "A"] in ways(found[11])
    first = found[10]
    assert isinstance(first, Fused)
    assert [step.handler for step in first.spec.steps] == [STANDARD] * 3
    assert first.spec.cubes[0].constants == {"pcn_cube": (1).to_bytes(4, "little")}


def test_a_bridge_with_cubes_behind_it_is_one_unit_for_each_of_them() -> None:
    names = "ABCDEFGH"
    found = proposed(world([*((name, name.lower()) for name in names), *((name, "Z") for name in names)]))
    for ifindex, name in enumerate(names, 10):
        assert {tuple(way) for way in ways(found[ifindex])} >= {(name, "Z", other) for other in names if other != name}
        assert [name, "Z", "…"] in ways(found[ifindex]), "back to where it came from"


def test_entries_of_one_cube_share_a_unit() -> None:
    found = proposed(world([("A", "x"), ("A", "y"), ("A", "z")]))
    one = found[10]
    assert isinstance(one, Fused)
    assert found[11] is found[12] is one
    assert [(entry.ifindex, entry.port) for entry in one.spec.entries] == [(10, 0), (11, 1), (12, 2)]
    assert not one.spec.steps[0].table


def test_rings_and_diamonds_keep_all_ways_but_those_back() -> None:
    ring = ways(proposed(world([("A", "x"), ("A", "B"), ("B", "C"), ("C", "A")]))[10])
    assert ["A", "B", "C", "…"] in ring and any(way[:2] == ["A", "C"] for way in ring)
    diamond = ways(proposed(world([("A", "x"), ("A", "B"), ("A", "B"), ("B", "y")], stacks={"A2": ("t1",)}))[10])
    assert ["A", "B"] in diamond and ["A", "t1", "B"] in diamond


def test_transparent_cubes_are_on_the_way_in_their_order() -> None:
    found = proposed(world([("A", "x"), ("A", "B"), ("B", "y")], stacks={"A0": ("t1", "t2"), "B1": ("t3",)}))
    assert ["t2", "t1", "A", "B", "t3"] in ways(found[10])
    first = found[10]
    assert isinstance(first, Fused)
    handlers = [(first.units[step.cube][0], step.handler) for step in first.spec.steps]
    assert handlers[:3] == [("t2", "ingress"), ("t1", "ingress"), ("A", STANDARD)]
    assert ("t1", "egress") in handlers, "one cube, both directions"


def test_what_stands_on_a_netdev_is_fused_in_each_direction() -> None:
    made = world([], attached={"x": ("t1", "t2")})
    resources, _ = build(made)
    pieces = {(cube.uuid, unit): PIECE for cube in made.cubes.values() for unit in cube.units.values()}
    points = {key.name[1]: one for keys, one in propose(View(resources), pieces) for key in keys}
    assert ways(points["tc-ingress"]) == [["t1", "t2"]]
    assert ways(points["tc-egress"]) == [["t2", "t1"]]


def test_a_cube_for_which_it_is_off_stays_alone() -> None:
    found = proposed(world([("A", "x"), ("A", "B"), ("B", "C"), ("C", "y")]), off={"B"})
    assert ways(found[10]) == [["A"], ["A", "…"]]
    one = found[10]
    assert isinstance(one, Fused)
    assert one.cuts == (Cut("B", "fusing is off for this cube"),)
    assert proposed(world([("A", "x")]), off={"A"}) == {10: Cut("A", "fusing is off for this cube")}


def test_a_cube_whose_traffic_is_copied_stays_alone() -> None:
    copied = replace(PIECE, function=replace(PIECE.function, span=True))
    assert proposed(world([("A", "x")]), copied) == {10: Cut("A", "its traffic is copied into its namespace (span)")}


@pytest.mark.parametrize(
    ("piece", "reason", "length"),
    [
        (replace(PIECE, maps=frozenset(f"m{number}" for number in range(10))), "a program takes at most 64 maps", 5),
        (replace(PIECE, instructions=6000), "the unit would be longer than 20000 instructions", 3),
        (replace(PIECE, verified=150_000), "the verifier would have to look at more than 500000 instructions", 3),
        (replace(PIECE, verified=600_000), "the verifier would have to look at more than 500000 instructions", 1),
        (PIECE, f"the unit has {NODES} nodes", NODES),
    ],
)
def test_budgets_cut_a_chain_and_say_why(piece: Piece, reason: str, length: int) -> None:
    names = [f"C{number}" for number in range(40)]
    one = proposed(world([("C0", "x"), *itertools.pairwise(names), ("C39", "y")]), piece)[10]
    assert isinstance(one, Fused)
    assert len(one.spec.steps) == length
    assert [cut.reason for cut in one.cuts] == [reason]
    assert SHARED_MAPS + sum(len(piece.maps) for _ in one.units) <= MAPS


def test_stack_is_shared_by_cubes_but_subprograms_of_one_come_on_top_of_the_frame_of_all() -> None:
    made = world([("A", "x"), ("A", "B"), ("B", "C"), ("C", "y")])
    resources, _ = build(made)
    stacks = {"A": Stack(320, 0), "B": Stack(352, 64), "C": Stack(64, 160)}
    pieces = {(cube.uuid, unit): replace(PIECE, stack=stacks[cube.uuid]) for cube in made.cubes.values() for unit in cube.units.values()}
    units = [one for _, one in propose(View(resources), pieces) if isinstance(one, Fused)]
    assert [[uuid for uuid, _ in one.units] for one in units] == [["A", "B"], ["C"]]
    assert units[0].cuts == (Cut("C", "the unit would take more than 512 bytes of stack"),)
    assert units[1].cuts == (Cut("B", "the unit would take more than 512 bytes of stack"),), "from the other side, too"


def test_many_ports_are_looked_up_behind_the_first() -> None:
    one = proposed(world([("A", f"n{number:03}") for number in range(PORTS + 5)]))[10]
    assert isinstance(one, Fused)
    assert one.spec.steps[0].table and len(one.spec.steps[0].ways) == PORTS
    assert len(one.spec.entries) == ENTRIES


def test_what_was_refused_is_tried_with_half_as_many_cubes_and_at_last_not_at_all() -> None:
    made, tried = world([("A", "x"), ("A", "B"), ("B", "C"), ("C", "D"), ("D", "y")]), []

    def refuse(one: Fused) -> bool:
        tried.append(len(one.spec.steps))
        return len(one.spec.steps) > 1

    resources, _ = build(made)
    pieces = {(cube.uuid, unit): PIECE for cube in made.cubes.values() for unit in cube.units.values()}

    def sizes(limit: int) -> list[int]:
        return [
            len(one.spec.steps) if isinstance(one, Fused) else 0
            for _, one in propose(View(resources), pieces, (), lambda f: len(f.spec.steps) > limit)
        ]

    assert sizes(3) == [2, 2]
    assert sizes(1) == [1, 1]
    assert sizes(0) == [0, 0]


def test_a_unit_stands_until_something_it_was_made_from_changes() -> None:
    made = world([("A", "x"), ("A", "B"), ("B", "y"), ("C", "z")])
    one = proposed(made)[10]
    assert isinstance(one, Fused)
    resources, _ = build(made)
    assert stands(one, View(resources))
    assert stands(one, View(overlay(resources, [one]))), "it is looked through"
    other = dict(made.cubes)
    other["C"] = replace(other["C"], cfg={"action": "01000000"})
    assert stands(one, View(build(replace(made, cubes=other))[0])), "another cube's constant"
    for change in (
        {"cfg": {"action": "01000000"}},
        {"units": {"tc": "tc-newer"}},
        {"ports": (*made.cubes["B"].ports, PortSpec("more", 7, 77, "z"))},
        {"ports": made.cubes["B"].ports[:1]},
        {"number": 9},
    ):
        cubes = dict(made.cubes)
        cubes["B"] = replace(cubes["B"], **change)  # type: ignore[arg-type]
        assert not stands(one, View(build(replace(made, cubes=cubes))[0])), change


@st.composite
def worlds(draw: Any) -> World:
    """Any graph of up to 9 cubes, each with netdevs, links and transparent cubes."""
    count = draw(st.integers(1, 9))
    names = [chr(ord("A") + number) for number in range(count)]
    pairs = st.tuples(st.sampled_from(names), st.sampled_from(names))
    links: list[Link] = draw(st.lists(pairs, max_size=14))
    edges = [(name, f"n{number}") for number, name in enumerate(draw(st.lists(st.sampled_from(names), min_size=1, max_size=6)))]
    number = iter(range(100))
    stacks = {
        f"{name}{port}": (f"t{next(number)}",)
        for name, port in draw(st.sets(st.tuples(st.sampled_from(names), st.integers(0, 3)), max_size=4))
    }
    attached = {two: (f"t{next(number)}",) for _, two in edges if draw(st.booleans())}
    return world([*links, *edges], stacks, attached)


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(1, 12), st.sets(st.sampled_from("ABC")))
def test_any_topology(made: World, limit: int, off: set[str]) -> None:
    resources, _ = build(made)
    pieces = {(cube.uuid, unit): PIECE for cube in made.cubes.values() for unit in cube.units.values()}
    found = list(propose(View(resources), pieces, off, lambda one: len(one.spec.steps) > limit))
    attachments = {key for key in resources if key.kind is Kind.ATTACH}
    assert sorted(key for keys, _ in found for key in keys) == sorted(attachments), "each entry once"
    fused = [one for _, one in found if isinstance(one, Fused)]
    for one in fused:
        check(one.spec)
        assert len(one.spec.steps) <= limit
        assert one.uuids.isdisjoint(off)
        assert stands(one, View(resources))
    again = list(propose(View(resources), pieces, off, lambda one: len(one.spec.steps) > limit))
    assert [one.spec for _, one in again if isinstance(one, Fused)] == [one.spec for one in fused], "the same every time"
    both(resources, fused)


def both(resources: dict[Key, Any], fused: list[Fused]) -> None:
    """Into the fused state and out of it: entries last on the way in, first on the way out, and nothing else is touched."""
    wanted = overlay(resources, fused) if fused else resources
    there = [(operation.key.kind, operation.verb) for operation in plan(resources, wanted)]
    entries = sum(len(one.attached) for one in fused)
    assert there == [(Kind.FUSED, "add")] * len(fused) + [(Kind.ATTACH, "change")] * entries
    back = [(operation.key.kind, operation.verb) for operation in plan(wanted, resources)]
    assert back == [(Kind.ATTACH, "change")] * entries + [(Kind.FUSED, "remove")] * len(fused)
    assert unfused(wanted) == resources
    assert not list(plan(wanted, wanted))


def test_a_change_first_gives_entries_their_units_of_one_back() -> None:
    made = world([("A", "x"), ("A", "B"), ("B", "y")])
    resources, _ = build(made)
    pieces = {(cube.uuid, unit): PIECE for cube in made.cubes.values() for unit in cube.units.values()}
    fused = [one for _, one in propose(View(resources), pieces) if isinstance(one, Fused)]
    cubes = dict(made.cubes)
    cubes["B"] = replace(cubes["B"], units={"tc": "tc-newer"})
    new, _ = build(replace(made, cubes=cubes))
    steps = plan(overlay(resources, fused), new)
    first = steps.ahead[:2]
    assert all("fused" in operation.old and "fused" not in operation.new for operation in first)
    assert {operation.new["unit"] for operation in first} == {"tc-A", "tc-B"}, "those that stood before"
    later = [operation for operation in steps.ahead[2:] if operation.key.kind is Kind.ATTACH]
    assert [operation.new["unit"] for operation in later] == ["tc-newer"]
    assert [operation.key.kind for operation in steps.last] == [Kind.FUSED, Kind.FUSED, Kind.UNIT]
