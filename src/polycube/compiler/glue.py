# SPDX-License-Identifier: Apache-2.0
"""Fused units as data, and the glue between their cubes as LLVM assembly.

A fused unit is a directed acyclic graph. Its nodes are handlers of its cubes, in an order in which every way leads forward: a standard
cube (its ingress handler, then its egress handler, then the way of the port), or one direction of a transparent cube. A way is an entry
of the cube's table `ports` that has become a constant; it leads to another node, or out of the unit: to a netdev, the stack, or by tail
call to the unit of one of a cube that is not part of the unit, or is on the way already.

The glue is one function, `pcn_fused`: a switch from the netdev a frame came by to its first node, and a basic block for each step. What
is done on the way is C (member.bpf.c, fused.bpf.c), called with constants and inlined. No two nodes share code, so that everything the
optimiser learns on the way (what was parsed, which flags can be set) holds for the cubes behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from polycube.compiler.function import Function, Hook

GO_ON = 0x10000  # of unit.h
STANDARD = "input"
PORT = "{ i8, i8, i16, i32, i32, i32 }"  # struct pcn_port


@dataclass(frozen=True)
class Cube:
    """A cube of the unit: its function, and its configuration constants by name."""

    function: Function
    constants: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """What a port leads to: the members of struct pcn_port, and the node if it is one of the unit."""

    port: tuple[int, int, int, int, int, int]
    node: int | None = None


@dataclass(frozen=True)
class Step:
    """A node: cube (by its place), handler (`input` of a standard cube, `ingress`, `egress`) and ways by number (transparent: one, 0).

    `table`: further ports are looked up in the cube's table; else there are none.
    """

    cube: int
    handler: str
    ways: Mapping[int, Way]
    egress: bool = False  # a standard cube whose egress handler does something
    resizes: bool = False  # frames may leave longer or shorter than they came
    table: bool = False


@dataclass(frozen=True)
class Entry:
    """Frames of a netdev arrive at a node, as received by a port with this id."""

    ifindex: int
    node: int
    port: int
    id: int


@dataclass(frozen=True)
class FusedSpec:
    """What becomes one object."""

    hook: Hook
    cubes: tuple[Cube, ...]
    steps: tuple[Step, ...]
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """How errors name it."""
        names = [cube.function.name for cube in self.cubes]
        return " + ".join(names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"])


def prefix(cube: int) -> str:
    """What the names of a cube's maps, constants and functions begin with."""
    return f"m{cube}_"


def glue(spec: FusedSpec) -> str:
    """The assembly. Constants that the frames's and members' code refers to are defined here, stronger than the weak ones there."""
    return "\n".join([*_constants(spec), *_declarations(spec), *_body(spec), ""])


def _constants(spec: FusedSpec) -> Iterator[str]:
    for number, cube in enumerate(spec.cubes):
        for name, data in cube.constants.items():
            text = "".join(f"\\{byte:02x}" for byte in data)
            yield f'@{prefix(number)}{name} = constant [{len(data)} x i8] c"{text}", align 8'
    for number, step in enumerate(spec.steps):
        for port, way in step.ways.items():
            types = PORT.strip("{} ").split(", ")
            members = ", ".join(f"{type} {value}" for type, value in zip(types, way.port, strict=True))
            yield f"@way.{number}.{port} = private unnamed_addr constant {PORT} {{ {members} }}"


def _declarations(spec: FusedSpec) -> Iterator[str]:
    yield "declare i32 @pcn_fused_ifindex(ptr)"
    yield "declare i32 @pcn_fused_was_here(ptr)"
    yield "declare i32 @pcn_fused_stack()"
    yield "declare i32 @pcn_fused_out_port(ptr)"
    yield "declare void @pcn_fused_arrive(ptr, i32, i32)"
    yield "declare void @pcn_fused_measure(ptr, ptr)"
    yield "declare void @pcn_fused_cross(ptr, ptr)"
    for number, cube in enumerate(spec.cubes):
        handlers = ("ingress", "egress") if cube.function.transparent else (STANDARD, "output")
        for handler in handlers:
            yield f"declare i32 @{prefix(number)}pcn_member_{handler}(ptr, ptr)"
        yield f"declare i32 @{prefix(number)}pcn_member_follow(ptr, ptr, ptr)"
        if not cube.function.transparent:
            yield from (f"declare i32 @{prefix(number)}pcn_member_{name}(ptr, ptr, i32)" for name in ("elsewhere", "no_port"))


def _body(spec: FusedSpec) -> Iterator[str]:
    yield "define i32 @pcn_fused(ptr %ctx, ptr %pkt) {"
    cases = " ".join(f"i32 {entry.ifindex}, label %entry{place}" for place, entry in enumerate(spec.entries))
    yield "  %ifindex = call i32 @pcn_fused_ifindex(ptr %ctx)"
    yield f"  switch i32 %ifindex, label %nowhere [ {cases} ]"
    yield "nowhere:"  # a netdev that has just taken the index of another one
    yield from _return("nowhere", "@pcn_fused_stack()")
    for place, entry in enumerate(spec.entries):
        yield from _entry(spec, place, entry)
    for number, step in enumerate(spec.steps):
        yield from _step(number, step)
    yield "}"


def _entry(spec: FusedSpec, place: int, entry: Entry) -> Iterator[str]:
    yield f"entry{place}:"
    if spec.steps[entry.node].handler != STANDARD:
        yield f"  %seen{place} = call i32 @pcn_fused_was_here(ptr %ctx)"
        yield f"  %again{place} = icmp ne i32 %seen{place}, 0"
        yield f"  br i1 %again{place}, label %nowhere, label %arrive{place}"
        yield f"arrive{place}:"
    yield f"  call void @pcn_fused_arrive(ptr %pkt, i32 {entry.port}, i32 {entry.id})"
    yield f"  br label %step{entry.node}"


def _step(number: int, step: Step) -> Iterator[str]:
    name = prefix(step.cube)
    yield f"step{number}:"
    yield from _call(f"handled{number}", f"@{name}pcn_member_{step.handler}(ptr %ctx, ptr %pkt)", f"leave{number}")
    yield f"leave{number}:"
    if step.handler != STANDARD:
        yield f"  br label %way{number}.0"
    else:
        yield f"  %port{number} = call i32 @pcn_fused_out_port(ptr %pkt)"
        if step.egress:
            yield from _call(f"sent{number}", f"@{name}pcn_member_output(ptr %ctx, ptr %pkt)", f"out{number}")
            yield f"out{number}:"
        cases = " ".join(f"i32 {port}, label %way{number}.{port}" for port in step.ways)
        yield f"  switch i32 %port{number}, label %elsewhere{number} [ {cases} ]"
        yield f"elsewhere{number}:"
        yield from _return(
            f"elsewhere{number}", f"@{name}pcn_member_{'elsewhere' if step.table else 'no_port'}(ptr %ctx, ptr %pkt, i32 %port{number})"
        )
    for port, way in step.ways.items():
        yield f"way{number}.{port}:"
        if way.node is None:
            yield from _return(f"way{number}.{port}", f"@{name}pcn_member_follow(ptr %ctx, ptr %pkt, ptr @way.{number}.{port})")
        else:
            if step.resizes:
                yield "  call void @pcn_fused_measure(ptr %ctx, ptr %pkt)"
            yield f"  call void @pcn_fused_cross(ptr %pkt, ptr @way.{number}.{port})"
            yield f"  br label %step{way.node}"


def _call(name: str, call: str, following: str) -> Iterator[str]:
    """A call whose result ends the program, unless it is GO_ON."""
    yield f"  %{name} = call i32 {call}"
    yield f"  %{name}.on = icmp eq i32 %{name}, {GO_ON}"
    yield f"  br i1 %{name}.on, label %{following}, label %{name}.end"
    yield f"{name}.end:"
    yield f"  ret i32 %{name}"


def _return(name: str, call: str) -> Iterator[str]:
    yield f"  %{name}.result = call i32 {call}"
    yield f"  ret i32 %{name}.result"
