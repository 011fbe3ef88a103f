# SPDX-License-Identifier: Apache-2.0
"""Changes of the kernel as data.

What the project keeps in the kernel is described as *resources*: a flat mapping from a key (kind and name) to a value, both plain data.
One pure function, `plan`, turns two such mappings into the operations that lead from one to the other, in an order that loses no
packet. The same function serves a request (from what stands to what is wanted), a dry run (shown, not carried out), an undo (every
operation has an inverse) and a restart (from what was found in bpffs to what the store says).

Order, for additions and changes: what a packet may reach comes before what leads a packet there. A cube's programs and tables, then their
slots in the tail-call arrays, then next hops towards cubes, then the programs of netdevs, at last next hops towards netdevs, which must
not be used before the netdev's own program stands. A next hop towards a transparent cube follows that cube's own. The tables of programs
that take over from others of the same cube come before all this: frames meet them complete or not at all. A fused unit gives way before
all else, and takes over after it. Removals come last, in the opposite order, behind a grace period in which packets that still follow the
old way finish it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple


class Kind(IntEnum):
    """Kinds of resources in the order in which they are added."""

    STATE = 5  # (uuid,) -> {}: the folder of the cube's pinned maps
    UNIT = 10  # (uuid, unit) -> {}: maps and programs of one generation; `unit` is hook and digest
    CFG = 15  # (uuid, unit) -> {variable: hexadecimal bytes}
    MAP = 20  # (uuid, map, key) -> value; both bytes in hexadecimal
    SLOT = 25  # (hook, slot) -> {uuid, unit, program}: an entry of the tail-call array
    NAMESPACE = 26  # (name,) -> {uuid}: of a shadow cube
    SHADOW = 27  # (index,) -> {namespace, name, mode, mtu, up}: veth pair into it, of a port; its end there is called as the port
    HOST = 28  # (index,) -> {name}: veth pair by which a port leads to the host's stack, the port's end at index + 1
    VETH = 30  # (index,) -> {name, mode}: internal veth pair for flooded copies, its inner end at index + 1
    LEAD = 32  # (index,) -> {slot, port}: where the frames of an internal or shadow veth go
    READY = 33  # (ifindex,) -> {name}: what a netdev needs for XDP
    ENTRY = 35  # (ifindex,) -> {port, id}
    PORT = 40  # (uuid, unit, number) -> a port's next hop; towards a netdev it is written at EDGE
    ATTACH = 50  # (ifindex, point) -> {uuid, unit, program, mode, fused}; `fused`: the unit that stands there in the place of the program
    DEVICE = 55  # (id,) -> ifindex
    EDGE = 60
    FLOOD = 65  # (uuid, unit, domain, in-port) -> [ifindex]
    DOMAIN = 70  # (uuid, unit, domain) -> [port number]
    NETDEV = 80  # (ifindex, property) -> value: MAC or address that a cube gives to its netdev
    FUSED = 90  # (name,) -> {"ifindex-point": "uuid/unit/program"}: a fused unit, and what it stands in for at its entries


NEXT = ("none", "netdev", "cube", "stack")  # enum pcn_next: where a port leads
FLAGS = {"peer": 1, "own_flood": 2, "indirect": 4, "hook": 8}  # enum pcn_port_flag


class Key(NamedTuple):
    """Names a resource."""

    kind: Kind
    name: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {'/'.join(map(str, self.name))}"


Resources = Mapping[Key, Any]


@dataclass(frozen=True)
class Operation:
    """One step: `old` is what stands (None: nothing), `new` what shall stand (None: nothing)."""

    key: Key
    old: Any
    new: Any

    @property
    def inverse(self) -> Operation:
        return Operation(self.key, self.new, self.old)

    @property
    def verb(self) -> str:
        return "remove" if self.new is None else "add" if self.old is None else "change"

    def as_data(self) -> dict[str, Any]:
        """For answers to dry runs, logs and errors."""
        data: dict[str, Any] = {"operation": self.verb, "kind": self.key.kind.name.lower(), "name": list(self.key.name)}
        if self.old is not None:
            data["old"] = self.old
        if self.new is not None:
            data["new"] = self.new
        return data

    def __str__(self) -> str:
        return f"{self.verb} {self.key}"


def rank(operation: Operation) -> int:
    """When an addition or change is carried out, as far as it is known from itself: the lower the earlier."""
    kind, old, new = operation.key.kind, operation.old, operation.new
    if kind is Kind.PORT and new:
        if old and "own_flood" in old["flags"] and "own_flood" not in new["flags"]:
            return Kind.FLOOD + 1  # the common set must hold this port's netdev before the port uses it, or floods come back
        if new["next"] == "netdev" and "hook" not in new["flags"]:
            return Kind.EDGE
    if kind is Kind.FLOOD and old is None:
        return Kind.PORT - 1  # a port's own set, which it uses as soon as its entry says so
    return kind


def _following(key: Key, value: Any, resources: Resources) -> Key | None:
    """The entry that decides about frames which a port's entry sends on: a transparent cube's. A standard cube decides by itself."""
    if value["next"] != "cube":
        return None
    slot = resources.get(Key(Kind.SLOT, (key.name[1].partition("-")[0], value["target"])))
    if slot is None or slot["program"] == "tail":
        return None
    return Key(Kind.PORT, (slot["uuid"], slot["unit"], value["peer_port"]))


class _Replaced:
    """Generations that take over from a living one of the same cube: their tables must be complete before a frame meets them.

    Nobody reads them until the new programs get their slots and netdevs, so that they can be written first; but for what leads to netdevs
    that have no program yet.
    """

    def __init__(self, old: Resources) -> None:
        users = [value for key, value in old.items() if key.kind in (Kind.SLOT, Kind.ATTACH) and "uuid" in value]
        self._live = {(value["uuid"], value["unit"]) for value in users}
        self._cubes = {(uuid, unit.partition("-")[0]) for uuid, unit in self._live}
        self._devices = {key.name[0] for key in old if key.kind in (Kind.ATTACH, Kind.VETH, Kind.HOST)}

    def rank(self, operation: Operation) -> int:
        """As `rank`, but early for these tables."""
        kind, name, new = operation.key.kind, operation.key.name, operation.new
        if kind not in (Kind.PORT, Kind.FLOOD, Kind.DOMAIN) or name[:2] in self._live:
            return rank(operation)
        devices = {new["target"]} if kind is Kind.PORT and new["next"] == "netdev" else set(new) if kind is Kind.FLOOD else set()
        early = (name[0], name[1].partition("-")[0]) in self._cubes and devices <= self._devices
        return Kind.CFG + 1 if early else rank(operation)


def _turn(
    operation: Operation, changes: Mapping[Key, Operation], resources: Resources, rank: Callable[[Operation], int]
) -> tuple[int, int, bool]:
    """Sorts additions and changes: an entry comes after all that its frames meet behind it."""
    latest, depth = rank(operation), 0
    if operation.key.kind is Kind.PORT:
        following = _following(operation.key, operation.new, resources)
        while following is not None and following in resources:
            depth += 1
            if following in changes:
                latest = max(latest, rank(changes[following]))
            following = _following(following, resources[following], resources)
    return latest, depth, operation.old is not None and operation.key.kind is not Kind.MAP


@dataclass(frozen=True)
class Plan:
    """Operations in the order to carry them out.

    `ahead`: additions, changes and all writes to cubes' maps. `behind`: removals, after a grace period. `last`: removal of programs,
    maps and namespaces, which can't be undone and therefore waits until the change is stored.
    """

    ahead: tuple[Operation, ...] = ()
    behind: tuple[Operation, ...] = ()
    last: tuple[Operation, ...] = ()

    @property
    def loading(self) -> Plan:
        """The part that creates maps, after which it is known which are new."""
        return Plan(tuple(operation for operation in self.ahead if operation.key.kind in (Kind.STATE, Kind.UNIT)))

    def __iter__(self) -> Iterator[Operation]:
        return iter((*self.ahead, *self.behind, *self.last))


def _closes(operation: Operation) -> bool:
    """A port that leads nowhere from now on: as good as removed, hence not before frames have stopped coming that way."""
    return operation.key.kind is Kind.PORT and operation.old is not None and operation.new["next"] == "none"


def unfused(resources: Resources) -> Resources:
    """The same without fused units: what stands behind them all the time."""
    if not any(key.kind is Kind.FUSED for key in resources):
        return resources
    return {
        key: {name: text for name, text in value.items() if name != "fused"} if key.kind is Kind.ATTACH else value
        for key, value in resources.items()
        if key.kind is not Kind.FUSED
    }


def plan(old: Resources, new: Resources, writes: Iterable[Operation] = ()) -> Plan:
    """What leads from `old` to `new`; `writes` are operations on cubes' maps, which keep their order.

    Fused units do not come into it: entries whose fused unit goes, or whose programs behind it change, get the program of the unit of one
    back before all else, and what is to be fused is fused when all else stands.
    """
    plain_old, plain_new = unfused(old), unfused(new)
    steps = _plan(plain_old, plain_new, writes)
    if plain_old is old and plain_new is new:
        return steps
    leaving = [Operation(key, value, plain_old[key]) for key, value in old.items() if _fused(key, value) and new.get(key, value) != value]
    joining = [Operation(key, plain_new[key], value) for key, value in new.items() if _fused(key, value) and old.get(key) != value]
    units = [(key, old.get(key), new.get(key)) for key in {**old, **new} if key.kind is Kind.FUSED]
    made = [Operation(key, None, after) for key, before, after in units if before is None]
    gone = [Operation(key, before, None) for key, before, after in units if after is None]
    return Plan((*leaving, *steps.ahead, *made, *joining), steps.behind, (*gone, *steps.last))


def _fused(key: Key, value: Any) -> bool:
    return key.kind is Kind.ATTACH and "fused" in value


def _plan(old: Resources, new: Resources, writes: Iterable[Operation]) -> Plan:
    changes = [Operation(key, old.get(key), value) for key, value in new.items() if old.get(key) != value]
    closing = [operation for operation in changes if _closes(operation)]
    ahead = [operation for operation in changes if not _closes(operation)]
    changed = {operation.key: operation for operation in changes}
    replaced = _Replaced(old)
    turns = {operation.key: _turn(operation, changed, new, replaced.rank) for operation in ahead}
    ahead.sort(key=lambda operation: turns[operation.key])
    at = bisect_right(ahead, (int(Kind.MAP), 0, False), key=lambda operation: turns[operation.key])
    ahead[at:at] = writes
    gone = closing + [Operation(key, value, None) for key, value in old.items() if key not in new]
    gone.sort(key=lambda operation: -operation.key.kind)
    final = (Kind.UNIT, Kind.STATE, Kind.NAMESPACE)
    behind = tuple(operation for operation in gone if operation.key.kind not in final)
    return Plan(tuple(ahead), behind, tuple(operation for operation in gone if operation.key.kind in final))
