# SPDX-License-Identifier: Apache-2.0
"""Which parts of the data plane become one program: a pure function of what the kernel holds.

`propose` reads resources (operation.py): attachments, next hops, constants. Every attachment point is the entry of a *fused unit*, shared
by the entries that lead to the same standard cube. A unit is found breadth first from there, and is a directed acyclic graph: since links
are two-way, each is a cycle, and of every cycle one edge stays a tail call to the unit of one of a cube that the frame has met already.
Edges are taken in the order in which they are found, so frames go away from where they came in without a tail call.

A cube that would burst a budget of the kernel or the compiler is left out, as are those behind it: the edge to it stays a tail call, too.
What failed is not proposed again: its digest is in `refused`, and the unit is tried with half as many nodes.

A fused unit stands as long as what it was made from (`stands`). It owns no state: its maps are those of its cubes' units of one, which stay
loaded.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from polycube.bpf import Object
from polycube.bpf.stack import LIMIT, Stack, stack_of
from polycube.compiler.bitcode import has_egress, recipe
from polycube.compiler.cache import key as cache_key
from polycube.compiler.function import Function, Hook
from polycube.compiler.glue import STANDARD, Cube, Entry, FusedSpec, Step, Way, prefix
from polycube.core.operation import FLAGS, NEXT, Key, Kind, Resources

MAPS = 60  # of the 64 that a program takes; some are the framework's
NODES = 32
INSTRUCTIONS = 20_000  # a jump reaches 32,767
VERIFIED = 500_000  # instructions that the verifier looked at in the units of one; it gives up at a million
LIVE = 32  # bytes of stack for what has to be kept while other cubes are at work
PORTS = 64  # of a cube that become constants; the others are looked up
ENTRIES = 64  # of a unit
SHARED_MAPS = 9  # those that all cubes share, and the constants' section
PORT_COST = 40  # instructions
SHARED = "pcn_"  # what maps that all cubes share are called by
CONSTANTS = ".data.cfg"
# Helpers that change a frame's length: bpf_skb_vlan_push and _pop, _change_proto, _change_tail, _change_head, bpf_xdp_adjust_head,
# bpf_skb_adjust_room, bpf_xdp_adjust_tail, bpf_lwt_push_encap.
RESIZING = frozenset((18, 19, 31, 38, 43, 44, 50, 65, 73))
_DIRECTIONS = ("ingress", "egress")

Node = tuple[str, str]  # (uuid, handler)


@dataclass(frozen=True)
class Piece:
    """What is known of a unit of one, from its object."""

    function: Function
    constants: Mapping[str, int] = field(default_factory=dict)  # names of configuration constants -> bytes
    maps: frozenset[str] = frozenset()  # its own, by name
    instructions: int = 0  # of its longest program
    egress: bool = False
    resizes: bool = True  # may make frames longer or shorter
    stack: Stack = field(default_factory=Stack)
    verified: int = 0  # instructions that the verifier looked at, from who loaded it

    @classmethod
    def of(cls, function: Function, hook: Hook, object: Object) -> Piece:
        """Read from an object that is not loaded."""
        variables = object.maps[CONSTANTS].variables() if CONSTANTS in object.maps else {}
        maps = frozenset(name for name in object.maps if not name.startswith((SHARED, ".")))
        if "domains" not in maps:
            maps -= {"ports"}  # next hops are constants; only who floods reads the table
        longest = max(program.instructions for program in object.programs.values())
        constants = {name: layout.size for name, (_, layout) in variables.items()}
        return cls(function, constants, maps, longest, has_egress(function, hook), object.calls(RESIZING), stack_of(object.data))


@dataclass(frozen=True)
class Cut:
    """Why frames leave a unit by a tail call to a cube's unit of one."""

    uuid: str
    reason: str


@dataclass(frozen=True)
class Fused:
    """A proposal."""

    spec: FusedSpec
    units: tuple[tuple[str, str], ...]  # (uuid, unit) of each cube of the spec
    attached: Mapping[Key, Mapping[str, str]]  # the attachments it takes over
    cuts: tuple[Cut, ...]
    inputs: Mapping[Key, Any]  # the resources it was made from

    @cached_property
    def digest(self) -> str:
        """Of what is compiled."""
        code = repr([cube.function.code for cube in self.spec.cubes])  # of instances; the recipe here is without
        return cache_key([*recipe(self.spec).pack(), code.encode()])

    @cached_property
    def name(self) -> str:
        """Of what is loaded: also tells apart whose maps it uses and where it is attached."""
        text = repr((self.digest, self.units, sorted(self.entries.items())))
        return f"{self.spec.hook}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def entries(self) -> dict[str, str]:
        """Attachment points, as "ifindex-point", and what stands there without it: "uuid/unit/program"."""
        return {
            f"{key.name[0]}-{key.name[1]}": f"{value['uuid']}/{value['unit']}/{value['program']}" for key, value in self.attached.items()
        }

    @cached_property
    def uuids(self) -> frozenset[str]:
        """Its cubes."""
        return frozenset(uuid for uuid, _ in self.units)

    @property
    def pins(self) -> dict[str, tuple[str, str]]:
        """Prefix of maps in the object -> (uuid, unit) of the cube that has them."""
        return {prefix(number): unit for number, unit in enumerate(self.units)}


class View:
    """Resources, arranged to be followed from hop to hop. Fused units that stand already are looked through."""

    def __init__(self, resources: Resources) -> None:
        self.attached: dict[Key, dict[str, str]] = {}
        self.entries: dict[int, dict[str, int]] = {}
        self.slots: dict[tuple[str, int], dict[str, str]] = {}
        self.constants: dict[tuple[str, str], dict[str, str]] = {}
        self.ports: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        for key, value in resources.items():
            if key.kind is Kind.ATTACH and "uuid" in value:
                self.attached[key] = {name: text for name, text in value.items() if name != "fused"}
            elif key.kind is Kind.ENTRY:
                self.entries[key.name[0]] = value
            elif key.kind is Kind.SLOT:
                self.slots[key.name] = value
            elif key.kind is Kind.CFG:
                self.constants[key.name] = value
            elif key.kind is Kind.PORT:
                self.ports.setdefault(key.name[:2], {})[key.name[2]] = value

    def inputs(self, fused: Fused) -> dict[Key, Any]:
        """Of all that a unit depends on, what these resources say."""
        return self.gather(fused.attached, fused.units)

    def gather(self, attached: Collection[Key], units: Collection[tuple[str, str]]) -> dict[Key, Any]:
        found: dict[Key, Any] = {}
        for key in attached:
            found[key] = self.attached.get(key)
            found[Key(Kind.ENTRY, (key.name[0],))] = self.entries.get(key.name[0])
        for unit in units:
            found[Key(Kind.CFG, unit)] = self.constants.get(unit)
            found[Key(Kind.PORT, unit)] = ports = self.ports.get(unit, {})
            hook = unit[1].partition("-")[0]
            for port in ports.values():
                if port["next"] == "cube":
                    slot = (hook, port["target"])
                    found[Key(Kind.SLOT, slot)] = self.slots.get(slot)
        return found


def stands(fused: Fused, view: View) -> bool:
    """Whether a unit still is what would be made from these resources."""
    return view.inputs(fused) == fused.inputs


class Explorer:
    """Finds the graph of one group."""

    def __init__(self, view: View, hook: str, pieces: Mapping[tuple[str, str], Piece], off: Collection[str], limit: int) -> None:
        self.view = view
        self.hook = hook
        self.pieces = pieces
        self.off = off
        self.limit = limit
        self.units: dict[str, tuple[str, str]] = {}  # uuid -> (uuid, unit), in the order of their discovery
        self.nodes: dict[Node, int] = {}
        self.cuts: dict[str, Cut] = {}
        self.maps = SHARED_MAPS
        self.instructions = self.verified = 0
        self.stack = Stack()

    def refusal(self, uuid: str, unit: str) -> str:
        """Why another node of this cube can't be had, or ""."""
        if uuid in self.off:
            return "fusing is off for this cube"
        piece = self.pieces.get((uuid, unit))
        if piece is None:
            return "its code is not at hand"
        if piece.function.span:
            return "its traffic is copied into its namespace (span)"
        if len(self.nodes) >= self.limit:
            return f"the unit has {self.limit} nodes"
        if uuid not in self.units and self.maps + len(piece.maps) > MAPS:
            return "a program takes at most 64 maps"
        if self.instructions + self._cost(piece, uuid, unit) > INSTRUCTIONS:
            return f"the unit would be longer than {INSTRUCTIONS} instructions"
        if self.nodes and self.verified + piece.verified > VERIFIED:
            return f"the verifier would have to look at more than {VERIFIED} instructions"
        stack = self._stack(piece)
        if uuid not in self.units and self.units and stack.frame + stack.below + LIVE > LIMIT:
            return f"the unit would take more than {LIMIT} bytes of stack"
        return ""

    def _stack(self, piece: Piece) -> Stack:
        """With another cube. Cubes use the same stack one after the other, but subprograms of one come on top of the frame of all."""
        return Stack(max(self.stack.frame, piece.stack.frame), max(self.stack.below, piece.stack.below))

    def _cost(self, piece: Piece, uuid: str, unit: str) -> int:
        return piece.instructions + PORT_COST * min(len(self.view.ports.get((uuid, unit), {})), PORTS)

    def add(self, node: Node, unit: str) -> str:
        """Takes a node in; returns why not."""
        uuid = node[0]
        reason = self.refusal(uuid, unit)
        if reason:
            self.cuts.setdefault(uuid, Cut(uuid, reason))
            return reason
        piece = self.pieces[uuid, unit]
        if uuid not in self.units:
            self.units[uuid] = (uuid, unit)
            self.maps += len(piece.maps)
        self.instructions += self._cost(piece, uuid, unit)
        self.verified += piece.verified
        self.stack = self._stack(piece)
        self.nodes[node] = len(self.nodes)
        return ""

    def explore(self, starts: list[tuple[Node, str]]) -> dict[tuple[Node, int], Node]:
        """Edges that lead forward, by node and port."""
        waiting = deque(starts)
        for node, unit in starts:
            if node not in self.nodes:
                self.add(node, unit)
        edges: dict[tuple[Node, int], Node] = {}
        behind: dict[Node, set[Node]] = {}  # all that can be reached, as far as it is known
        while waiting:
            node, unit = waiting.popleft()
            if node not in self.nodes:
                continue
            for number, target, target_unit in self.leading_on(node, unit):
                if target not in self.nodes:
                    if self.add(target, target_unit):
                        continue
                    waiting.append((target, target_unit))
                if target != node and node not in self._reach(target, behind):
                    edges[node, number] = target
                    behind.setdefault(node, set()).add(target)
        return edges

    def _reach(self, node: Node, edges: Mapping[Node, set[Node]]) -> set[Node]:
        seen: set[Node] = set()
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                waiting.extend(edges.get(one, ()))
        return seen

    def leading_on(self, node: Node, unit: str) -> Iterator[tuple[int, Node, str]]:
        """Ports of a node that lead to cubes: (number, node, unit)."""
        for number, port in ports_of(self.view, node, unit).items():
            if port["next"] == "cube":
                slot = self.view.slots.get((self.hook, port["target"]))
                if slot and "uuid" in slot:
                    handler = slot["program"].removesuffix("_tail")
                    yield number, (slot["uuid"], STANDARD if handler == "tail" else handler), slot["unit"]


def ports_of(view: View, node: Node, unit: str) -> dict[int, dict[str, Any]]:
    """The ports by which frames leave a node."""
    ports = view.ports.get((node[0], unit), {})
    if node[1] == STANDARD:
        return dict(sorted(ports.items()))
    direction = _DIRECTIONS.index(node[1])
    return {0: ports[direction]} if direction in ports else {}


def start_of(attached: Mapping[str, str]) -> Node:
    """The node at which frames of an attachment begin."""
    return attached["uuid"], STANDARD if attached["program"] == "entry" else attached["program"]


def root_of(view: View, key: Key) -> Any:
    """What the entries of a group have in common: the first standard cube on the way, or just the netdev."""
    attached = view.attached[key]
    hook, point = attached["unit"].partition("-")[0], key.name[1]
    node, unit = start_of(attached), attached["unit"]
    for _ in range(NODES):
        if node[1] == STANDARD:
            return point, attached.get("mode", ""), node[0]
        port = next(iter(ports_of(view, node, unit).values()), None)
        slot = view.slots.get((hook, port["target"])) if port and port["next"] == "cube" else None
        if not slot or "uuid" not in slot:
            break
        handler = slot["program"].removesuffix("_tail")
        node, unit = (slot["uuid"], STANDARD if handler == "tail" else handler), slot["unit"]
    return point, "", key.name[0]


def groups(view: View) -> Iterator[tuple[str, list[Key]]]:
    """Attachments that share a unit, with their hook."""
    found: dict[Any, list[Key]] = {}
    for key in sorted(view.attached, key=lambda key: key.name):
        if _port_of(view, key) is not None:
            found.setdefault(root_of(view, key), []).append(key)
    for keys in found.values():
        hook = view.attached[keys[0]]["unit"].partition("-")[0]
        alike = len({start_of(view.attached[key]) for key in keys}) == 1
        size = ENTRIES if alike else NODES // 2
        for first in range(0, len(keys), size):
            yield hook, keys[first : first + size]


def compose(
    view: View, hook: str, keys: list[Key], pieces: Mapping[tuple[str, str], Piece], off: Collection[str], limit: int = NODES
) -> Fused | Cut:
    """The unit of a group, or why there is none."""
    starts = [(start_of(view.attached[key]), view.attached[key]["unit"]) for key in keys]
    explorer = Explorer(view, hook, pieces, off, limit)
    edges = explorer.explore(starts)
    keys = [key for key, (node, _) in zip(keys, starts, strict=True) if node in explorer.nodes]
    if not keys:
        return explorer.cuts[starts[0][0][0]]
    places = {uuid: place for place, uuid in enumerate(explorer.units)}
    cubes = tuple(_cube(view, unit, pieces[unit]) for unit in explorer.units.values())
    steps = []
    for node in explorer.nodes:
        unit = explorer.units[node[0]]
        ports = ports_of(view, node, unit[1])
        inner = {number: explorer.nodes[edges[node, number]] for number in ports if (node, number) in edges}
        chosen = [*inner, *(number for number in ports if number not in inner)][:PORTS]
        ways = {number: Way(_port(ports[number]), inner.get(number)) for number in sorted(chosen)}
        steps.append(Step(places[node[0]], node[1], ways, pieces[unit].egress, pieces[unit].resizes, len(ways) < len(ports)))
    entries = tuple(_entry(view, key, explorer.nodes) for key in keys)
    spec = FusedSpec(Hook(hook), cubes, tuple(steps), entries)
    attached = {key: view.attached[key] for key in keys}
    units = tuple(explorer.units.values())
    return Fused(spec, units, attached, tuple(explorer.cuts.values()), view.gather(attached, units))


def propose(
    view: View, pieces: Mapping[tuple[str, str], Piece], off: Collection[str] = (), refused: Callable[[Fused], bool] = lambda _: False
) -> Iterator[tuple[list[Key], Fused | Cut]]:
    """For each group of attachments its unit, or why there is none. `off`: uuids of cubes that are not to be fused."""
    for hook, keys in groups(view):
        limit, result = NODES, compose(view, hook, keys, pieces, off)
        while isinstance(result, Fused) and refused(result):
            limit = min(limit, len(result.spec.steps)) // 2
            if not limit:
                result = Cut(result.units[0][0], "even a unit of one node was refused")
                break
            result = compose(view, hook, keys, pieces, off, limit)
        yield keys, result


def _cube(view: View, unit: tuple[str, str], piece: Piece) -> Cube:
    values = view.constants.get(unit, {})
    return Cube(piece.function, {name: bytes.fromhex(values.get(name, "00" * size)) for name, size in sorted(piece.constants.items())})


def _port(port: Mapping[str, Any]) -> tuple[int, int, int, int, int, int]:
    flags = sum(FLAGS[flag] for flag in port["flags"])
    return NEXT.index(port["next"]), flags, port["peer_port"], port["target"], port["id"], port["peer_id"]


def _port_of(view: View, key: Key) -> tuple[int, int] | None:
    """Number and id of the port by which frames of an attachment arrive; None: it is not set up."""
    attached = view.attached[key]
    if attached["program"] == "entry":
        at = view.entries.get(key.name[0])
        return (at["port"], at["id"]) if at else None
    direction = _DIRECTIONS.index(attached["program"])
    port = view.ports.get((attached["uuid"], attached["unit"]), {}).get(direction)
    return (direction, port["id"]) if port else None


def _entry(view: View, key: Key, nodes: Mapping[Node, int]) -> Entry:
    at = _port_of(view, key)
    assert at
    return Entry(key.name[0], nodes[start_of(view.attached[key])], *at)
